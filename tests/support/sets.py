"""Candidate sets one row at a time, from the definition alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def candidate_set(probabilities: NDArray[np.float64], quantile: float) -> list[int]:
    """Labels whose score 1 - p is at most the quantile, most likely first; the first one in any case."""
    order = sorted(range(len(probabilities)), key=lambda index: -probabilities[index])
    return [index for index in order if 1 - probabilities[index] <= quantile] or order[:1]
