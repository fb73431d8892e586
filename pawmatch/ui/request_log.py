"""Request log: one line of JSON for each request, on the logger `pawmatch.requests`.

It says what was asked and how that went, for whoever runs the service, and nothing of the visitor: no
picture, no name of a file, no text that was typed, no address.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pawmatch.errors import PawMatchError
from pawmatch.results import Prediction
from pawmatch.ui.visitors import TokenBuckets

log = logging.getLogger("pawmatch.requests")

REFUSALS_A_MINUTE = 60  # lines about refusals of one kind
_refusals = TokenBuckets(REFUSALS_A_MINUTE, REFUSALS_A_MINUTE)
_left_out: Counter[str] = Counter()


@dataclass
class Line:
    """What is known so far about the request being answered."""

    endpoint: str
    task: str | None = None
    photos: int = 0
    bytes: int = 0
    pixels: int = 0
    timing_ms: dict[str, float] = field(default_factory=dict)
    review: set[str] = field(default_factory=set)
    errors: set[str] = field(default_factory=set)

    def answered(self, *answers: Prediction | PawMatchError) -> None:
        """Note what came out: timing summed over the photos, codes of review reasons and of errors."""
        for answer in answers:
            if isinstance(answer, PawMatchError):
                self.errors.add(answer.code)
                continue
            self.review |= {reason.code for reason in answer.review.reasons}
            for step, spent in answer.timing_ms.items():
                self.timing_ms[step] = round(self.timing_ms.get(step, 0.0) + spent, 1)


_current: ContextVar[Line | None] = ContextVar("journal line", default=None)


@contextmanager
def request(endpoint: str) -> Iterator[Line]:
    """Write a line when the request ends, however it ends."""
    line = Line(endpoint)
    token = _current.set(line)
    started = time.perf_counter()
    cause = None
    try:
        yield line
    except BaseException as exc:
        line.errors.add(exc.code if isinstance(exc, PawMatchError) else type(exc).__name__)
        cause = type(exc.__cause__).__name__ if exc.__cause__ else None
        raise
    finally:
        _current.reset(token)
        line.timing_ms["total"] = round(1000 * (time.perf_counter() - started), 1)
        write(line, cause)


def note_photo(size: int, pixels: int) -> None:
    """Note a photo of so many bytes and pixels in the line of the request being answered, if there is one."""
    if line := _current.get():
        line.photos += 1
        line.bytes += size
        line.pixels += pixels


def turned_away(endpoint: str, code: str) -> None:
    """Write the line of a request that was refused before anything was done for it.

    Being refused costs a stranger nothing, so each code has few lines; the next one counts those left out.
    """
    if _refusals.take(code):
        _left_out[code] += 1
    else:
        write(Line(endpoint, errors={code}), left_out=_left_out.pop(code, 0) or None)


def few_lines(record: logging.LogRecord) -> bool:
    """A filter for loggers that strangers make write: few lines a minute, whatever comes."""
    return not _refusals.take(record.name)


def write(line: Line, cause: str | None = None, left_out: int | None = None) -> None:
    """Log a line; `cause` is the kind of error behind one that says nothing to visitors."""
    if not log.isEnabledFor(logging.INFO):
        return
    values: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "endpoint": line.endpoint,
        "task": line.task,
        "photos": line.photos,
        "bytes": line.bytes,
        "pixels": line.pixels,
        "timing_ms": line.timing_ms,
        "review": sorted(line.review),
        "errors": sorted(line.errors),
    }
    also = {"cause": cause, "left_out": left_out}
    log.info(json.dumps(values | {name: value for name, value in also.items() if value}))


def start(handlers: Iterable[logging.Handler] | None = None) -> None:
    """Let the lines out, bare, on standard error or to the handlers given; and nowhere else."""
    if handlers is None:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        handlers = [handler]
    log.handlers = list(handlers)
    log.setLevel(logging.INFO)
    log.propagate = False
