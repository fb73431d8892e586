"""Metrics of classification, calibration and ranking from scores (N, C) and labels (N,), with intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
Bools = NDArray[np.bool_]

BINS = 15
RESAMPLES = 1000  # of the bootstrap
SEED = 0


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


@dataclass(frozen=True)
class Estimate:
    """A measured value and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def share(hits: Bools) -> Estimate:
    """The share of true values (N,), with Wilson's interval; the interval is [0, 1] where N is 0."""
    low, high = wilson_interval(int(hits.sum()), len(hits))
    return Estimate(float(hits.mean()) if len(hits) else 0.0, low, high)


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], float],
    n: int,
    *,
    lowest: float = -np.inf,
    highest: float = np.inf,
) -> Estimate:
    """`statistic` of all n images, with the basic bootstrap interval (Davison and Hinkley 1997, eq. 5.6).

    `statistic` takes row numbers, of which some may be repeated. The basic interval reflects the
    resampled values at the measured one. So it stays honest for a statistic that resampling pushes to
    one side, such as the calibration error. It is cut to [lowest, highest], and widened to hold the value
    itself where few images push it past.
    """
    rng = np.random.default_rng(SEED)
    value = statistic(np.arange(n))
    resampled = [statistic(rng.integers(0, n, n)) for _ in range(RESAMPLES)]
    bottom, top = np.quantile(resampled, (0.025, 0.975))
    low, high = (float(np.clip(2 * value - end, lowest, highest)) for end in (top, bottom))
    return Estimate(float(value), min(low, float(value)), max(high, float(value)))


def mean(values: Floats) -> Estimate:
    """The mean of values (N,) with its bootstrap interval."""
    return bootstrap(lambda rows: float(values[rows].mean()), len(values))


def perfect_calibration_errors(confidence: Floats) -> NDArray[np.float64]:
    """The calibration errors (RESAMPLES,) that a perfectly calibrated model of these confidences (N,) shows.

    Answers are drawn anew, each right with its own confidence (consistency resampling, Broecker and Smith
    2007). Their mean is not 0 on few images; a measured error that many of them reach cannot be told from
    none (the p-value of Vaicenavicius et al. 2019).
    """
    rng = np.random.default_rng(SEED)
    index = bin_index(confidence)
    expected = np.bincount(index, weights=confidence, minlength=BINS)
    errors = np.empty(RESAMPLES)
    for turn in range(RESAMPLES):
        right = rng.random(len(confidence)) < confidence
        errors[turn] = np.abs(np.bincount(index, weights=right, minlength=BINS) - expected).sum()
    return errors / len(confidence)


def mean_ranks(values: Floats) -> NDArray[np.float64]:
    """The rank of each value (N,), counted from 1; equal values share the mean of their ranks."""
    _, group, size = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(size) - (size - 1) / 2)[group]
    return ranks


def auroc(positive: Floats, negative: Floats) -> float:
    """Area under the ROC curve: the chance that a positive's score (P,) is above a negative's (N,).

    Ties count one half (the Mann-Whitney statistic, Hanley and McNeil 1982).
    """
    rank_sum = mean_ranks(np.concatenate([positive, negative]))[: len(positive)].sum()
    wins = rank_sum - len(positive) * (len(positive) + 1) / 2
    return float(wins / (len(positive) * len(negative)))


def rank_correlation(first: Floats, second: Floats) -> float:
    """Spearman's correlation of two arrays of one shape; 0 where either is constant and says nothing."""
    one, other = (mean_ranks(values.ravel()) for values in (first, second))
    one, other = one - one.mean(), other - other.mean()
    scale = np.sqrt((one @ one) * (other @ other))
    return float(one @ other / scale) if scale > 0 else 0.0


@dataclass(frozen=True)
class RiskCoverage:
    """What the i surest of N answers are like, for i from 1 to N, each (N,).

    `coverage` is i / N, `risk` the share of wrong answers among them, `threshold` the confidence of the
    least sure of them. Answers of equal confidence come in no order: the risk among them is its
    expectation over all orders.
    """

    coverage: NDArray[np.float64]
    risk: NDArray[np.float64]
    threshold: NDArray[np.float64]

    @property
    def area(self) -> float:
        """AURC: the mean risk over all coverages (Geifman and El-Yaniv 2017; Geifman et al. 2019)."""
        return float(self.risk.mean())

    def thinned(self, points: int) -> RiskCoverage:
        """At most `points` of the points, evenly spaced over the coverage; the last one is kept."""
        last = len(self.coverage) - 1
        rows = np.unique(np.linspace(last, 0, min(points, last + 1)).round().astype(int))
        return RiskCoverage(self.coverage[rows], self.risk[rows], self.threshold[rows])


def risk_coverage(confidence: Floats, correct: Bools) -> RiskCoverage:
    """The risk-coverage curve of confidences (N,) and whether each answer is right (N,)."""
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence = confidence[order].astype(np.float64)
    wrong = 1.0 - correct[order]
    _, group, size = np.unique(-sorted_confidence, return_inverse=True, return_counts=True)
    expected = (np.bincount(group, weights=wrong) / size)[group]
    rank = np.arange(1, len(order) + 1)
    return RiskCoverage(rank / len(order), np.cumsum(expected) / rank, sorted_confidence)
