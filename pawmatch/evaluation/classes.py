"""Metrics class by class, and which classes are taken for which."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
