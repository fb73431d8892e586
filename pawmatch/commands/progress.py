"""A progress bar for long loops, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def progress(things: Iterable[T], what: str) -> Iterable[T]:
    """The things one by one, with a bar on standard error while they last if that is a terminal."""
    from tqdm import tqdm

    bar: Iterable[T] = tqdm(things, desc=what, leave=False, disable=not sys.stderr.isatty())
    return bar


def image_progress(things: Iterable[T], count: Callable[[], int], done: int) -> Iterable[T]:
    """The things with a bar that shows their rate and the time left; `done` of them were there before.

    `count` says how many there are in all. It is asked only if there is a terminal to show it on.
    """
    from tqdm import tqdm

    if not sys.stderr.isatty():
        return things
    bar: Iterable[T] = tqdm(
        things,
        desc="classify",
        unit=" images",
        total=count(),
        initial=done,
        leave=False,
        smoothing=0.05,  # they come in batches: a short memory would let the rate jump
        dynamic_ncols=True,
    )
    return bar
