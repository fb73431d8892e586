"""Honest figures for a calibration: each image judged by fits that it took no part in.

Each half of the images is judged by numbers that were fitted on the other one, while the checkpoint gets the
fit on all. One halving of a few hundred images decides about the figures by luck, so that many are drawn and
taken together (as Chernozhukov et al. 2018, section 3.4, do with cross-fitted estimates).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pawmatch.calibration.apply import Doubles, Flags
from pawmatch.calibration.decide import Judged, Known, Observed, judge, know
from pawmatch.calibration.fit import Evidence, fit_calibration, right_in_group
from pawmatch.calibration.parameters import Calibration

Ints = NDArray[np.int64]

HALVINGS = 50
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


def judge_halves(evidence: Evidence, *, target: float, max_unknown: float) -> Halves:
    """Judge each image by HALVINGS fits, each on a random half that it is not in.

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
        half_unknown = random_half(np.zeros(len(unknown.fits) if unknown else 0, dtype=np.int64), rng)
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


def random_half(labels: Ints, rng: np.random.Generator) -> Flags:
    """Which images (N,) are in one half: every second one of each class, after shuffling."""
    shuffled = rng.permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    half = np.zeros(len(labels), dtype=bool)
    half[by_class[::2]] = True
    return half
