"""A progress bar for long loops, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def progress(things: Iterable[T], what: str) -> Iterable[T]:
    """The things one by one, with a bar on standard error while they last if that is a terminal."""
    from tqdm import tqdm

    bar: Iterable[T] = tqdm(things, desc=what, leave=False, disable=not sys.stderr.isatty())
    return bar
