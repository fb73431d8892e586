"""Fitting the rules for what has no label: scope gates, another subject, an unknown class of the same one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from pawmatch.calibration.apply import (
    Doubles,
    Floats,
    OutsideRule,
    ScopeGate,
    UnknownRule,
    outside_mass,
    own_share,
    unknown_features,
)

Ints = NDArray[np.int64]

MOST_STEPS = 200


def minimise(loss: Callable[[], Tensor], parameters: Sequence[Tensor]) -> None:
    """Move `parameters` in place to where `loss` of them is least.

    L-BFGS with a strong Wolfe line search on the whole data (Nocedal and Wright 2006, section 7.2): no step
    size to choose, and the same result every time.
    """
    optimizer = torch.optim.LBFGS(parameters, max_iter=MOST_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]


# Squared weights in the loss. A gate against stand-ins must hold for images of kinds that it never saw: with
# ten times the penalty it turned away 63 instead of 55 % (corners) and 64 instead of 43 % (scrambled) of
# images of another task, at 2 % of its own, while of its own kind of stand-in it caught as many.
OUTSIDE_PENALTY = 1e-3
STAND_IN_PENALTY = 1e-2
# Shares of the task's own validation images that each gate may turn away. Where two gates turn away the same
# image they come to less: to 4.4 % for a bundled task, about as much as a gate that is left alone may have.
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
    Where it does not, as with images whose corners are of the same kind, its share goes to the first one.
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


# Shares of the own validation images that the rules may turn away.
MAX_OUTSIDE = 0.015
MAX_UNKNOWN = 0.04
MIN_CAUGHT = 0.2  # share of images from outside; a rule that sees fewer of them earns nothing
PRIOR_COUNT = 2.0  # images of either kind that each label is taken to have had beforehand
ENOUGH_CAUGHT = 0.98
MAX_STEPS = 50
MAX_SCORE = 500.0  # log odds that exp() still takes
TOLERANCE = 1e-8
PENALTY = 1e-3  # of squared weights, of standardized features


@dataclass(frozen=True)
class UnknownFit:
    """The rule, whose thresholds turn nothing away yet, and the scores (N,) that it was fitted with.

    In those, an image's own count is left out of its label's offset, so that thresholds can be read off them.
    """

    rule: UnknownRule
    own: Doubles
    unknown: Doubles


def fit_outside_rule(classes: tuple[int, ...], own: Floats, outside: Floats | None) -> OutsideRule:
    """The rule with the highest threshold that turns away at most MAX_OUTSIDE of the own images.

    `own` and `outside` are ImageNet probabilities (N, 1000). The threshold is no higher than it takes to
    catch ENOUGH_CAUGHT of those from outside, since what lies between is the subject in unusual pictures;
    where it catches under MIN_CAUGHT of them, it is 0 and turns nothing away.
    """
    plain = OutsideRule(classes, 0.0, f"{len(own)} validation images")
    threshold = float(np.clip(threshold_for(outside_mass(plain, own), MAX_OUTSIDE), 0, 1))
    if outside is not None:
        threshold = min(threshold, float(np.quantile(outside_mass(plain, outside), ENOUGH_CAUGHT)))
    if outside is not None and float((outside_mass(plain, outside) < threshold).mean()) < MIN_CAUGHT:
        threshold = 0.0
    against = f" and {len(outside)} from outside" if outside is not None else ""
    return OutsideRule(classes, threshold, plain.fitted_on + against)


def threshold_for(scores: Doubles, share: float) -> float:
    """The highest threshold below which at most `share` of the scores (N,) lie."""
    return float(np.sort(scores)[int(share * len(scores))])


def fit_unknown_rule(
    own: tuple[Floats, Doubles], unknown: tuple[Floats, Doubles], shares: tuple[Doubles, Doubles] | None
) -> UnknownFit:
    """Logistic regression of known against unknown classes, both weighing alike, little regularized.

    `own` and `unknown` are logits and calibrated probabilities (N, classes) of images of either kind, and
    `shares` their `apply.own_share`. A label's offset is the log ratio of how often known and unknown classes
    were taken for it, with PRIOR_COUNT added, times a fitted weight.
    """
    first, first_unknown = own[1].argmax(axis=1), unknown[1].argmax(axis=1)
    classes = own[1].shape[1]
    known_count, unknown_count = (
        np.bincount(labels, minlength=classes).astype(np.float64) for labels in (first, first_unknown)
    )
    ratio = label_log_ratio(known_count, unknown_count)
    left_out = np.concatenate(
        [
            label_log_ratio(known_count, unknown_count, own_less=1)[first],
            label_log_ratio(known_count, unknown_count, unknown_less=1)[first_unknown],
        ]
    )
    features = np.concatenate(
        [
            unknown_features(*own, shares[0] if shares else None),
            unknown_features(*unknown, shares[1] if shares else None),
        ]
    )
    weights, bias = _logistic(np.column_stack([features, left_out]), len(first))
    scores = np.column_stack([features, left_out]) @ weights + bias
    rule = UnknownRule(
        weights=tuple(float(weight) for weight in weights[:-1]),
        bias=bias,
        label_offsets=tuple(float(f"{offset:.6g}") for offset in weights[-1] * ratio),
        threshold=float(scores.min()),
        answer_threshold=float(scores.min()),
        fitted_on=f"{len(first)} validation images against {len(first_unknown)} of unknown classes",
    )
    return UnknownFit(rule, scores[: len(first)], scores[len(first) :])


def label_log_ratio(own: Doubles, unknown: Doubles, *, own_less: int = 0, unknown_less: int = 0) -> Doubles:
    """The log ratio (classes,) of the shares that labels have among answers for own and unknown images.

    `own` and `unknown` (classes,) count the answers; both shares are shrunk by PRIOR_COUNT own images. One
    answer fewer is counted for each label and in all where `own_less` or `unknown_less` is 1.
    """
    total, total_unknown = max(1.0, own.sum() - own_less), max(1.0, unknown.sum() - unknown_less)
    prior = PRIOR_COUNT / total
    shares = np.maximum(own - own_less, 0) / total + prior
    ratio: Doubles = np.log(shares / (np.maximum(unknown - unknown_less, 0) / total_unknown + prior))
    return ratio


def shares_of(imagenet: Floats | None, own: Sequence[int], subject: Sequence[int]) -> Doubles | None:
    """`apply.own_share` of ImageNet probabilities (N, 1000), None where they or the classes are missing."""
    if imagenet is None or not own or not subject:
        return None
    return own_share(imagenet, own, subject)


def _logistic(features: Doubles, positives: int) -> tuple[Doubles, float]:
    """Weights and bias that tell the first `positives` rows of features (N, F) from the others.

    Newton's method (Hastie et al. 2009, section 4.4.1): with so few numbers it ends in a few steps.
    """
    mean, std = features.mean(axis=0), features.std(axis=0) + 1e-6
    rows = np.column_stack([(features - mean) / std, np.ones(len(features))])
    target = np.arange(len(rows)) < positives
    balance = np.where(target, 0.5 / positives, 0.5 / (len(rows) - positives))
    ridge = 2 * PENALTY * np.diag([*[1.0] * features.shape[1], 1e-9])  # the bias is free
    solution = np.zeros(rows.shape[1])
    for _ in range(MAX_STEPS):
        p = 1 / (1 + np.exp(-np.clip(rows @ solution, -MAX_SCORE, MAX_SCORE)))
        slope = rows.T @ (balance * (p - target)) + ridge @ solution
        curvature = (rows * (balance * np.maximum(p * (1 - p), 1e-9))[:, None]).T @ rows + ridge
        step = np.linalg.solve(curvature, slope)
        solution -= step
        if np.abs(step).max() < TOLERANCE:
            break
    folded: Doubles = solution[:-1] / std
    return folded, float(solution[-1] - mean @ folded)
