"""Calibration fitted on all held-out images, and honest figures for it from fitting on halves.

Each half of the images is judged by numbers that were fitted on the other one. So every image counts in
the figures, none is judged by a fit that it took part in, and the checkpoint gets the fit on all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pawmatch.calibration import Calibration, ScopeGate
from pawmatch.confidence import calibrated
from pawmatch.evaluation.sets import candidate_sets
from pawmatch.training.calibrate import conformal_quantile, fit_temperature, review_threshold

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

COVERAGE = 0.9


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
    probabilities = calibrated(logits, temperature)
    confidence, correct = confidence_and_hits(probabilities, labels)
    plain = Calibration(temperature=temperature)
    free = ~(flagged | close_calls(probabilities, plain.close_call_margin))
    threshold = review_threshold(confidence[free], correct[free], target)
    return Calibration(
        temperature=temperature,
        review_threshold=threshold,
        review_rule=(
            f"lowest confidence at which the answers that no other reason flags are right at a rate of "
            f"{target:.0%} or more, read off the risk-coverage curve of {int(free.sum())} of {len(labels)} "
            "validation images"
        ),
        close_call_margin=plain.close_call_margin,
        conformal_quantile=conformal_quantile(probabilities, labels, COVERAGE),
        scope_gates=gates,
    )


def judge_halves(logits: Floats, labels: Ints, flagged: Flags, *, target: float) -> Judged:
    """Judge the even images by a fit on the odd ones and the other way round.

    Files are listed class by class, so that both halves hold the same classes.
    """
    n, classes = logits.shape
    probabilities = np.empty((n, classes))
    sets = np.empty((n, classes), dtype=bool)
    out, below = flagged.copy(), np.empty(n, dtype=bool)
    for here, there in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
        fit = fit_calibration(logits[there], labels[there], flagged[there], target=target)
        rows = calibrated(logits[here], fit.temperature)
        probabilities[here] = rows
        sets[here] = candidate_sets(rows, fit.conformal_quantile)
        below[here] = rows.max(axis=1) < fit.review_threshold
        out[here] |= below[here] | close_calls(rows, fit.close_call_margin)
    return Judged(probabilities, sets, out, below)


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
