"""Answering only where the model is sure: risk against coverage, and the area under that curve."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pawmatch.evaluation.metrics import Bools, Floats


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
