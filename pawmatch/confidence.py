"""From logits to what may be said about them: probabilities, candidate set, scope, review decision.

Only arithmetic on fitted numbers happens here; how they are fitted is in `training/calibrate.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pawmatch.calibration import Calibration, ScopeGate
from pawmatch.results import Review, ReviewReason, VariantAnswer
from pawmatch.tasks import find_task

SMALLEST_SIDE = 64  # pixels; below it a dog's coat or a brush stroke is not resolved
LARGEST_ASPECT = 4.0


def calibrated(logits: NDArray[np.float32], temperature: float | NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities (..., classes) of logits (..., classes): softmax of logits / temperature.

    A temperature for each row is (..., 1).
    """
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=-1, keepdims=True)
    exp = np.exp(scaled)
    probabilities: NDArray[np.float64] = exp / exp.sum(axis=-1, keepdims=True)
    return probabilities


def candidate_set(probabilities: NDArray[np.float64], quantile: float) -> list[int]:
    """Indices of the conformal set of one row (classes,), most likely first, never empty.

    A label belongs if its score 1 - p is at most `quantile` (LAC, Sadinle et al. 2019). The most likely
    label is always kept: an empty answer helps nobody, and adding to a set cannot lower its coverage.
    """
    order = np.argsort(-probabilities, kind="stable")
    kept = [int(index) for index in order if 1 - probabilities[index] <= quantile]
    return kept or [int(order[0])]


def scope_score(gate: ScopeGate, pooled: NDArray[np.float32]) -> float:
    """The gate's score of an average-pooled feature map (C,): higher means more like the task's images."""
    return float(pooled.astype(np.float64) @ np.asarray(gate.weight) + gate.bias)


def scope_margin(gates: Sequence[ScopeGate], pooled: NDArray[np.float32]) -> float:
    """The least of the gates' scores above their thresholds; negative means out of scope.

    Infinite where there is no gate.
    """
    return min((scope_score(gate, pooled) - gate.threshold for gate in gates), default=float("inf"))


def decide_review(
    *,
    task: str,
    calibration: Calibration,
    probabilities: NDArray[np.float64],
    answers: Sequence[VariantAnswer],
    names: Sequence[str],
    in_scope: bool,
    size: tuple[int, int],
) -> Review:
    """Say whether a person should check the answer for one image, and why, gravest reason first.

    `probabilities` is one row (classes,), `answers` every variant's first choice, `names` the display
    names in class order, `size` the image's width and height in pixels.
    """
    asked = find_task(task)
    order = np.argsort(-probabilities, kind="stable")
    first = int(order[0])
    reasons: list[ReviewReason] = []
    if not in_scope:
        reasons.append(ReviewReason("out_of_scope", f"This does not look like a {asked.subject}."))
    if min(size) < SMALLEST_SIDE:
        reasons.append(
            ReviewReason(
                "poor_image", f"The picture is very small ({size[0]} x {size[1]} pixels); try a larger one."
            )
        )
    elif max(size) / min(size) > LARGEST_ASPECT:
        reasons.append(
            ReviewReason("poor_image", "The picture is a very narrow strip; try one nearer to a square.")
        )
    if probabilities[first] < calibration.review_threshold:
        reasons.append(
            ReviewReason(
                "low_confidence",
                f"The model is only {100 * probabilities[first]:.0f} % sure of its first choice; "
                f"below {100 * calibration.review_threshold:.0f} % a person should check.",
            )
        )
    if len(order) > 1:
        second = int(order[1])
        if probabilities[first] - probabilities[second] < calibration.close_call_margin:
            reasons.append(
                ReviewReason("close_call", f"It is a close call between {names[first]} and {names[second]}.")
            )
    others = sorted({answer.name for answer in answers} - {names[first]})
    if others:
        reasons.append(
            ReviewReason(
                "variants_disagree",
                f"The three models do not agree on the {asked.noun}: another says {' or '.join(others)}.",
            )
        )
    return Review(needed=bool(reasons), reasons=tuple(reasons), threshold=calibration.review_threshold)
