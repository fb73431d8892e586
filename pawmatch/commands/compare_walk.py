"""A walk through images that asks every variant about each one, and writes rows and heatmap sheets."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from pawmatch.commands.inputs import Found, in_order
from pawmatch.commands.records import cell, json_record
from pawmatch.commands.truths import find_labelled
from pawmatch.errors import PawMatchError
from pawmatch.evaluation.compare import ImageAnswers

if TYPE_CHECKING:
    from pawmatch.explain import ExplainingClassifier
    from pawmatch.predict import Examined

SHEETS = "sheets"  # the folder that they go to, below the one given
QUALITY = 88  # of the sheets' JPEG files
LONGEST_STEM = 80  # characters of an image's name that its sheet's name keeps
MOST_KEPT = 1000  # images whose answers are kept for the JSON; the table on disk has all

Row = Callable[[dict[str, Any]], None]


class Walk:
    """One walk: what it yields is compared, what cannot be used is in `failed`, by name.

    In memory are one batch of images, the names of those that failed, and as JSON values the `answers` to
    the first MOST_KEPT. `out` is the folder for the sheets of the first `most_sheets` images, each of which
    costs another pass through the models.
    """

    def __init__(
        self,
        classifier: ExplainingClassifier,
        out: Path | None,
        most_sheets: int,
        complain: Callable[[str], None],
    ) -> None:
        self.classifier = classifier
        self.out = out
        self.most_sheets = most_sheets
        self.complain = complain
        self.failed: list[dict[str, Any]] = []
        self.answers: list[dict[str, Any]] = []
        self.sheets = 0

    def through(self, paths: Sequence[str], truth: str | None, row: Row) -> Iterator[ImageAnswers]:
        """The answers to each image that can be read; `row` gets the table's row of every image."""
        truths: deque[str | None] = deque()

        def found() -> Iterator[Found]:
            for entry, label in find_labelled(paths, self.classifier.labels, truth):
                truths.append(label)
                yield entry

        for file, result in in_order(found(), self.classifier.examine_batch):
            label = truths.popleft()
            if isinstance(result, PawMatchError):
                self.failed.append(json_record(file, result))
                self.complain(f"{file}: {result}")
                row({"file": file, "error": result.code, "message": str(result)})
                continue
            image = self.answered(file, result, label)
            sheet = self.write_sheet(file, label)
            row(values(image, sheet))
            if len(self.answers) < MOST_KEPT:
                self.answers.append({**image.to_dict(), "sheet": sheet or None})
            yield image

    def answered(self, file: str, examined: Examined, truth: str | None) -> ImageAnswers:
        """What each variant answered, and how sure it is of the truth where that is known."""
        classifier = self.classifier
        prediction = classifier.conclude(examined, top_k=1)
        answers = prediction.variants
        if truth is None:
            return ImageAnswers(file, answers, review=prediction.review)
        index = classifier.labels.index(truth)
        in_truth = tuple(
            float(classifier.probabilities(answer.variant, examined.logits[answer.variant])[index])
            for answer in answers
        )
        return ImageAnswers(file, answers, truth, in_truth, prediction.review)

    def write_sheet(self, file: str, truth: str | None) -> str:
        """Write one image's sheet, if it is among the first; gives its name below `out`, or nothing."""
        if self.out is None or self.sheets >= self.most_sheets:
            return ""
        from pawmatch.ui.sheet import draw_square_sheet

        self.sheets += 1
        # Numbered, for images of one name in several folders.
        name = f"{SHEETS}/{self.sheets:04d}_{Path(file).stem[:LONGEST_STEM]}.jpg"
        path = self.out / name
        path.parent.mkdir(exist_ok=True)
        explanation = self.classifier.explain(file, truth)
        draw_square_sheet(explanation.photo, explanation, is_truth=truth is not None).save(
            path, quality=QUALITY
        )
        return name


def values(image: ImageAnswers, sheet: str) -> dict[str, Any]:
    """The row of an image that was answered."""
    row: dict[str, Any] = {
        "file": image.file,
        "truth": image.truth or "",
        "agree": "yes" if image.agreed else "no",
        "sheet": sheet,
    }
    for index, answer in enumerate(image.answers):
        row[answer.variant] = answer.label
        row[f"{answer.variant}_confidence"] = round(answer.confidence, 4)
        if image.truth is not None:
            row[f"{answer.variant}_truth"] = round(image.truth_confidences[index], 4)
    return row


def csv_table(stream: TextIO, variants: Sequence[str]) -> Row:
    """A row writer for a CSV file, whose head is written at once."""
    own = [name for variant in variants for name in (variant, f"{variant}_confidence", f"{variant}_truth")]
    columns = ["file", "truth", "agree", *own, "sheet", "error", "message"]
    writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
    writer.writeheader()

    def write(row: dict[str, Any]) -> None:
        writer.writerow({key: cell(value) for key, value in row.items()})

    return write
