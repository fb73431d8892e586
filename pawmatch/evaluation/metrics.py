"""Classification and calibration metrics in numpy: scores (N, C) and integer labels (N,) in, floats out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
Bools = NDArray[np.bool_]

BINS = 15


def top_k_accuracy(scores: Floats, labels: Ints, k: int = 1) -> float:
    """Share of rows whose true label is among the k highest scores."""
    return float(top_k_hits(scores, labels, k).mean())


def top_k_hits(scores: Floats, labels: Ints, k: int = 1) -> Bools:
    """For each row (N,): whether its true label is among the k highest scores."""
    k = min(k, scores.shape[1])
    best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    hits: Bools = (best == labels[:, None]).any(axis=1)
    return hits


def confusion_matrix(predicted: Ints, labels: Ints, classes: int) -> NDArray[np.int64]:
    """Counts (classes, classes): rows are the truth, columns the answers."""
    cells = np.bincount(labels.astype(np.int64) * classes + predicted, minlength=classes**2)
    return cells.reshape(classes, classes).astype(np.int64)


def macro_f1(predicted: Ints, labels: Ints, classes: int) -> float:
    """F1 averaged over the classes that occur in `labels`, each counting alike.

    A class that is answered and has no image lowers the recall of others; it has no F1 of its own.
    """
    hits = np.bincount(labels[predicted == labels], minlength=classes)
    answered, support = (np.bincount(array, minlength=classes) for array in (predicted, labels))
    present = support > 0
    return float((2 * hits[present] / (answered + support)[present]).mean())


def negative_log_likelihood(probabilities: Floats, labels: Ints) -> float:
    """Mean of -log p(true label)."""
    return float(log_losses(probabilities, labels).mean())


def log_losses(probabilities: Floats, labels: Ints) -> NDArray[np.float64]:
    """-log p(true label) of each row (N,)."""
    true = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    losses: NDArray[np.float64] = -np.log(np.maximum(true, 1e-12))
    return losses


def brier_scores(probabilities: Floats, labels: Ints) -> NDArray[np.float64]:
    """Squared distance of each row (N,) to the one-hot truth, summed over classes: 0 to 2 (Brier 1950)."""
    true = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    scores: NDArray[np.float64] = np.square(probabilities, dtype=np.float64).sum(axis=1) - 2 * true + 1
    return scores


@dataclass(frozen=True)
class CalibrationBins:
    """Equal-width bins of confidence over [0, 1], each (bins,); means are NaN in a bin with no image."""

    count: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def error(self) -> float:
        """The expected calibration error: mean |accuracy - confidence|, bins weighing as their images."""
        filled = self.count > 0
        gaps = np.abs(self.accuracy[filled] - self.confidence[filled])
        return float(gaps @ self.count[filled] / max(1, self.count.sum()))


def bin_index(confidence: Floats, bins: int = BINS) -> NDArray[np.int64]:
    """The bin (N,) of each confidence: bin b is (b/bins, (b+1)/bins], the first also holds 0."""
    edges = np.linspace(0, 1, bins + 1)
    return np.digitize(confidence, edges[1:-1], right=True).astype(np.int64)


def calibration_bins(confidence: Floats, correct: Bools, bins: int = BINS) -> CalibrationBins:
    """Mean confidence and share of right answers per bin of confidence, what a reliability diagram shows."""
    index = bin_index(confidence, bins)
    count = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):
        return CalibrationBins(
            count=count,
            confidence=np.bincount(index, weights=confidence, minlength=bins) / count,
            accuracy=np.bincount(index, weights=correct, minlength=bins) / count,
        )


def expected_calibration_error(confidence: Floats, correct: Bools, bins: int = BINS) -> float:
    """Expected calibration error over equal-width bins (Naeini et al. 2015; Guo et al. 2017, eq. 3)."""
    return calibration_bins(confidence, correct, bins).error


def wilson_interval(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927)."""
    if n == 0:
        return (0.0, 1.0)
    p = successes / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return (max(0.0, float(centre - half)), min(1.0, float(centre + half)))
