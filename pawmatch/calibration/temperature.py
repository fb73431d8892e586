"""Fitting confidence on held-out images: temperature, map of confidence, conformal quantile."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from pawmatch.calibration.apply import TINY
from pawmatch.calibration.minimise import minimise

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

PRIOR = 1.0


def fit_temperature(logits: Floats, labels: Ints) -> float:
    """The temperature that minimises the mean negative log-likelihood (Guo et al. 2017, section 4.2).

    logits (N, classes), labels (N,). The logarithm is optimised, so the result is positive.
    """
    scores = torch.from_numpy(logits.astype(np.float64))
    target = torch.from_numpy(labels)
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    minimise(lambda: cross_entropy(scores / log_temperature.exp(), target), [log_temperature])
    return float(log_temperature.detach().exp())


def fit_top_label(confidence: Doubles, correct: NDArray[np.bool_]) -> tuple[float, float, float]:
    """The (a, b, c) for `apply.with_top_label`, from confidence (N,) and whether it is right (N,).

    Maximises the likelihood of which first choices are right (Kull et al. 2017), with ln a, ln b and c held
    near 0, no change at all, as by a normal prior of standard deviation PRIOR: few images bend it little.
    """
    top = torch.from_numpy(confidence).clamp(TINY, 1 - TINY)
    right = torch.from_numpy(correct.astype(np.float64))
    log_top, log_rest = top.log(), torch.log1p(-top)
    moved = torch.zeros(3, dtype=torch.float64, requires_grad=True)

    def loss() -> torch.Tensor:
        scores = moved[0].exp() * log_top - moved[1].exp() * log_rest + moved[2]
        fit = binary_cross_entropy_with_logits(scores, right, reduction="sum")
        return (fit + (moved / PRIOR).square().sum() / 2) / len(confidence)

    minimise(loss, [moved])
    a, b, c = (float(value) for value in moved.detach())
    return math.exp(a), math.exp(b), c


def conformal_quantile(probabilities: Doubles, labels: Ints, coverage: float = 0.9) -> float:
    """The quantile of 1 - p(truth) that gives sets of at least `coverage` on exchangeable data.

    Uses the finite-sample rank ceil((n + 1) * coverage) of split conformal prediction (Vovk et al. 2005;
    Sadinle et al. 2019). 1.0, every label, where n is too small for the coverage asked for.
    """
    scores = np.sort(1 - probabilities[np.arange(len(labels)), labels])
    rank = math.ceil((len(scores) + 1) * coverage)
    return float(scores[rank - 1]) if rank <= len(scores) else 1.0
