"""Fitting on held-out images: temperature, conformal quantile, review threshold, scope gate."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pawmatch.calibration import ScopeGate
from pawmatch.confidence import calibrated

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

FEWEST_KEPT = 20  # a share measured on fewer images says nothing
GATE_PENALTY = 1e-3


def fit_temperature(logits: Floats, labels: Ints) -> float:
    """The temperature that minimises the mean negative log-likelihood (Guo et al. 2017, section 4.2).

    logits (N, classes), labels (N,). The logarithm is optimised, so the result is positive.
    """
    scores = torch.from_numpy(logits.astype(np.float64))
    target = torch.from_numpy(labels)
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_temperature], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(scores / log_temperature.exp(), target)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return float(log_temperature.detach().exp())


def conformal_quantile(probabilities: Doubles, labels: Ints, coverage: float = 0.9) -> float:
    """The quantile of 1 - p(truth) that gives sets of at least `coverage` on exchangeable data.

    Uses the finite-sample rank ceil((n + 1) * coverage) of split conformal prediction (Vovk et al. 2005;
    Sadinle et al. 2019). 1.0, every label, where n is too small for the coverage asked for.
    """
    scores = np.sort(1 - probabilities[np.arange(len(labels)), labels])
    rank = math.ceil((len(scores) + 1) * coverage)
    return float(scores[rank - 1]) if rank <= len(scores) else 1.0


def review_threshold(confidence: Doubles, correct: NDArray[np.bool_], target: float) -> float:
    """The lowest confidence at or above which the share of right answers is at least `target`.

    Read off the risk-coverage curve: images are sorted by confidence, and the longest prefix whose
    accuracy reaches the target is kept. 1.0, flag everything, where no prefix of FEWEST_KEPT does.
    """
    order = np.argsort(-confidence, kind="stable")
    accuracy = np.cumsum(correct[order]) / np.arange(1, len(order) + 1)
    good = np.flatnonzero(accuracy >= target)
    good = good[good >= FEWEST_KEPT - 1]
    return float(confidence[order[good[-1]]]) if len(good) else 1.0


def fit_scope_gate(
    inside: Floats, outside: Floats, held_out: Floats, *, flagged: float, fitted_on: str
) -> ScopeGate:
    """A linear gate that tells the task's images from others by their pooled features (N, C).

    Logistic regression on standardised features, both sides weighing alike. The threshold is the score
    below which the share `flagged` of `held_out` (images of the task, not used in the fit) falls.
    """
    both = np.concatenate([inside, outside]).astype(np.float64)
    mean, std = both.mean(axis=0), both.std(axis=0) + 1e-6
    features = torch.from_numpy((both - mean) / std)
    target = torch.cat([torch.ones(len(inside)), torch.zeros(len(outside))]).double()
    balance = torch.where(target == 1, 0.5 / len(inside), 0.5 / len(outside))
    weight = torch.zeros(both.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        losses = nn.functional.binary_cross_entropy_with_logits(
            features @ weight + bias, target, reduction="none"
        )
        loss = (losses * balance).sum() + GATE_PENALTY * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    # Fold the standardisation in, so that using the gate is one dot product.
    folded = weight.detach().numpy() / std
    shift = float(bias.detach()) - float(mean @ folded)
    scores = held_out.astype(np.float64) @ folded + shift
    return ScopeGate(
        weight=tuple(float(f"{value:.6g}") for value in folded),
        bias=shift,
        threshold=float(np.quantile(scores, flagged)),
        fitted_on=fitted_on,
    )


def confidence_and_hits(
    logits: Floats, labels: Ints, temperature: float
) -> tuple[Doubles, NDArray[np.bool_]]:
    """Calibrated confidence (N,) of each first choice, and whether it is right."""
    probabilities = calibrated(logits, temperature)
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
