"""Calibration fitted on all held-out images, and honest figures for it from fitting on halves.

Each half of the images is judged by numbers that were fitted on the other one. So every image counts in
the figures, none is judged by a fit that it took part in, and the checkpoint gets the fit on all. One
halving of a few hundred images decides about the figures by luck, so that many are drawn and taken together
(as Chernozhukov et al. 2018, section 3.4, do with cross-fitted estimates).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pawmatch.calibration import Calibration, ScopeGate
from pawmatch.confidence import calibrated, tempered
from pawmatch.evaluation.sets import candidate_sets
from pawmatch.training.calibrate import conformal_quantile, fit_temperature, fit_top_label, review_threshold

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

COVERAGE = 0.9
HALVINGS = 50
SEED = 0


@dataclass(frozen=True)
class Judged:
    """What fits on the other half say of each image: probabilities and sets (N, classes), flags (N,)."""

    probabilities: Doubles
    sets: Flags
    flagged: Flags
    below_threshold: Flags


def fit_calibration(
    logits: Floats, labels: Ints, flagged: Flags, *, target: float, gates: tuple[ScopeGate, ...] = ()
) -> Calibration:
    """Temperature, conformal quantile and review threshold from logits (N, classes) and labels (N,).

    `flagged` (N,) are the images that a review reason other than confidence sends to a person already: the
    threshold promises `target` for the answers that nobody checks, so those alone count.
    """
    temperature = fit_temperature(logits, labels)
    top_label = fit_top_label(*confidence_and_hits(tempered(logits, temperature), labels))
    plain = Calibration(temperature=temperature, top_label=top_label)
    probabilities = calibrated(logits, plain)
    confidence, correct = confidence_and_hits(probabilities, labels)
    free = ~(flagged | close_calls(probabilities, plain.close_call_margin))
    threshold = review_threshold(confidence[free], correct[free], target)
    return replace(
        plain,
        review_threshold=threshold,
        review_rule=(
            f"lowest confidence at which the answers that no other reason flags are right at a rate of "
            f"{target:.0%} or more, read off the risk-coverage curve of {int(free.sum())} of {len(labels)} "
            "validation images"
        ),
        conformal_quantile=conformal_quantile(probabilities, labels, COVERAGE),
        scope_gates=gates,
    )


def judge_halves(logits: Floats, labels: Ints, flagged: Flags, *, target: float) -> Judged:
    """Judge each image by HALVINGS fits, each on a random half that it is not in.

    Probabilities are the fits' mean, threshold and quantile their medians. Both halves hold as many images
    of each class, give or take one.
    """
    probabilities = np.zeros(logits.shape)
    quantiles, thresholds = np.empty((2, HALVINGS, len(labels)))
    rng = np.random.default_rng(SEED)
    for turn in range(HALVINGS):
        half = random_half(labels, rng)
        for there in (half, ~half):
            fit = fit_calibration(logits[there], labels[there], flagged[there], target=target)
            probabilities[~there] += calibrated(logits[~there], fit) / HALVINGS
            quantiles[turn, ~there] = fit.conformal_quantile
            thresholds[turn, ~there] = fit.review_threshold
    below = probabilities.max(axis=1) < np.median(thresholds, axis=0)
    return Judged(
        probabilities=probabilities,
        sets=candidate_sets(probabilities, np.median(quantiles, axis=0)[:, None]),
        flagged=flagged | below | close_calls(probabilities, Calibration().close_call_margin),
        below_threshold=below,
    )


def random_half(labels: Ints, rng: np.random.Generator) -> Flags:
    """Which images (N,) are in one half: every second one of each class, after shuffling."""
    shuffled = rng.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    half = np.zeros(len(labels), dtype=bool)
    half[by_class[::2]] = True
    return half


def close_calls(probabilities: Doubles, margin: float) -> Flags:
    """Whether the two likeliest classes of each row (N, classes) lie within `margin`."""
    if probabilities.shape[1] < 2:
        return np.zeros(len(probabilities), dtype=bool)
    best = np.partition(probabilities, -2, axis=1)[:, -2:]
    close: Flags = best[:, 1] - best[:, 0] < margin
    return close


def confidence_and_hits(probabilities: Doubles, labels: Ints) -> tuple[Doubles, Flags]:
    """Confidence (N,) of each first choice, and whether it is right."""
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
