"""`pawmatch classify`: name what is in images, one by one or by the folder."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from pawmatch.commands.console import add_model_options, complain, note, say, say_json
from pawmatch.commands.inputs import answers, find_images, is_one_image
from pawmatch.commands.records import Result, Sink, csv_rows, json_lines, json_object, json_record
from pawmatch.errors import BadOption, PawMatchError
from pawmatch.tasks import VARIANT_NAMES
from pawmatch.ui.words import percent

if TYPE_CHECKING:
    from pawmatch.predict import Classifier
    from pawmatch.results import Prediction

SUMMARY = "Name what is in images and say how sure that is."
EPILOG = """\
Folders are searched with their subfolders, in order of the names.

With --json, one image gives one object; several give one object per line, each beginning with
"file". An image that fails gives {"file": ..., "error": {"code": ..., "message": ...}}.

Columns of a .csv: file, task, label, name, confidence, check (yes or no), reasons, candidates_90,
others, error, message, and for each variant its label and confidence. Text that a spreadsheet
would run as a formula gets an apostrophe in front.
"""
FILE_WIDTH = 32  # columns of the terminal; a longer name pushes the rest of its line to the right
MOST_NAMES = 8
WRITERS = (".csv", ".jsonl")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `classify`."""
    parser.add_argument("images", nargs="+", metavar="IMAGE_OR_FOLDER", help="what to classify")
    add_model_options(parser)
    parser.add_argument("--top-k", type=int, default=5, metavar="N", help="answers per image (default: 5)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write rows to a .csv or .jsonl file")


def run(args: argparse.Namespace) -> int:
    """Classify every image; 1 if some failed."""
    if args.out is not None and args.out.suffix.lower() not in WRITERS:
        raise BadOption(f"--out is {str(args.out)!r}; give a file that ends in .csv or .jsonl.")
    from pawmatch.loading import load

    classifier = load(args.task, args.source, args.device, args.engine)
    if classifier.notice:
        note(classifier.notice)
    count = failures = 0
    with ExitStack() as stack:
        sinks = printers(args, classifier)
        for file, result in answers(classifier, find_images(args.images), args.top_k):
            # Opened with the first answer: options that are refused leave an older file as it was.
            if args.out is not None and count == 0:
                stream = stack.enter_context(
                    args.out.open("w", encoding="utf-8", errors="surrogateescape", newline="")
                )
                is_csv = args.out.suffix.lower() == ".csv"
                sinks.append(csv_rows(stream, classifier.variants) if is_csv else json_lines(stream))
            for sink in sinks:
                sink(file, result)
            count += 1
            failures += isinstance(result, PawMatchError)
    if args.out is not None:
        note(f"wrote {count} rows to {args.out}, {failures} of them errors.")
    return 1 if failures else 0


def printers(args: argparse.Namespace, classifier: Classifier) -> list[Sink]:
    """What goes to the terminal for each image."""
    single = is_one_image(args.images)
    name_width = max(len(name) for name in classifier.names)

    def print_json(file: str, result: Result) -> None:
        if single and not isinstance(result, PawMatchError):
            say_json(json_object(result), indent=2)
        else:
            say_json(json_record(file, result))

    def print_line(file: str, result: Result) -> None:
        if isinstance(result, PawMatchError):
            complain(f"{file}: {result}")
        elif single:
            describe(file, result)
        elif args.out is None:
            name = f"{result.top.name:<{name_width}}"
            say(f"{file:<{FILE_WIDTH}}  {name}  {percent(result.top.confidence):>9}  {flag(result)}".rstrip())

    return [print_json if args.json else print_line]


def describe(file: str, prediction: Prediction) -> None:
    """The whole answer for one image."""
    width = max(len(candidate.name) for candidate in prediction.predictions)
    say(f"{file}: {prediction.top.name}, {percent(prediction.top.confidence)}")
    for reason in prediction.review.reasons:
        say(f"  check: {reason.message}")
    for warning in prediction.warnings:
        say(f"  note: {warning}")
    say("")
    for candidate in prediction.predictions:
        say(f"  {candidate.name:<{width}}  {percent(candidate.confidence):>9}")
    say("")
    say(f"  9 times in 10 the truth is among: {first_of(prediction.candidates_90)}")
    for answer in prediction.variants:
        say(f"  {VARIANT_NAMES[answer.variant]}: {answer.name}, {percent(answer.confidence)}")


def first_of(names: Sequence[str]) -> str:
    """As many names as one reads, and how many more there are."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def flag(prediction: Prediction) -> str:
    """Whether and why a person should check, in one phrase."""
    if not prediction.review.needed:
        return ""
    reasons = prediction.review.reasons
    return f"check: {reasons[0].message}" if reasons else "check"
