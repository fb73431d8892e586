"""A calibration fitted on all the evidence, with figures for what it promises from fits on halves.

Each half of the images is judged by numbers that were fitted on the other one, while the checkpoint gets the
fit on all. One halving of a few hundred images decides about the figures by luck, so that many are drawn and
taken together (as Chernozhukov et al. 2018, section 3.4, do with cross-fitted estimates).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pawmatch.calibration.apply import Calibration, Doubles, Flags, tempered
from pawmatch.calibration.decide import Judged, Known, Observed, judge, know
from pawmatch.calibration.fit import (
    MAX_UNKNOWN_ANSWERED,
    REVIEW_TARGET,
    Evidence,
    confidence_and_hits,
    fit_calibration,
    right_in_group,
)
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

HALVINGS = 50
MIN_GROUPS = 6  # unknown classes, of which either half then has three or more
SEED = 0


@dataclass(frozen=True)
class Halves:
    """What fits on the other half say of each own image, of each of an unknown class, and of those outside.

    `probabilities` (N, classes) are the fits' mean, as are the unknown scores `score` (N,) and
    `unknown_score` (M,), None without such images. `sets` (N, classes) and all flags are what most fits say:
    `reasons` (N,) by code, `turned_away` (N,) without an answer, `flagged` (N,) for any reason,
    `unknown_answered` (M,) with a plain answer, `outside_caught` (K,). Groups are answered for
    `group_share` of the own images, and hold the truth at a rate of `group_accuracy`, None if there are none.
    """

    probabilities: Doubles
    sets: Flags
    reasons: dict[str, Flags]
    turned_away: Flags
    flagged: Flags
    score: Doubles | None
    unknown_score: Doubles | None
    unknown_answered: Flags | None
    outside_caught: Flags | None
    group_share: float
    group_accuracy: float | None


class _Votes:
    """What HALVINGS fits say of each of N images, added up."""

    def __init__(self, images: int, classes: int) -> None:
        self.probabilities = np.zeros((images, classes))
        self.sets = np.zeros((images, classes))
        self.score = np.zeros(images)
        self.has_score = False
        self.outside, self.turned_away, self.flagged = (np.zeros(images) for _ in range(3))
        self.reasons: dict[str, Doubles] = {}
        self.fits = np.zeros(images)

    def add(self, rows: Flags, known: Known, judged: Judged) -> None:
        self.probabilities[rows] += known.probabilities
        self.sets[rows] += judged.sets
        if known.score is not None:
            self.has_score = True
            self.score[rows] += known.score
        self.outside[rows] += judged.outside
        self.turned_away[rows] += judged.outside | judged.unknown
        self.flagged[rows] += judged.flagged
        for code, flags in judged.reasons.items():
            self.reasons.setdefault(code, np.zeros(len(rows)))[rows] += flags
        self.fits[rows] += 1

    def most(self, votes: Doubles) -> Flags:
        """Whether more than half of an image's fits say so."""
        fits = self.fits if votes.ndim == 1 else self.fits[:, None]
        said: Flags = votes > fits / 2
        return said


def judge_halves(evidence: Evidence, *, target: float, max_unknown: float, by_class: bool = False) -> Halves:
    """Judge each image by HALVINGS fits, each on a random half that it is not in.

    Unknown images are halved one by one, as if those to come were of the same unknown classes; `by_class`
    keeps a class whole, so that what is said of it comes from fits that know nothing of it.
    Both halves hold as many images of each class, give or take one. Images from outside are judged by all
    the fits, which learn from them only whether the rule for them earns its keep.
    """
    classes = evidence.own.logits.shape[1]
    own = _Votes(len(evidence.labels), classes)
    unknown = _Votes(len(evidence.unknown.logits), classes) if evidence.unknown else None
    outside = _Votes(len(evidence.outside.logits), classes) if evidence.outside else None
    rng = np.random.default_rng(SEED)
    groups = right = 0
    for _ in range(HALVINGS):
        half = random_half(evidence.labels, rng)
        half_unknown = half_of_unknown(
            evidence.unknown_groups if by_class else None, len(unknown.fits) if unknown else 0, rng
        )
        for there, there_too in ((half, half_unknown), (~half, ~half_unknown)):
            fit = fit_calibration(evidence.rows(there, there_too), target=target, max_unknown=max_unknown)
            judged = _judge(own, ~there, fit, evidence.own, evidence.own_classes)
            groups += int((judged.group >= 0).sum())
            right += int(right_in_group(fit.groups, judged.group, evidence.labels[~there]).sum())
            if unknown is not None and evidence.unknown is not None:
                _judge(unknown, ~there_too, fit, evidence.unknown, evidence.own_classes)
            if outside is not None and evidence.outside is not None:
                everything = np.ones(len(outside.fits), dtype=bool)
                _judge(outside, everything, fit, evidence.outside, evidence.own_classes)
    flagged = own.most(own.flagged)
    return Halves(
        probabilities=own.probabilities / own.fits[:, None],
        sets=own.most(own.sets),
        reasons={code: own.most(votes) for code, votes in own.reasons.items()},
        turned_away=own.most(own.turned_away),
        flagged=flagged if evidence.flagged is None else flagged | evidence.flagged,
        score=own.score / own.fits if own.has_score else None,
        unknown_score=unknown.score / unknown.fits if unknown and unknown.has_score else None,
        unknown_answered=~unknown.most(unknown.flagged) if unknown else None,
        outside_caught=outside.most(outside.outside) if outside else None,
        group_share=groups / (HALVINGS * len(evidence.labels)),
        group_accuracy=right / groups if groups else None,
    )


def _judge(
    votes: _Votes, rows: Flags, fit: Calibration, observed: Observed, own_classes: tuple[int, ...]
) -> Judged:
    """Judge some of the images observed by one fit, and note what it says."""
    known = know(fit, observed.rows(rows), own_classes)
    judged = judge(fit, known)
    votes.add(rows, known, judged)
    return judged


def half_of_unknown(groups: Ints | None, images: int, rng: np.random.Generator) -> Flags:
    """Half of the unknown classes, or of the images where `groups` does not tell the class of each."""
    if groups is None:
        return random_half(np.zeros(images, dtype=np.int64), rng)
    return np.isin(groups, rng.permutation(np.unique(groups))[::2])


def random_half(labels: Ints, rng: np.random.Generator) -> Flags:
    """Which images (N,) are in one half: every second one of each class, after shuffling."""
    shuffled = rng.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    half = np.zeros(len(labels), dtype=bool)
    half[by_class[::2]] = True
    return half


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
    values = figures(evidence, halves)
    if evidence.unknown_groups is not None and np.unique(evidence.unknown_groups).size >= MIN_GROUPS:
        strangers = judge_halves(evidence, target=target, max_unknown=max_unknown, by_class=True)
        assert strangers.unknown_answered is not None
        values["answered_unknown_class"] = float(strangers.unknown_answered.mean())
        if strangers.score is not None and strangers.unknown_score is not None:
            values["unknown_class_auroc"] = auroc(strangers.score, strangers.unknown_score)
    return Fitted(calibration, halves, values)


def figures(evidence: Evidence, halves: Halves) -> dict[str, Any]:
    """The figures of a model card, as JSON values; those of images that are missing are left out."""
    logits, labels = evidence.own.logits, evidence.labels
    confidence, correct = confidence_and_hits(halves.probabilities, labels)
    raw_confidence, _ = confidence_and_hits(tempered(logits, 1.0), labels)
    n, right = len(labels), int(correct.sum())
    predicted = halves.probabilities.argmax(axis=1)
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
        **_by_exit(evidence, halves),
        "below_threshold": float(halves.reasons["low_confidence"].mean()),
        "flagged": float(halves.flagged.mean()),
        "unflagged_share": float(1 - halves.flagged.mean()),
        "unflagged_accuracy": _mean(correct[~halves.flagged]),
        "group_share": halves.group_share,
        "group_accuracy": halves.group_accuracy,
        "own_turned_away": float(halves.turned_away.mean()),
        "own_out_of_scope": float(halves.reasons["out_of_scope"].mean()),
        "most_confused": most_confused(predicted, labels, evidence.names),
        "by_class": by_class(predicted, labels, evidence.names),
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


def by_class(predicted: Ints, labels: Ints, names: Sequence[str]) -> dict[str, list[Any]]:
    """For each class with images: how many, how many right answers, and how often it was taken for which."""
    found: dict[str, list[Any]] = {}
    for index in np.unique(labels).tolist():
        answers = Counter(predicted[labels == index].tolist())
        right = answers.pop(index, 0)
        taken = {names[answer]: count for answer, count in answers.most_common()}
        found[names[index]] = [right + sum(taken.values()), right, taken]
    return found


def _by_exit(evidence: Evidence, halves: Halves) -> dict[str, float]:
    """Where some images had a second look: how many, and how often the sets of either exit hold the truth."""
    doubted = evidence.own.doubted
    if doubted is None or not 0 < doubted.sum() < len(doubted):
        return {}
    held = halves.sets[np.arange(len(doubted)), evidence.labels]
    return {
        "second_looks": float(doubted.mean()),
        "coverage_of_90_first_look": float(held[~doubted].mean()),
        "coverage_of_90_second_look": float(held[doubted].mean()),
    }


def _mean(values: Flags) -> float | None:
    return float(values.mean()) if len(values) else None
