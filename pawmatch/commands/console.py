"""What commands share: lines for people, JSON, options, and what is refused before models are loaded."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pawmatch.errors import BadOption, ImageError
from pawmatch.evaluation.folders import matches
from pawmatch.labels import VARIANT_NAMES, bundled_tasks, find_label, find_task, local_configs
from pawmatch.phrasing import listed, tenths
from pawmatch.settings import fetches_urls, whole

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


# --- tables with a column for each variant

FIRST, COLUMN = 38, 26  # widths
Row = tuple[str, str, Callable[[Any], str]]  # what it says, where the value is, how it is written


def table(title: str, columns: Mapping[str, Any], rows: Iterable[Row]) -> Iterator[str]:
    """A title with the variants' names beside it, and a line per row."""
    yield ""
    yield line(title, [VARIANT_NAMES.get(variant, variant) for variant in columns])
    for name, path, write in rows:
        yield line(f"  {name}", [write(value_at(column, path)) for column in columns.values()])


def value_at(report: Any, path: str) -> Any:
    """The value at a path of attributes, or None where one of them is None."""
    for name in path.split(".") if path else ():
        report = None if report is None else getattr(report, name)
    return report


def line(first: str, cells: Sequence[str]) -> str:
    """One line of a table."""
    return f"{first:<{FIRST}}  {''.join(f'{cell:<{COLUMN}}' for cell in cells)}".rstrip()


def within(share: float, low: float, high: float) -> str:
    """A share with its interval: "41.4 % (39.4 to 43.4)"."""
    return f"{tenths(share)} ({100 * low:.1f} to {100 * high:.1f})"


# --- options


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """Options of the commands that load weights."""
    tasks = bundled_tasks()
    parser.add_argument("--task", default=tasks[0], help=f"{listed(tasks)} (default: %(default)s)")
    parser.add_argument(
        "--source",
        metavar="SRC",
        help="weights: a folder, or hf://user/repo[/subfolder][@revision] (default: the bundled ones)",
    )
    add_device_option(parser)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Options of the commands that classify."""
    add_source_options(parser)
    parser.add_argument(
        "--engine", default="auto", help="auto, torch, torch-compile or openvino (default: auto)"
    )


def add_folder_options(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """Options of the commands that learn from folders of images; whether there has to be --data."""
    folders = {
        "--data": "labelled images: a folder, with a subfolder for each class",
        "--val": "labelled images to validate on instead of the data's own val/",
        "--outside": "images that do not belong to the task, from which it learns to say no",
        "--unknown": "images of classes without a label, from which it learns to say so",
    }
    for flag, text in folders.items():
        parser.add_argument(
            flag,
            required=required and flag == "--data",
            action="append",
            default=[],
            type=Path,
            metavar="DIR",
            help=f"{text}; may be given several times",
        )
    parser.add_argument(
        "--val-share",
        type=float,
        default=0.2,
        metavar="SHARE",
        help="how much of each class is held out where the data has no split (default: %(default)s)",
    )


def add_overrides(parser: argparse.ArgumentParser, told: str) -> None:
    """`--set KEY=VALUE`, with what `--help` says of it."""
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides", help=told
    )


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Options of the commands that train: changes of the recipe, and what of the machine it takes."""
    add_overrides(parser, "change a value of the recipe, such as epochs=2; may be given several times")
    parser.add_argument(
        "--init", metavar="SRC", help="backbone or checkpoint to start from (default: the recipe's)"
    )
    add_machine_options(parser)


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """What long computations take of the machine."""
    add_device_option(parser)
    parser.add_argument("--threads", metavar="N", help="threads for arithmetic (default: torch's choice)")


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """Where the models run."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:1 (default: auto)")


def number(flag: str, text: str | None) -> int | None:
    """A whole number from 1 on from a flag, None if it was not given; raises BadOption naming both."""
    if text is None:
        return None
    try:
        return whole(1, 1024)(text)
    except ValueError as exc:
        raise BadOption(f"{flag} is {text!r}; {exc}.") from exc


def load_models(args: argparse.Namespace, engine: Mapping[str, str] | None = None) -> Classifier:
    """The classifier that a command's options name; `engine` instead of the one that they name."""
    import torch

    from pawmatch.classifier import load

    named: str = getattr(args, "engine", "torch")
    adaptive: bool = getattr(args, "adaptive", False)
    classifier = load(args.task, args.source, args.device, engine or named, adaptive=adaptive)
    if classifier.notice:
        note(classifier.notice)
    if not any(name.startswith("torch") for name in classifier.engines.values()):
        # What is left to torch are the heads, whose sums depend on how many threads share them. With one, the
        # same command gives the same bytes on any number of cores.
        torch.set_num_threads(1)
    return classifier


class Listing(argparse.Action):
    """Prints what `lines` gives, one entry a line; nothing is imported before it is asked for."""

    def __init__(
        self, option_strings: Sequence[str], *, lines: Callable[[], Iterable[str]], **options: Any
    ) -> None:
        super().__init__(option_strings, nargs=0, **options)
        self.lines = lines

    def __call__(self, parser: argparse.ArgumentParser, *given: Any) -> None:
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


# --- what can be refused before a model is loaded


def is_one_image(paths: Sequence[str]) -> bool:
    """Whether a single file was named, as against a folder, a pattern, an archive, a store or several."""
    if len(paths) != 1 or os.path.isdir(paths[0]):  # noqa: PTH112 - Path.is_dir raises for some
        return False
    path = paths[0]
    is_store = "://" in path and not path.lower().startswith(("http://", "https://"))
    return not (is_store or path.lower().endswith((".tar", ".zip")) or is_pattern(path))


def is_pattern(path: str) -> bool:
    """Whether a path is a pattern that files or folders match, and itself the name of none."""
    return matches(path) != [path]


def missing_files(paths: Sequence[str], *, fetched: bool = False) -> dict[str, ImageError]:
    """The paths that lead to no file or folder, with the error that reading each would give.

    Web addresses and URLs of stores are none, if they are `fetched` and PAWMATCH_FETCH_URLS lets the former.
    """
    missing = [path for path in paths if not _exists(path)]
    if not missing:
        return {}
    from pawmatch.images import is_address, open_image
    from pawmatch.images.storage import is_stored

    errors: dict[str, ImageError] = {}
    for path in missing:
        if fetched and (is_stored(path) or (is_address(path) and fetches_urls())):
            continue
        try:
            open_image(path)
        except ImageError as exc:
            errors[path] = exc
    return errors


def _exists(path: str) -> bool:
    try:
        return os.path.lexists(path) or is_pattern(path)
    except ValueError:
        return False  # a name that the system cannot even look up


def check_out_folder(folder: Path) -> None:
    """Raise BadOption unless there is such a folder, or can be, and files can be written to it."""
    place = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not place.is_dir():
        raise BadOption(f"{place} is a file; name a folder to write to.")
    if not os.access(place, os.W_OK):
        raise BadOption(f"Nothing can be written to {place}; check its permissions, or name another folder.")


def local_config(task: str, source: str | None) -> dict[str, Any] | None:
    """The config.json of a task's weights on this computer as JSON values, unchecked.

    None where the source is on the Hub, or has no such file: loading will say what is wrong with it. Raises
    UnknownTask for bundled weights that there are not.
    """
    if source is None:
        find_task(task)
    for values in local_configs(task, source):
        try:
            if values["task"]["name"] == task and values["labels"]:
                return values
        except (LookupError, TypeError):
            continue
    return None


def known_labels(task: str, source: str | None) -> tuple[str, ...] | None:
    """The labels of a task's weights, or None where only loading them can say."""
    config = local_config(task, source)
    return None if config is None else tuple(map(str, config["labels"]))


def check_label(text: str | None, task: str, source: str | None) -> None:
    """Raise UnknownLabel or UnknownTask for what the weights do not know, if that can be told by now."""
    labels = known_labels(task, source)
    if labels is not None and text is not None:
        find_label(labels, text)
