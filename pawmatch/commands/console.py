"""What commands share: lines for people, JSON for programs, the options that choose a model."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from pawmatch.labels import bundled_tasks
from pawmatch.phrasing import listed

if TYPE_CHECKING:
    from pawmatch.classifier import Classifier

T = TypeVar("T")


def printable(text: str) -> str:
    """The text with control characters, and bytes that no encoding explains, written as escapes.

    A file may be named with terminal commands or a line break; neither must reach the terminal.
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text
    )


def say(line: str) -> None:
    """A line of the result; written at once, for whoever follows a long run."""
    print(printable(line), flush=True)


def note(message: str) -> None:
    """A line about the run itself, which is not part of its result."""
    print(f"pawmatch: {printable(message)}", file=sys.stderr, flush=True)


def complain(message: str) -> None:
    """One line that says what went wrong."""
    note(f"error: {message}")


def say_json(value: Any, *, indent: int | None = None) -> None:
    """A JSON value in ASCII: exact whatever the terminal's encoding, and free of control characters."""
    print(json.dumps(value, indent=indent, allow_nan=False), flush=True)


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """Options of the commands that load weights."""
    tasks = bundled_tasks()
    parser.add_argument("--task", default=tasks[0], help=f"{listed(tasks)} (default: %(default)s)")
    parser.add_argument(
        "--source",
        metavar="SRC",
        help="weights: a folder, or hf://user/repo[/subfolder][@revision] (default: the bundled ones)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1 (default: auto)")


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Options of the commands that classify."""
    add_source_options(parser)
    parser.add_argument(
        "--engine", default="auto", help="auto, torch, torch-compile or openvino (default: auto)"
    )


def load_models(args: argparse.Namespace, engine: Mapping[str, str] | None = None) -> Classifier:
    """The classifier that a command's options name; `engine` instead of the one that they name."""
    from pawmatch.classifier import load

    named: str = getattr(args, "engine", "torch")
    classifier = load(args.task, args.source, args.device, engine or named)
    if classifier.notice:
        note(classifier.notice)
    return classifier


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


def progress(
    things: Iterable[T], what: str, count: int | Callable[[], int] | None = None, done: int = 0
) -> Iterable[T]:
    """The things one by one, with a bar on standard error while they last if that is a terminal.

    `count` says how many there are in all, and is asked only if there is a terminal to show it on. `done` of
    them were there before.
    """
    if not sys.stderr.isatty():
        return things
    from tqdm import tqdm

    bar: Iterable[T] = tqdm(
        things,
        desc=what,
        total=count() if callable(count) else count,
        initial=done,
        leave=False,
        smoothing=0.05,  # they come in batches: a short memory would let the rate jump
        dynamic_ncols=True,
    )
    return bar
