"""From logits to what may be said about them: probabilities, candidate set, scope, review decision.

Only arithmetic on fitted numbers happens here; how they are fitted is in `training/calibrate.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pawmatch.calibration import Calibration, ScopeGate
from pawmatch.results import Review, ReviewReason, VariantAnswer
from pawmatch.tasks import new_task

SMALLEST_SIDE = 64  # pixels; below it a dog's coat or a brush stroke is not resolved
LARGEST_ASPECT = 4.0
TINY = 1e-12  # what rounding may cost a probability
FARTHEST = 500.0  # log odds that exp() still takes


def calibrated(logits: NDArray[np.float32], calibration: Calibration) -> NDArray[np.float64]:
    """Probabilities (..., classes) of logits (..., classes), by all that `calibration` says of them."""
    return with_top_label(tempered(logits, calibration.temperature), calibration.top_label)


def tempered(logits: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    """Probabilities (..., classes) of logits (..., classes): softmax of logits / temperature."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=-1, keepdims=True)
    exp = np.exp(scaled)
    probabilities: NDArray[np.float64] = exp / exp.sum(axis=-1, keepdims=True)
    return probabilities


def with_top_label(
    probabilities: NDArray[np.float64], top_label: tuple[float, float, float]
) -> NDArray[np.float64]:
    """Probabilities (..., classes) with a new one for each row's likeliest label; the others share the rest.

    The label's p becomes sigmoid(a ln p - b ln(1 - p) + c) with (a, b, c) = `top_label`: beta calibration
    (Kull et al. 2017) of the confidence (Gupta and Ramdas 2022), whose curve one temperature cannot
    bend. It stays the likeliest: it falls no further than to where the second one would overtake it.
    """
    if top_label == Calibration.top_label or probabilities.shape[-1] < 2:
        return probabilities
    a, b, c = top_label
    place = probabilities.argmax(axis=-1)[..., None]
    top = np.take_along_axis(probabilities, place, axis=-1)
    rest = np.maximum(1 - top, TINY)
    second = np.partition(probabilities, -2, axis=-1)[..., -2, None]
    score = np.clip(a * np.log(top) - b * np.log(rest) + c, -FARTHEST, FARTHEST)
    mapped = 1 / (1 + np.exp(-score))
    mapped = np.minimum(np.maximum(mapped, second / (rest + second) + TINY), 1.0)
    changed: NDArray[np.float64] = probabilities * ((1 - mapped) / rest)
    np.put_along_axis(changed, place, mapped, axis=-1)
    return changed


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
    asked = new_task(task)
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
