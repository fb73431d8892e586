"""An option that prints what there is to choose from and ends the program, as --version does."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pawmatch.commands.console import say


class Listing(argparse.Action):
    """Prints what `lines` gives, one entry a line; nothing is imported before it is asked for."""

    def __init__(
        self,
        option_strings: Sequence[str],
        dest: str,
        *,
        lines: Callable[[], Iterable[str]],
        help: str | None = None,
    ) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)
        self.lines = lines

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        for line in self.lines():
            say(line)
        parser.exit()
