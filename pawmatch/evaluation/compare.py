"""Variants compared over many images: how sure each one is, how often it is right, how often they agree.

Confidences are the calibrated ones that the app shows, so the numbers describe what a user sees. A model
that is surer is not therefore better: only where the truth is known does `accuracy` say which one is.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pawmatch.errors import CheckpointError, ImageNotFound
from pawmatch.metrics import Bools, wilson_interval
from pawmatch.results import Record, Review, VariantAnswer

BINS = 10
EDGES = tuple(index / BINS for index in range(BINS + 1))  # of the histograms' bins
HALF = 0.5


@dataclass(frozen=True)
class ImageAnswers:
    """What every variant answered for one image.

    `truth` is the true label where it is known; `truth_confidences` are then the confidences that the
    variants, in the order of `answers`, have in it. `review` says whether a person should check, and why.
    """

    file: str
    answers: tuple[VariantAnswer, ...]
    truth: str | None = None
    truth_confidences: tuple[float, ...] = ()
    review: Review | None = None

    @property
    def agreed(self) -> bool:
        """Whether all variants gave the same answer."""
        return len({answer.label for answer in self.answers}) == 1

    @property
    def difference(self) -> float:
        """How far the variants differ, in [0, 1]: the most confidence that two have in different answers.

        Of two variants it is the lower confidence that counts; 0 where all gave the same answer.
        """
        pairs = combinations(self.answers, 2)
        return max(
            (min(a.confidence, b.confidence) for a, b in pairs if a.label != b.label),
            default=0.0,
        )

    @property
    def right(self) -> tuple[str, ...]:
        """The variants that are right; none where the truth is not known."""
        return tuple(answer.variant for answer in self.answers if answer.label == self.truth)

    def to_dict(self) -> dict[str, Any]:
        """The answers as JSON values; the confidences in the truth where it is known."""
        answers = [answer.to_dict() for answer in self.answers]
        if self.truth is not None:
            for values, confidence in zip(answers, self.truth_confidences, strict=True):
                values["truth_confidence"] = confidence
        review = self.review.to_dict() if self.review else None
        return {"file": self.file, "truth": self.truth, "answers": answers, "review": review}


@dataclass(frozen=True)
class Part:
    """How many of the images, and their share of all."""

    images: int
    share: float


@dataclass(frozen=True)
class Spread:
    """How confidences in [0, 1] are spread over the images.

    `std` is the population's (divided by the count). `histogram` counts them between EDGES: a bin has its
    lower edge, the last one has both.
    """

    mean: float
    median: float
    std: float
    min: float
    max: float
    at_half_or_more: Part
    histogram: tuple[int, ...]


@dataclass(frozen=True)
class Accuracy:
    """How many first choices are the true label, of the `judged` images whose true label is known.

    The 95 % interval of the share is wide for a handful of images.
    """

    right: int
    judged: int
    share: float
    interval_95: tuple[float, float]


@dataclass(frozen=True)
class VariantSummary(Record):
    """One variant over all images: `confidence` in its own first choices, the rest where truth is known."""

    variant: str
    confidence: Spread
    true_label_confidence: Spread | None
    accuracy: Accuracy | None


@dataclass(frozen=True)
class Comparison:
    """All variants over the same images.

    `agreement` counts, for each pair of variants, the images to which both gave the same first choice; its
    diagonal is the number of images. `unanimous` are those to which all gave the same, `judged` those
    whose true label is known.
    """

    images: int
    judged: int
    variants: tuple[VariantSummary, ...]
    agreement: tuple[tuple[int, ...], ...]
    unanimous: Part

    def to_dict(self) -> dict[str, Any]:
        """The comparison as JSON values; agreement as the share of images."""
        names = [summary.variant for summary in self.variants]
        return {
            "images": self.images,
            "judged": self.judged,
            "histogram_edges": list(EDGES),
            "variants": [summary.to_dict() for summary in self.variants],
            "agreement": {
                name: {other: count / self.images for other, count in zip(names, row, strict=True)}
                for name, row in zip(names, self.agreement, strict=True)
            },
            "unanimous": asdict(self.unanimous),
        }


def compare(images: Iterable[ImageAnswers]) -> Comparison:
    """Compare the variants over images that come one by one; of each, only its numbers are kept.

    Raises ImageNotFound if there is no image at all, CheckpointError if a confidence is no number.
    """
    variants: tuple[str, ...] = ()
    numbers: dict[str, int] = {}  # label -> number, so that answers can be compared as arrays
    chosen, sure = array("l"), array("d")  # per image and variant
    truths, sure_of_truth = array("l"), array("d")  # per judged image, and per judged image and variant
    judged = array("l")  # rows of the judged images
    count = 0
    for image in images:
        variants = variants or tuple(answer.variant for answer in image.answers)
        if tuple(answer.variant for answer in image.answers) != variants:
            raise ValueError(f"{image.file} was answered by other variants than the images before it.")
        chosen.extend(numbers.setdefault(answer.label, len(numbers)) for answer in image.answers)
        sure.extend(answer.confidence for answer in image.answers)
        if image.truth is not None:
            judged.append(count)
            truths.append(numbers.setdefault(image.truth, len(numbers)))
            sure_of_truth.extend(image.truth_confidences)
        count += 1
    if count == 0:
        raise ImageNotFound("There is no image to compare the variants on; give one that can be read.")
    shape = (-1, len(variants))
    choices = np.asarray(chosen).reshape(shape)  # (images, variants)
    confidence = np.asarray(sure).reshape(shape)
    truth_confidence = np.asarray(sure_of_truth).reshape(shape)  # (judged images, variants)
    right = choices[np.asarray(judged)] == np.asarray(truths)[:, None] if judged else None
    alike = (choices[:, :, None] == choices[:, None, :]).sum(axis=0)
    return Comparison(
        images=count,
        judged=len(judged),
        variants=tuple(
            VariantSummary(
                variant=variant,
                confidence=spread(confidence[:, column]),
                true_label_confidence=spread(truth_confidence[:, column]) if judged else None,
                accuracy=None if right is None else accuracy(right[:, column]),
            )
            for column, variant in enumerate(variants)
        ),
        agreement=tuple(tuple(row) for row in alike.tolist()),
        unanimous=part((choices == choices[:, :1]).all(axis=1)),
    )


def part(flags: Bools) -> Part:
    """How many of the flags (n,) are set."""
    return Part(int(flags.sum()), float(flags.mean()))


def accuracy(right: Bools) -> Accuracy:
    """The accuracy of first choices, from which of them (n,) are right."""
    count, judged = int(right.sum()), len(right)
    return Accuracy(count, judged, count / judged, wilson_interval(count, judged))


def spread(confidences: NDArray[np.float64]) -> Spread:
    """How confidences (n,) are spread; raises CheckpointError if one is no number."""
    if not np.isfinite(confidences).all():
        raise CheckpointError("The model gives confidences that are no numbers; use other weights.")
    values = confidences.clip(0, 1)  # rounding may leave a softmax a hair above 1
    histogram, _ = np.histogram(values, bins=np.asarray(EDGES))
    return Spread(
        mean=float(values.mean()),
        median=float(np.median(values)),
        std=float(values.std()),
        min=float(values.min()),
        max=float(values.max()),
        at_half_or_more=part(values >= HALF),
        histogram=tuple(histogram.tolist()),
    )
