"""A walk through images that asks every variant about each one, and writes rows and heatmap sheets."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from pawmatch.commands.inputs import Found, answers
from pawmatch.commands.records import cell, json_record
from pawmatch.commands.truths import find_labelled
from pawmatch.errors import ImageError, PawMatchError
from pawmatch.evaluation.compare import ImageAnswers

if TYPE_CHECKING:
    from pawmatch.explain import ExplainingClassifier
    from pawmatch.results import Explanation, Prediction

SHEETS = "sheets"  # the folder that they go to, below the one given
QUALITY = 88  # of the sheets' JPEG files
LONGEST_STEM = 80  # characters of an image's name that its sheet's name keeps
MOST_KEPT = 1000  # images whose answers are kept for the JSON; the table on disk has all

Row = Callable[[dict[str, Any]], None]


class Study:
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
        self.most_sheets = most_sheets if out is not None else 0
        self.complain = complain
        self.failed: list[dict[str, Any]] = []
        self.answers: list[dict[str, Any]] = []
        self.sheets = 0

    def walk(self, paths: Sequence[str], truth: str | None, row: Row) -> Iterator[ImageAnswers]:
        """The answers to each image that can be read; `row` gets the table's row of every image."""
        truths: deque[str | None] = deque()

        def found() -> Iterator[Found]:
            for entry, label in find_labelled(paths, self.classifier.labels, truth):
                truths.append(label)
                yield entry

        for file, result in answers(self.classifier, found(), top_k=1):
            label = truths.popleft()
            if isinstance(result, PawMatchError):
                self.fail(file, result, row)
                continue
            try:
                image, sheet = self.look(file, result, label)
            except ImageError as exc:  # the file has changed meanwhile
                self.fail(file, exc, row)
                continue
            row(values(image, sheet))
            if len(self.answers) < MOST_KEPT:
                self.answers.append({**image.to_dict(), "sheet": sheet or None})
            yield image

    def fail(self, file: str, error: PawMatchError, row: Row) -> None:
        """Note an image that cannot be used."""
        self.failed.append(json_record(file, error))
        self.complain(f"{file}: {error}")
        row({"file": file, "error": error.code, "message": str(error)})

    def look(self, file: str, prediction: Prediction, truth: str | None) -> tuple[ImageAnswers, str]:
        """One image's answers, and the name of its sheet if there is one. Raises ImageError."""
        own = tuple(answer.confidence for answer in prediction.variants)
        asked = truth is not None and any(answer.label != truth for answer in prediction.variants)
        drawn = self.sheets < self.most_sheets
        if not asked and not drawn:
            return ImageAnswers(file, prediction.variants, truth, own if truth is not None else ()), ""
        # What a variant thinks of another label than its first choice comes with that label's heatmap.
        from pawmatch.images import open_image

        photo = open_image(file)
        explanation = self.classifier.explain(photo, truth)
        in_truth = tuple(explanation.heatmaps[answer.variant].confidence for answer in prediction.variants)
        sheet = self.write_sheet(file, photo, explanation, is_truth=truth is not None) if drawn else ""
        return ImageAnswers(file, prediction.variants, truth, in_truth if truth is not None else ()), sheet

    def write_sheet(self, file: str, photo: Any, explanation: Explanation, *, is_truth: bool) -> str:
        """Write one image's sheet; gives its name below the folder of the comparison."""
        from pawmatch.ui.sheet import draw_square_sheet

        assert self.out is not None
        self.sheets += 1
        # Numbered, for images of one name in several folders.
        name = f"{SHEETS}/{self.sheets:04d}_{Path(file).stem[:LONGEST_STEM]}.jpg"
        path = self.out / name
        path.parent.mkdir(exist_ok=True)
        draw_square_sheet(photo, explanation, is_truth=is_truth).save(path, quality=QUALITY)
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
