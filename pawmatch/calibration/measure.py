"""A calibration fitted on all the evidence, with figures for what it promises from fits on halves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pawmatch.calibration.apply import Flags, tempered
from pawmatch.calibration.crossfit import Halves, judge_halves
from pawmatch.calibration.fit import (
    MAX_UNKNOWN_ANSWERED,
    REVIEW_TARGET,
    Evidence,
    confidence_and_hits,
    fit_calibration,
)
from pawmatch.calibration.parameters import Calibration
from pawmatch.metrics import (
    auroc,
    expected_calibration_error,
    macro_f1,
    negative_log_likelihood,
    perfect_calibration_errors,
    top_k_accuracy,
    wilson_interval,
)

Ints = NDArray[np.int64]

MOST_CONFUSED = 8  # mistakes that are named


@dataclass(frozen=True)
class Fitted:
    """The calibration of one variant, what fits on halves say of the images, and the figures from it."""

    calibration: Calibration
    halves: Halves
    metrics: dict[str, Any]


def fit_and_measure(
    evidence: Evidence, *, target: float = REVIEW_TARGET, max_unknown: float = MAX_UNKNOWN_ANSWERED
) -> Fitted:
    """Fit a calibration on all images, and measure what it promises on images that a fit has not seen.

    `target` and `max_unknown` are those of `fit_calibration`.
    """
    calibration = fit_calibration(evidence, target=target, max_unknown=max_unknown)
    halves = judge_halves(evidence, target=target, max_unknown=max_unknown)
    return Fitted(calibration, halves, figures(evidence, halves))


def figures(evidence: Evidence, halves: Halves) -> dict[str, Any]:
    """The figures of a model card, as JSON values; those of images that are missing are left out."""
    logits, labels = evidence.own.logits, evidence.labels
    confidence, correct = confidence_and_hits(halves.probabilities, labels)
    raw_confidence, _ = confidence_and_hits(tempered(logits, 1.0), labels)
    n, right = len(labels), int(correct.sum())
    values: dict[str, Any] = {
        "validation_images": n,
        "top1": right / n,
        "top1_interval_95": list(wilson_interval(right, n)),
        "top5": top_k_accuracy(logits, labels, 5),
        "macro_f1": macro_f1(logits.argmax(axis=1), labels, logits.shape[1]),
        "nll": negative_log_likelihood(halves.probabilities, labels),
        "ece_before": expected_calibration_error(raw_confidence, correct),
        "ece": expected_calibration_error(confidence, correct),
        "ece_of_perfect": float(perfect_calibration_errors(confidence).mean()),
        "coverage_of_90": float(halves.sets[np.arange(n), labels].mean()),
        "mean_size_of_90": float(halves.sets.sum(axis=1).mean()),
        "below_threshold": float(halves.reasons["low_confidence"].mean()),
        "flagged": float(halves.flagged.mean()),
        "unflagged_share": float(1 - halves.flagged.mean()),
        "unflagged_accuracy": _mean(correct[~halves.flagged]),
        "group_share": halves.group_share,
        "group_accuracy": halves.group_accuracy,
        "own_turned_away": float(halves.turned_away.mean()),
        "own_out_of_scope": float(halves.reasons["out_of_scope"].mean()),
        "most_confused": most_confused(halves.probabilities.argmax(axis=1), labels, evidence.names),
    }
    if halves.unknown_answered is not None:
        values["unknown_images"] = len(halves.unknown_answered)
        values["answered_unknown"] = float(halves.unknown_answered.mean())
    if halves.score is not None and halves.unknown_score is not None:
        values["unknown_auroc"] = auroc(halves.score, halves.unknown_score)
    if halves.outside_caught is not None:
        values["outside_images"] = len(halves.outside_caught)
        values["outside_caught"] = float(halves.outside_caught.mean())
    return values


def most_confused(predicted: Ints, labels: Ints, names: Sequence[str]) -> list[list[str | int]]:
    """The MOST_CONFUSED most frequent mistakes: true label, answer, how often, of how many images."""
    wrong = predicted != labels
    pairs = Counter(zip(labels[wrong].tolist(), predicted[wrong].tolist(), strict=True))
    support = Counter(labels.tolist())
    return [
        [names[truth], names[answer], count, support[truth]]
        for (truth, answer), count in pairs.most_common(MOST_CONFUSED)
    ]


def _mean(values: Flags) -> float | None:
    return float(values.mean()) if len(values) else None
