"""Scope gates: what an image of the task looks like, against images from elsewhere and stand-ins for them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits

from pawmatch.calibration.minimise import minimise
from pawmatch.calibration.parameters import ScopeGate

Floats = NDArray[np.float32]

# Squared weights in the loss. A gate against stand-ins must hold for images of kinds that it never saw: with
# ten times the penalty it turned away 63 instead of 55 % (corners) and 64 instead of 43 % (scrambled) of the
# paintings shown to the dog breeds, at 2 % of the dogs, while of its own kind it caught as many.
OUTSIDE_PENALTY = 1e-3
STAND_IN_PENALTY = 1e-2
# Shares of the task's own validation images that each gate may turn away. Where two gates turn away the same
# image they come to less: to 4.4 % for dogs, about as much as a gate that is left alone may have.
OUTSIDE_FLAGGED = 0.02
ALONE_FLAGGED = 0.045
STAND_IN_FLAGGED = {"corners of": 0.03, "scrambled": 0.005}
LEAST_CAUGHT = 0.2  # share of images from outside; a gate that sees fewer of them earns nothing


def fit_scope_gates(
    inside: Floats, outside: Floats, stand_ins: Mapping[str, Floats], held_out: Floats
) -> tuple[ScopeGate, ...]:
    """The gates of one variant, from pooled features (N, C) of several kinds of images.

    The first gate says no to images from outside. Those are of one kind only, so further gates learn from
    stand-ins for the rest, each from one kind of what `training.export` makes: one linear rule for two
    kinds of them does worse on each. A gate is kept if it turns away images from outside, which it never saw.
    Where it does not, as with paintings, whose corners are paintings too, its share goes to the first one.
    """
    own = f"{len(inside)} training images against {len(outside)} images of another kind"
    share, kept = OUTSIDE_FLAGGED, []
    for kind, features in stand_ins.items():
        gate = fit_scope_gate(
            inside,
            features,
            held_out,
            flagged=STAND_IN_FLAGGED[kind],
            penalty=STAND_IN_PENALTY,
            fitted_on=f"{len(inside)} training images against {len(features)} {kind} training images",
        )
        scores = outside.astype(np.float64) @ np.asarray(gate.weight) + gate.bias
        if float((scores < gate.threshold).mean()) >= LEAST_CAUGHT:
            kept.append(gate)
        else:
            share += STAND_IN_FLAGGED[kind]
    share = min(share, ALONE_FLAGGED)
    first = fit_scope_gate(inside, outside, held_out, flagged=share, penalty=OUTSIDE_PENALTY, fitted_on=own)
    return (first, *kept)


def fit_scope_gate(
    inside: Floats, outside: Floats, held_out: Floats, *, flagged: float, penalty: float, fitted_on: str
) -> ScopeGate:
    """A linear gate that tells the task's images from others by their pooled features (N, C).

    Logistic regression on standardised features, both sides weighing alike, with `penalty` times the squared
    weights added to the mean loss. The threshold is the score below which the share `flagged` of `held_out`
    (images of the task, not used in the fit) falls.
    """
    both = np.concatenate([inside, outside]).astype(np.float64)
    mean, std = both.mean(axis=0), both.std(axis=0) + 1e-6
    features = torch.from_numpy((both - mean) / std)
    target = torch.cat([torch.ones(len(inside)), torch.zeros(len(outside))]).double()
    balance = torch.where(target == 1, 0.5 / len(inside), 0.5 / len(outside))
    weight = torch.zeros(both.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros((), dtype=torch.float64, requires_grad=True)

    def loss() -> torch.Tensor:
        scores = features @ weight + bias
        losses = binary_cross_entropy_with_logits(scores, target, reduction="none")
        return (losses * balance).sum() + penalty * weight.square().sum()

    minimise(loss, [weight, bias])
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
