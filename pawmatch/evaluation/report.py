"""What an evaluation found: frozen dataclasses of plain values, and their JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pawmatch.evaluation.faithfulness import Faithfulness
from pawmatch.metrics import CalibrationBins, Estimate
from pawmatch.results import Record

VERDICTS = ("answer", "group", "unknown", "outside", "poor_image")  # codes, from sure to lost


@dataclass(frozen=True)
class Unreadable:
    """A file that was left out, with the code of the error and its sentence."""

    file: str
    code: str
    message: str


@dataclass(frozen=True)
class Reliability:
    """One bin of confidence: its images, their mean confidence and the share of right answers."""

    count: int
    confidence: float | None
    accuracy: float | None


def reliability(bins: CalibrationBins) -> tuple[Reliability, ...]:
    """Bins of confidence as plain values; None stands for the means of no image."""
    columns = (bins.count.tolist(), bins.confidence.tolist(), bins.accuracy.tolist())
    return tuple(
        Reliability(count, confidence if count else None, accuracy if count else None)
        for count, confidence, accuracy in zip(*columns, strict=True)
    )


@dataclass(frozen=True)
class RiskPoint:
    """Of the surest answers, the share `coverage`: how many are wrong, and the least confidence."""

    coverage: float
    risk: float
    threshold: float


@dataclass(frozen=True)
class ScopeReport:
    """How one variant's scope gate tells the task's images from those of the outside folder."""

    auroc: Estimate
    auroc_of_confidence: Estimate
    own_flagged: Estimate
    outside_flagged: Estimate


@dataclass(frozen=True)
class VariantReport:
    """Everything measured of one variant's own answers.

    `nll`, `brier` and `ece` are of calibrated probabilities, those that end in `_before` of the softmax
    at temperature 1. `ece_floor` is the mean calibration error that a perfect model would show on so few
    images, `ece_p_value` how often it would show `ece` or more. `kept` are the answers at or above the
    review threshold; its accuracy is None if there are none. `temperature` and `review_threshold` are the
    checkpoint's own, whatever calibration was measured.
    """

    variant: str
    temperature: float
    top1: Estimate
    top5: Estimate
    macro_f1: Estimate
    nll: Estimate
    nll_before: Estimate
    brier: Estimate
    brier_before: Estimate
    ece: Estimate
    ece_before: Estimate
    ece_floor: float
    ece_p_value: float
    aurc: Estimate
    set_coverage: Estimate
    set_size: Estimate
    review_threshold: float
    kept: Estimate
    kept_accuracy: Estimate | None
    scope: ScopeReport | None
    classes: tuple[ClassScore, ...]
    confusions: tuple[Confusion, ...]
    reliability: tuple[Reliability, ...]
    reliability_before: tuple[Reliability, ...]
    risk_coverage: tuple[RiskPoint, ...]


@dataclass(frozen=True)
class ReviewReport:
    """How the review flag does, by the answers as users get them.

    `verdicts` gives the share of images with each code, but for fits on halves, and `reasons` that of images
    flagged with each; an image may have several. The `outside` values are of the images that do not belong
    to the task, None where none were given.
    """

    verdicts: Mapping[str, Estimate]
    flagged: Estimate
    reasons: Mapping[str, Estimate]
    accuracy: Estimate
    unflagged_accuracy: Estimate | None
    flagged_accuracy: Estimate | None
    outside_flagged: Estimate | None
    outside_out_of_scope: Estimate | None
    outside_verdicts: Mapping[str, Estimate]


@dataclass(frozen=True)
class UnknownReport:
    """How images of classes that have no label fare; `answered` is the share that gets an unflagged answer.

    The AUROC is the chance that an image of a known class has the higher unknown score, or confidence; None
    where the checkpoint has no rule for a score.
    """

    images: int
    auroc: Estimate | None
    auroc_of_confidence: Estimate
    answered: Estimate
    verdicts: Mapping[str, Estimate]


@dataclass(frozen=True)
class Evaluation(Record):
    """An evaluation of one source on one folder; `main` is the variant whose answer users get.

    `calibration` is "own" for the checkpoint's, "halves" for fits on halves of these images.
    """

    task: str
    source: str
    main: str
    folder: str
    calibration: str
    images: int
    classes_with_images: int
    classes: int
    unreadable: tuple[Unreadable, ...]
    outside_images: int
    review: ReviewReport
    unknown: UnknownReport | None
    variants: Mapping[str, VariantReport]
    faithfulness: Mapping[str, Faithfulness]

    @property
    def leading(self) -> VariantReport:
        """The report of the main variant, or of the last one where that was not asked for."""
        return self.variants.get(self.main) or list(self.variants.values())[-1]


@dataclass(frozen=True)
class ClassScore:
    """How well one class is recognised; None where there is nothing to divide by.

    `precision` is the share of answers with this class that are right, `recall` the share of its images
    that are found, `f1` their harmonic mean, `support` the number of its images.
    """

    label: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int


@dataclass(frozen=True)
class Confusion:
    """`count` images of class `truth`, which are `share` of them, were answered with `answer`."""

    truth: str
    answer: str
    count: int
    support: int

    @property
    def share(self) -> float:
        """The part of the true class's images that this is."""
        return self.count / self.support


def class_scores(matrix: NDArray[np.int64], labels: tuple[str, ...]) -> tuple[ClassScore, ...]:
    """One row per label from a confusion matrix (classes, classes) with the truth in its rows."""
    hits, answered, support = np.diag(matrix), matrix.sum(axis=0), matrix.sum(axis=1)
    return tuple(
        ClassScore(
            label=label,
            precision=_ratio(hits[i], answered[i]),
            recall=_ratio(hits[i], support[i]),
            f1=_ratio(2 * hits[i], answered[i] + support[i]),
            support=int(support[i]),
        )
        for i, label in enumerate(labels)
    )


def _ratio(part: np.int64, whole: np.int64) -> float | None:
    return float(part / whole) if whole else None


def confusions(matrix: NDArray[np.int64], labels: tuple[str, ...]) -> tuple[Confusion, ...]:
    """Every cell off the diagonal that holds an image, worst first: by images, then by share."""
    support = matrix.sum(axis=1)
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    truths, answers = np.nonzero(wrong)
    counts = wrong[truths, answers]
    order = np.lexsort((answers, truths, -counts / support[truths], -counts))
    return tuple(
        Confusion(labels[truths[i]], labels[answers[i]], int(counts[i]), int(support[truths[i]]))
        for i in order
    )
