"""`pawmatch compare`: how the variants of a task do on the same images."""

from __future__ import annotations

import argparse
import codecs
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from heapq import heappop, heappush
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pawmatch.commands.console import (
    Row,
    add_model_options,
    check_out_folder,
    complain,
    known_labels,
    load_models,
    missing_files,
    note,
    progress,
    say,
    say_json,
    table,
    within,
)
from pawmatch.commands.rows import csv_line, json_record, read_table
from pawmatch.errors import BadOption, ImageNotFound, PawMatchError
from pawmatch.evaluation.folders import Found, examine_files, find_labelled
from pawmatch.labels import VARIANT_NAMES, display_name, find_label
from pawmatch.phrasing import percent, tenths

if TYPE_CHECKING:
    from pawmatch.classifier import Classifier, ModelOutputs
    from pawmatch.evaluation.compare import Accuracy, Comparison, ImageAnswers, Part

SUMMARY = "Compare the three variants on the same images."
EPILOG = """\
The true label is the one of --truth, which is a label or a .csv table with the columns file and label, or
else the name of the folder, within one that was given, in which an image lies. Where it is known, the right
answers are counted, too.

--out writes comparison.json, comparison.csv with a row per image, comparison.png with all figures on
one page, and sheets/ with the heatmaps of the first images. Files of these names are replaced. The JSON
has the first 1,000 images one by one, the .csv has them all.

--differ lists only the images to which the variants gave different first choices, those first on which two
of them are surest of different answers, and which variants are right where the truth is known. With --out
these rows are differ.csv, too, and the sheets are theirs.

Columns of the .csv: file, truth, agree (yes or no), right (the variants that are); for each variant its
label, its confidence and its confidence in the true label; sheet, error, message.
"""
FILE_WIDTH = 32  # columns of the terminal; a longer name pushes the rest of its line to the right
NAME_WIDTH = 20
SPREAD = {"mean": "mean", "median": "median", "standard deviation": "std", "lowest": "min", "highest": "max"}
SHEETS = "sheets"  # the folder that they go to, below the one given
QUALITY = 88  # of the sheets' JPEG files
MAX_STEM = 80  # characters of an image's name that its sheet's name keeps
MAX_KEPT = 1000  # images whose answers are kept for the JSON; the table on disk has all
NOTHING = "There is no image to compare the variants on; give one that can be read."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `compare`."""
    parser.add_argument("images", nargs="+", metavar="IMAGE_OR_FOLDER", help="what to compare them on")
    add_model_options(parser)
    parser.add_argument(
        "--truth",
        metavar="LABEL",
        help="the true label of all images, or a .csv table with the columns file and label",
    )
    parser.add_argument("--differ", action="store_true", help="list the images on which the variants differ")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write the table, figures and heatmaps there")
    parser.add_argument(
        "--sheets", type=int, default=12, metavar="N", help="how many heatmap sheets to write (default: 12)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Compare the variants over every image; 1 if some failed."""
    if args.sheets < 0:
        raise BadOption(f"--sheets is {args.sheets}; give a whole number from 0 on.")
    truth = read_truth(args.truth, known_labels(args.task, args.source))
    missing = missing_files(args.images)
    if len(missing) == len(args.images):
        for file, error in missing.items():
            complain(f"{file}: {error}")
        complain(NOTHING)
        return 1
    if args.out is not None:
        check_out_folder(args.out)
    classifier = load_models(args)
    truth = truth or read_truth(args.truth, classifier.labels)
    from pawmatch.evaluation.compare import compare

    walk = Walk(classifier, args.out, args.sheets, differ=args.differ)
    with ExitStack() as stack:
        if args.out is not None:
            args.out.mkdir(parents=True, exist_ok=True)
            stream = stack.enter_context((args.out / "comparison.csv").open("wb"))
            walk.write_row = stream.write
            stream.write(codecs.BOM_UTF8 + csv_line(walk.columns))
        answered: Iterable[ImageAnswers] = walk.through(args.images, truth)
        listing = args.out is None and not args.json and not args.differ
        answered = listed(answered) if listing else progress(answered, "images")
        try:
            comparison = compare(answered)
        except ImageNotFound as exc:
            complain(str(exc))
            return 1
    values = {
        "task": classifier.task.name,
        "model": classifier.info.to_dict(),
        **comparison.to_dict(),
        "per_image": [{**image.to_dict(), "sheet": sheet or None} for image, sheet in walk.answers],
        "failed": walk.failed,
    }
    if args.out is not None:
        write_summary(args.out, comparison, values, classifier)
        if args.differ:
            rows = [walk.line(row_of(image, sheet)) for image, sheet in walk.answers]
            (args.out / "differ.csv").write_bytes(codecs.BOM_UTF8 + b"".join([csv_line(walk.columns), *rows]))
        note(f"wrote the comparison and {walk.sheets} heatmap sheets to {args.out}.")
    if args.json:
        say_json(values, indent=2)
    elif args.differ:
        for image, _ in walk.answers:
            say(listing_of(image, who_is_right(image)))
        differing = comparison.images - comparison.unanimous.images
        say(f"The variants differ on {differing} of {images(comparison.images)}.")
    else:
        for line in describe(comparison):
            say(line)
    if walk.failed:
        note(f"{len(walk.failed)} of {images(len(walk.failed) + comparison.images)} could not be used.")
    return 1 if walk.failed else 0


def read_truth(text: str | None, labels: Sequence[str] | None) -> str | Mapping[str, str] | None:
    """What --truth says, once the labels are known: the label of all images, or one for each file.

    Raises UnknownLabel for what is no label, BadOption for a table without the two columns.
    """
    if text is None or labels is None:
        return None
    if not text.lower().endswith(".csv"):
        return find_label(labels, text)
    rows = read_table(Path(text))
    if not all(row.get("file") and row.get("label") for row in rows):
        raise BadOption(f"{text} needs the columns file and label, with something in each row.")
    return {row["file"]: find_label(labels, row["label"]) for row in rows}


class Walk:
    """A walk through images: what it yields is compared, what cannot be used is in `failed`, by name.

    In memory are some batches of images, the names of those that failed, and the answers to the first
    MAX_KEPT images, or with `differ` to those on which the variants differ most. `out` is the folder for the
    sheets of the first `max_sheets` images; `write_row` is given a line of the table for every image, whose
    head is `columns`.
    """

    def __init__(self, classifier: Classifier, out: Path | None, max_sheets: int, *, differ: bool) -> None:
        self.classifier = classifier
        self.out = out
        self.max_sheets = max_sheets
        self.write_row: Callable[[bytes], object] = len
        self.failed: list[dict[str, Any]] = []
        self.differ = differ
        self.kept: list[tuple[float, int, ImageAnswers, str]] = []  # a heap: the next to go comes first
        self.sheets = self.images = 0
        names = (name for v in classifier.variants for name in (v, f"{v}_confidence", f"{v}_truth"))
        self.columns = ["file", "truth", "agree", "right", *names, "sheet", "error", "message"]

    @property
    def answers(self) -> list[tuple[ImageAnswers, str]]:
        """The answers that were kept, each with the name of its sheet; with `differ`, by how far they do."""
        return [(image, sheet) for *_, image, sheet in sorted(self.kept, reverse=True)]

    def through(self, paths: Sequence[str], truth: str | Mapping[str, str] | None) -> Iterator[ImageAnswers]:
        """The answers to each image that can be read."""
        truths: deque[str | None] = deque()

        def found() -> Iterator[Found]:
            for entry, label in find_labelled(paths, self.classifier.labels, truth):
                truths.append(label)
                yield entry

        for file, result in examine_files(self.classifier, found()):
            label = truths.popleft()
            if isinstance(result, PawMatchError):
                self.failed.append(json_record(file, result))
                complain(f"{file}: {result}")
                self.add_row({"file": file, "error": result.code, "message": str(result)})
                continue
            image = self.answered(file, result, label)
            wanted = not (self.differ and image.agreed)
            sheet = self.write_sheet(file, result, label) if wanted else ""
            self.add_row(row_of(image, sheet))
            self.images += 1
            if wanted:
                # The number is each one's own, so that two answers are never compared.
                heappush(self.kept, (image.difference if self.differ else 0.0, -self.images, image, sheet))
                if len(self.kept) > MAX_KEPT:
                    heappop(self.kept)
            yield image

    def add_row(self, row: dict[str, Any]) -> None:
        """Write one line of the table."""
        self.write_row(self.line(row))

    def line(self, row: dict[str, Any]) -> bytes:
        """A row as a line of the table."""
        return csv_line([row.get(column) for column in self.columns])

    def answered(self, file: str, examined: ModelOutputs, truth: str | None) -> ImageAnswers:
        """What each variant answered, and how sure it is of the truth where that is known."""
        from pawmatch.evaluation.compare import ImageAnswers

        classifier = self.classifier
        prediction = classifier.to_prediction(examined, top_k=1)
        answers = prediction.variants
        if truth is None:
            return ImageAnswers(file, answers, review=prediction.review)
        index = classifier.labels.index(truth)
        in_truth = tuple(float(examined.probabilities[answer.variant][index]) for answer in answers)
        return ImageAnswers(file, answers, truth, in_truth, prediction.review)

    def write_sheet(self, file: str, examined: ModelOutputs, truth: str | None) -> str:
        """Write one image's sheet, if it is among the first; gives its name below `out`, or nothing."""
        if self.out is None or self.sheets >= self.max_sheets:
            return ""
        from pawmatch.heatmaps import draw_square_sheet
        from pawmatch.images import open_image

        self.sheets += 1
        # Numbered, for images of one name in several folders.
        name = f"{SHEETS}/{self.sheets:04d}_{Path(file).stem[:MAX_STEM]}.jpg"
        path = self.out / name
        path.parent.mkdir(exist_ok=True)
        photo = open_image(file)
        explanation = self.classifier.explain_outputs(examined, photo, truth)
        draw_square_sheet(photo, explanation, is_truth=truth is not None).save(path, quality=QUALITY)
        return name


def row_of(image: ImageAnswers, sheet: str) -> dict[str, Any]:
    """The row of an image that was answered."""
    agree = "yes" if image.agreed else "no"
    row: dict[str, Any] = {"file": image.file, "truth": image.truth, "agree": agree, "sheet": sheet}
    row["right"] = " ".join(image.right)
    for index, answer in enumerate(image.answers):
        row[answer.variant] = answer.label
        row[f"{answer.variant}_confidence"] = answer.confidence
        if image.truth is not None:
            row[f"{answer.variant}_truth"] = image.truth_confidences[index]
    return row


def write_summary(out: Path, comparison: Comparison, values: dict[str, Any], classifier: Classifier) -> None:
    """Write comparison.json and comparison.png."""
    from pawmatch.evaluation.figures import save_comparison

    text = json.dumps(values, indent=2, allow_nan=False)
    (out / "comparison.json").write_text(text + "\n", encoding="utf-8")
    count = len(comparison.variants)
    title = f"{count} variant{'s' * (count > 1)} on {images(comparison.images)}"
    source = classifier.source
    if not source.startswith("hf://"):
        # The page is made to be shown, and whose folders these are is no part of it.
        source = "/".join([name for name in Path(source).parts if name not in VARIANT_NAMES][-2:])
    subtitle = f"{len(classifier.labels)} {classifier.task.plural}, {source}. Calibrated confidence."
    save_comparison(comparison, out / "comparison.png", title, subtitle)


# --- on the terminal


def listed(answered: Iterable[ImageAnswers]) -> Iterator[ImageAnswers]:
    """The images, each with its line as soon as it is known."""
    for image in answered:
        say(listing_of(image, verdict(image)))
        yield image


def listing_of(image: ImageAnswers, end: str) -> str:
    """An image's line: each variant's answer and confidence, and what there is to say of them."""
    columns = [
        f"{short(answer.name):<{NAME_WIDTH}} {percent(answer.confidence):>9}" for answer in image.answers
    ]
    return "  ".join([f"{image.file:<{FILE_WIDTH}}", *columns, end]).rstrip()


def short(name: str) -> str:
    """A name that fits its column."""
    return name if len(name) <= NAME_WIDTH else f"{name[: NAME_WIDTH - 3]}..."


def verdict(image: ImageAnswers) -> str:
    """What there is to say about the answers to one image together."""
    if image.truth is None:
        return "" if image.agreed else "not alike"
    right = sum(answer.label == image.truth for answer in image.answers)
    return f"{right} of {len(image.answers)} right: {display_name(image.truth)}"


def who_is_right(image: ImageAnswers) -> str:
    """Which variants are right, where the truth is known."""
    if image.truth is None:
        return ""
    names = [VARIANT_NAMES.get(variant, variant) for variant in image.right]
    return f"right: {', '.join(names) or 'none'} ({display_name(image.truth)})"


def describe(comparison: Comparison) -> Iterator[str]:
    """The comparison as tables."""
    yield f"{images(comparison.images)}, {comparison.judged} of them with a known true label"
    columns = {summary.variant: summary for summary in comparison.variants}
    bins = len(comparison.variants[0].confidence.histogram)
    yield from table("Confidence in the first choice", columns, spread("confidence", bins))
    if comparison.judged:
        yield from table("Confidence in the true label", columns, spread("true_label_confidence", bins))
        rows = (("right", "accuracy.right", str), ("share, with 95 % interval", "accuracy", right))
        yield from table("Right answers", columns, rows)
    same = dict(zip(columns, comparison.agreement, strict=True))
    pairs = [(VARIANT_NAMES.get(name, name), "", nth(index)) for index, name in enumerate(columns)]
    yield from table("Same first choice", same, pairs)
    yield f"  all alike on {counted(comparison.unanimous)}"


def spread(place: str, bins: int) -> Iterator[Row]:
    """Statistics and histogram of confidences, which are at a place in each variant's summary."""
    for name, key in SPREAD.items():
        yield name, f"{place}.{key}", tenths
    yield "50 % or more", f"{place}.at_half_or_more", counted
    for index in range(bins):
        name = f"{100 * index // bins} to {100 * (index + 1) // bins} %, images"
        yield name, f"{place}.histogram", nth(index)


def nth(index: int) -> Callable[[Sequence[int]], str]:
    """What writes one of several counts."""
    return lambda counts: str(counts[index])


def right(accuracy: Accuracy) -> str:
    """The share of right answers with its interval."""
    return within(accuracy.share, *accuracy.interval_95)


def counted(part: Part) -> str:
    """How many images, and their share: "3 (75.0 %)"."""
    return f"{part.images} ({tenths(part.share)})"


def images(count: int) -> str:
    """The count with its noun."""
    return "1 image" if count == 1 else f"{count} images"
