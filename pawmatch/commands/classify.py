"""`pawmatch classify`: name what is in images, one by one or by the folder."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from pawmatch.commands.console import (
    add_model_options,
    check_label,
    complain,
    is_one_image,
    known_labels,
    load_models,
    missing_files,
    note,
    progress,
    say,
    say_json,
)
from pawmatch.commands.output import SUFFIXES, Output, Tally, check_out, engines_of, manifest_of
from pawmatch.commands.rows import Result, json_record
from pawmatch.errors import BadOption, PawMatchError
from pawmatch.evaluation.folders import BATCH, Found, examine_files, find_shard, read_shard
from pawmatch.labels import VARIANT_NAMES
from pawmatch.phrasing import percent, verdict_line

if TYPE_CHECKING:
    from pawmatch.classifier import Classifier
    from pawmatch.images.pool import Readers
    from pawmatch.results import Prediction

SUMMARY = "Name what is in images and say how sure that is."
EPILOG = """\
Folders are searched with their subfolders, in order of the names.

--fact and --words say what is known beside the picture, of all images alike; of words, what is understood
is shown, and nothing else counts. Where the answer is unsure, the one
question that would help most is shown with what it takes; "unsure" answers it without any weight.

With --json, one image gives one object; several give one object per line, each beginning with
"file". An image that fails gives {"file": ..., "error": {"code": ..., "message": ...}}.

--out writes results as they come, as JSON lines: to FILE itself if that is a .jsonl, else to
FILE.rows.jsonl, of which the .csv or .parquet is made at the end. A run that was ended, in whatever way,
goes on where it stopped when the same command is given again, and ends with the file that it would have
had; so does one for which images were added. For that, FILE.run.json beside it says by what settings the
rows were made: rows of other settings are refused, and --fresh starts over. Rows that are there stay as
they are, also if their image has changed. Images that failed are rows too, with the reason.

Columns of a .csv: file, task, verdict (answer, group, unknown, outside or poor_image), verdict_text,
label, name, confidence, check (yes or no), reasons, candidates_90, others, error, message, and for
each variant its label and confidence. It is UTF-8 and says so by its first bytes; text that a
spreadsheet would run as a formula gets an apostrophe in front. A .parquet has the same columns with
types: check is true or false, reasons, candidates_90 and others are lists, what is missing is null. A
line of a .jsonl is the object of --json without its timing_ms, which would differ from run to run.

IMAGE_OR_FOLDER may be a pattern ("photos/2024-*/"), a URL of an object store (s3://bucket/photos; fsspec's
package for it has to be there), a .tar or .zip of images, such as the shards of a WebDataset, a .parquet with
a column of them, as Hugging Face has it, or a folder of such files.
--on ray writes the columns of a .parquet into FOLDER, 512 images to a file; see docs/scaling.md.
"""
FILE_WIDTH = 32  # columns of the terminal; a longer name pushes the rest of its line to the right
MAX_NAMES = 8
MAX_WORKERS = 256
Sink = Callable[[str, Result], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `classify`."""
    parser.add_argument("images", nargs="+", metavar="IMAGE_OR_FOLDER", help="files, folders, web addresses")
    add_model_options(parser)
    parser.add_argument("--top-k", type=int, default=5, metavar="N", help="answers per image (default: 5)")
    parser.add_argument(
        "--fact", action="append", default=[], metavar="WHAT=VALUE", help="what is known beside the picture"
    )
    parser.add_argument("--words", metavar="TEXT", help="the same in words of your own")
    parser.add_argument(
        "--adaptive",
        action="store_true",
        help="ask the other variants only of images that took a second look; others have no row for them",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--out", metavar="FILE", help="write rows to a .csv, .jsonl or .parquet file")
    parser.add_argument("--fresh", action="store_true", help="overwrite FILE instead of going on with it")
    parser.add_argument(
        "--on",
        choices=("ray",),
        help="where: on a Ray cluster, or on this computer's Ray; --out is a folder then",
    )
    parser.add_argument(
        "--shard",
        metavar="I/N",
        help="do the I-th of N parts of the images; all parts together give all rows",
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes that read images; 0 for none (default: as suits the computer)",
    )


def run(args: argparse.Namespace) -> int:
    """Classify every image; 1 if some failed."""
    check_options(args)
    if args.on == "ray":
        from pawmatch.commands.on_ray import run_on_ray

        return run_on_ray(args)
    args.out = args.out and Path(args.out)
    missing = missing_files(args.images, fetched=True)
    if args.out is None:
        for file, error in missing.items():
            if args.json and len(missing) == len(args.images):
                say_json(json_record(file, error))
            elif not args.json:
                complain(f"{file}: {error}")
        if len(missing) == len(args.images):
            return 1
    from pawmatch.images.pool import FEW_FILES, Readers, suitable_readers

    found = find_shard(args.images, args.shard)
    first = list(islice(found, FEW_FILES))
    workers = suitable_readers(len(first), "cpu") if args.workers is None else args.workers
    # Begun before the models are loaded, which takes longer than they need to start.
    with Readers(workers) as readers:
        return run_beside(args, chain(first, found), readers, missing)


def run_beside(
    args: argparse.Namespace, found: Iterator[Found], readers: Readers, missing: Collection[str]
) -> int:
    """Load the models and classify every image but those `missing`; 1 if some failed."""
    from pawmatch.images.pool import FEW_FILES, suitable_readers

    resumed = engines_of(args.out) if args.out is not None and not args.fresh else None
    classifier = load_models(args, resumed if args.engine == "auto" else None)
    if args.workers is None and len(readers):
        device = next(classifier.main.model.parameters()).device.type
        readers.grow(suitable_readers(FEW_FILES, device))
    sinks = printers(args, classifier, missing)
    if args.out is None:
        return 1 if answer(args, classifier, found, readers, sinks, 0) else 0
    settings = manifest_of(classifier, args.top_k, BATCH, args.facts) | {"shard": args.shard}
    with Output(args.out, settings, classifier.variants, BATCH, fresh=args.fresh) as output:
        found = output.left(found)
        kept, started = output.tally.rows, time.monotonic()
        try:
            answer(args, classifier, found, readers, [*sinks, output.write], kept)
        except KeyboardInterrupt:
            note(f"stopped at row {output.tally.rows} of {args.out}; the same command goes on from there.")
            raise
        output.finish()
        if output.gone:
            note(f"{output.gone} rows are about images that are not there any more.")
        summarise(args.out, output.tally, kept, time.monotonic() - started)
    return 1 if output.tally.errors else 0


def check_options(args: argparse.Namespace) -> None:
    """Raise BadOption for what can be refused before anything is loaded; gather --fact and --words."""
    check_label(None, args.task, args.source)
    args.facts = {}
    for pair in args.fact:
        key, sign, value = pair.partition("=")
        if not sign:
            raise BadOption(f"--fact is {pair[:40]!r}; write it as WHAT=VALUE.")
        args.facts[key.strip()] = value.strip()
    if args.words:
        args.facts["words"] = args.words
    labels = known_labels(args.task, args.source) if args.facts else None
    if labels:
        from pawmatch.calibration.facts import fact_table, given_facts

        given_facts(table := fact_table(labels), args.facts)
        if args.words and not given_facts(table, {"words": args.words}):
            raise BadOption("Nothing of --words is understood; say what it looks like, or use --fact.")
    if args.on is not None:
        check_ray(args.out)
    elif args.out is not None:
        check_out(Path(args.out))
    elif args.fresh:
        raise BadOption("--fresh overwrites the file of --out; name that file too.")
    if args.top_k < 1:
        raise BadOption(f"--top-k is {args.top_k}; give a whole number from 1 on.")
    if args.shard is not None:
        read_shard(args.shard)
    if args.workers is not None and not 0 <= args.workers <= MAX_WORKERS:
        raise BadOption(f"--workers is {args.workers}; give a whole number from 0 to {MAX_WORKERS}.")


def check_ray(out: str | None) -> None:
    """Raise BadOption if there is no Ray, or no folder for its parts."""
    if importlib.util.find_spec("ray") is None:
        raise BadOption('--on ray needs Ray: pip install "pawmatch[ray]", or leave it out.')
    if out is None or Path(out).suffix.lower() in SUFFIXES:
        raise BadOption(f"--out is {out!r}; with --on ray give a folder, or a URL such as s3://bucket/rows.")


def answer(
    args: argparse.Namespace,
    classifier: Classifier,
    found: Iterator[Found],
    readers: Readers,
    sinks: list[Sink],
    done: int,
) -> int:
    """Hand the answer to each image that is found to every sink; gives the number that failed."""
    from pawmatch.calibration.facts import given_facts

    failed, facts = 0, given_facts(classifier.table, args.facts)
    if args.words:
        note(f"given: {'; '.join(f'{fact.name}: {fact.text}' for fact in facts) or 'nothing'}.")
    with closing(examine_files(classifier, found, readers)) as examined:
        # A bar and lines of results do not go together on one terminal.
        shown = not sys.stdout.isatty() or (args.out is not None and not args.json)
        count = lambda: sum(1 for _ in find_shard(args.images, args.shard))  # noqa: E731
        for file, entry in progress(examined, "classify", count=count, done=done) if shown else examined:
            result = (
                entry
                if isinstance(entry, PawMatchError)
                else classifier.to_prediction(entry, args.top_k, facts)
            )
            for sink in sinks:
                sink(file, result)
            failed += isinstance(result, PawMatchError)
    return failed


def summarise(out: Path, tally: Tally, kept: int, seconds: float) -> None:
    """The first errors, then how much was done and how fast."""
    for file, message in tally.first:
        complain(f"{file}: {message}")
    if tally.errors > len(tally.first):
        note(f"{tally.errors - len(tally.first)} more errors are in {out}.")
    new = tally.rows - kept
    if not new:
        note(f"{out} was finished before: {tally.rows} rows, {tally.errors} of them errors.")
        return
    before = f", {kept} of them by the run before" if kept else ""
    note(f"wrote {tally.rows} rows to {out}, {tally.errors} of them errors{before}.")
    note(f"{new} images in {seconds:.1f} s, {new / seconds:.1f} a second.")


def printers(args: argparse.Namespace, classifier: Classifier, missing: Collection[str]) -> list[Sink]:
    """What goes to the terminal for each image; those `missing` were named before."""
    single = is_one_image(args.images)
    verdict_width = len("Probably a , over 99 %") + max(len(name) for name in classifier.names)

    def print_json(file: str, result: Result) -> None:
        if single and not isinstance(result, PawMatchError):
            say_json(result.to_dict(), indent=2)
        else:
            say_json(json_record(file, result))

    def print_line(file: str, result: Result) -> None:
        if isinstance(result, PawMatchError):
            if args.out is None and file not in missing:  # else all of them are listed at the end
                complain(f"{file}: {result}")
        elif single:
            describe(file, result)
        elif args.out is None:
            say(f"{file:<{FILE_WIDTH}}  {verdict_line(result):<{verdict_width}}  {flag(result)}".rstrip())

    return [print_json if args.json else print_line]


def describe(file: str, prediction: Prediction) -> None:
    """The whole answer for one image."""
    width = max(len(candidate.name) for candidate in prediction.predictions)
    say(f"{file}: {verdict_line(prediction)}")
    for reason in prediction.review.reasons:
        say(f"  check: {reason.message}")
    if prediction.looks_like:
        seen = [f"{one.name}, {percent(one.confidence)}" for one in prediction.looks_like]
        say(f"  looks like: {'; '.join(seen)}")
    for warning in prediction.warnings:
        say(f"  note: {warning}")
    for fact in prediction.facts:
        say(f"  given: {fact.name}: {fact.text}")
    if question := prediction.question:
        say(f"  to be surer: {question.text}")
        for choice in question.choices:
            say(f"    --fact {question.attribute}={choice.value} ({choice.text})")
    say("")
    for candidate in prediction.predictions:
        say(f"  {candidate.name:<{width}}  {percent(candidate.confidence):>9}")
    say("")
    say(f"  9 times in 10 the truth is among: {first_of(prediction.candidates_90)}")
    for answer in prediction.variants:
        say(f"  {VARIANT_NAMES[answer.variant]}: {answer.name}, {percent(answer.confidence)}")


def first_of(names: Sequence[str]) -> str:
    """As many names as one reads, and how many more there are."""
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more


def flag(prediction: Prediction) -> str:
    """Whether and why a person should check, in one phrase."""
    if not prediction.review.needed:
        return ""
    reasons = prediction.review.reasons
    return f"check: {reasons[0].message}" if reasons else "check"
