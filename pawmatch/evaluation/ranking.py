"""Comparing by rank: how well a score tells two kinds apart, and whether two maps agree."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pawmatch.evaluation.metrics import Floats


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
