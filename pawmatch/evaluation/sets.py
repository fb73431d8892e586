"""Conformal candidate sets of many images at once."""

from __future__ import annotations

from pawmatch.evaluation.metrics import Bools, Floats


def candidate_sets(probabilities: Floats, quantile: float | Floats) -> Bools:
    """Which labels (N, C) belong to each image's set: `confidence.candidate_set`, row by row.

    A quantile for each row is (N, 1).
    """
    sets: Bools = 1 - probabilities <= quantile
    sets[range(len(sets)), probabilities.argmax(axis=1)] = True
    return sets
