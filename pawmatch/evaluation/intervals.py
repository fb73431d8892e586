"""Estimates with 95 % intervals: Wilson's for shares, the bootstrap for everything else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pawmatch.evaluation.metrics import (
    BINS,
    Bools,
    Floats,
    bin_index,
    wilson_interval,
)

RESAMPLES = 1000
SEED = 0


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
