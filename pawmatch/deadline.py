"""A time limit on what the Hub's library does over HTTP.

The library bounds the wait for the next byte, not for the last one, and where the Hub asks to come back in
an hour, it sleeps that hour. A hook on each of its answers puts an end to both.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from huggingface_hub import get_session

until: ContextVar[float] = ContextVar("until", default=math.inf)
TOO_MANY = 429


class TookTooLong(Exception):
    """The time is up, and the answer not complete."""


class RateLimited(Exception):
    """The Hub asks to come back later."""


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raise TookTooLong or RateLimited inside, once a body takes longer or the Hub asks to wait.

    What is silent altogether is left to the library's own limits.
    """
    hooks = get_session().event_hooks["response"]
    if watch not in hooks:
        hooks.append(watch)
    token = until.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        until.reset(token)


def watch(response: Any) -> None:
    """Let an answer under a limit be read up to the limit. Its type differs from version to version."""
    end = until.get()
    if end == math.inf:
        return
    if response.status_code == TOO_MANY:
        raise RateLimited
    read = response.iter_raw

    def iter_raw(chunk_size: int | None = None) -> Iterator[bytes]:
        for part in read(chunk_size):
            if time.monotonic() > end:
                raise TookTooLong
            yield part

    response.iter_raw = iter_raw
