"""A calibration fitted as a whole: confidence, sets, rules for what is not known, groups, thresholds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pawmatch.calibration.apply import Doubles, Flags, tempered
from pawmatch.calibration.decide import Known, Observed, group_mass, judge, know
from pawmatch.calibration.groups import find_groups
from pawmatch.calibration.parameters import Calibration, LabelGroup, OutsideRule, ScopeGate
from pawmatch.calibration.temperature import conformal_quantile, fit_temperature, fit_top_label
from pawmatch.calibration.thresholds import answer_thresholds, good_prefix
from pawmatch.calibration.unknown import (
    MAX_UNKNOWN,
    UnknownFit,
    fit_outside_rule,
    fit_unknown_rule,
    shares_of,
    threshold_for,
)

Ints = NDArray[np.int64]

COVERAGE = 0.9
# How often answers that nobody checks are to be right on data like the validation set.
REVIEW_TARGET = 0.955
MAX_UNKNOWN_ANSWERED = 0.07  # share of images of unknown classes that may get a plain answer


@dataclass(frozen=True)
class Evidence:
    """What a calibration is fitted on, all of one variant.

    `own` are N held-out images of the classes `labels` (N,), whose names are `names`; `unknown` are images of
    the task's subject but of no known class, `outside` images without the subject. `own_classes` are the
    ImageNet classes that are labels, `subject_classes` all that show the subject. `gates` are fitted on other
    images; `flagged` (N,) are the own images that a person checks for a reason that cannot be seen here.
    """

    own: Observed
    labels: Ints
    names: tuple[str, ...]
    unknown: Observed | None = None
    outside: Observed | None = None
    own_classes: tuple[int, ...] = ()
    subject_classes: tuple[int, ...] = ()
    gates: tuple[ScopeGate, ...] = ()
    flagged: Flags | None = None

    def rows(self, own: Flags, unknown: Flags) -> Evidence:
        """The same of some of the images, by flags: (N,) and, where there are unknown ones, (M,)."""
        return replace(
            self,
            own=self.own.rows(own),
            labels=self.labels[own],
            unknown=self.unknown.rows(unknown) if self.unknown else None,
            flagged=None if self.flagged is None else self.flagged[own],
        )


def fit_calibration(
    evidence: Evidence, *, target: float = REVIEW_TARGET, max_unknown: float = MAX_UNKNOWN_ANSWERED
) -> Calibration:
    """Fit everything on all images of the evidence.

    Answers that nobody checks are to be right at a rate of `target`, and at most `max_unknown` of the images
    of unknown classes are to get one; those are promises for images like the evidence's.
    """
    own, labels = evidence.own, evidence.labels
    temperature = fit_temperature(own.logits, labels)
    top_label = fit_top_label(*confidence_and_hits(tempered(own.logits, temperature), labels))
    fit = Calibration(
        temperature=temperature,
        top_label=top_label,
        review_threshold=0.0,
        scope_gates=evidence.gates,
        outside=_outside_rule(evidence),
    )
    known = know(fit, own, evidence.own_classes)
    fit = replace(
        fit,
        conformal_quantile=conformal_quantile(known.probabilities, labels, COVERAGE),
        groups=find_groups(known.probabilities, labels, evidence.names),
        group_threshold=0.0,
    )
    beyond = know(fit, evidence.unknown, evidence.own_classes) if evidence.unknown else None
    if beyond is not None:
        scored = _fit_unknown(evidence, known, beyond)
        least = threshold_for(scored.own, MAX_UNKNOWN)
        fit = replace(fit, unknown=replace(scored.rule, threshold=least, answer_threshold=least))
        known, beyond = replace(known, score=scored.own), replace(beyond, score=scored.unknown)
    fit = _with_answer_thresholds(fit, evidence, known, beyond, target, max_unknown)
    return _with_group_threshold(fit, labels, known, target)


def confidence_and_hits(probabilities: Doubles, labels: Ints) -> tuple[Doubles, Flags]:
    """Confidence (N,) of each first choice, and whether it is right."""
    return probabilities.max(axis=1), probabilities.argmax(axis=1) == labels


def right_in_group(groups: tuple[LabelGroup, ...], chosen: Ints, labels: Ints) -> Flags:
    """Whether the true label of each image (N,) is in its chosen group; False where that is -1."""
    pairs = zip(chosen.tolist(), labels.tolist(), strict=True)
    return np.array([number >= 0 and label in groups[number].labels for number, label in pairs], dtype=bool)


def _outside_rule(evidence: Evidence) -> OutsideRule | None:
    """The rule, whose threshold is 0 where it earns nothing: its classes serve the unknown score."""
    if evidence.own.imagenet is None or not evidence.subject_classes:
        return None
    beyond = evidence.outside.imagenet if evidence.outside else None
    return fit_outside_rule(evidence.subject_classes, evidence.own.imagenet, beyond)


def _fit_unknown(evidence: Evidence, known: Known, beyond: Known) -> UnknownFit:
    assert evidence.unknown is not None
    shares = [
        shares_of(observed.imagenet, evidence.own_classes, evidence.subject_classes)
        for observed in (evidence.own, evidence.unknown)
    ]
    return fit_unknown_rule(
        (evidence.own.logits, known.probabilities),
        (evidence.unknown.logits, beyond.probabilities),
        None if shares[0] is None or shares[1] is None else (shares[0], shares[1]),
    )


def _with_answer_thresholds(
    fit: Calibration,
    evidence: Evidence,
    known: Known,
    beyond: Known | None,
    target: float,
    max_unknown: float,
) -> Calibration:
    """The review threshold and that of the unknown score, for the images that nothing else flags."""
    confidence, correct = confidence_and_hits(known.probabilities, evidence.labels)
    free = ~judge(fit, known).flagged
    if evidence.flagged is not None:
        free &= ~evidence.flagged
    rule = (
        f"lowest confidence at which the answers that no other reason flags are right at a rate of "
        f"{target:.1%} or more, read off the risk-coverage curve of {int(free.sum())} of {len(free)} "
        "validation images"
    )
    if fit.unknown is None or known.score is None or beyond is None or beyond.score is None:
        threshold = good_prefix(confidence[free], correct[free], target)
        return replace(fit, review_threshold=threshold, review_rule=rule)
    free_too = ~judge(fit, beyond).flagged
    pair = answer_thresholds(
        (confidence[free], known.score[free]),
        correct[free],
        (beyond.probabilities.max(axis=1)[free_too], beyond.score[free_too]),
        target=target,
        max_unknown=max_unknown * len(free_too),
    )
    threshold, least = pair or (1.0, fit.unknown.threshold)
    return replace(
        fit,
        review_threshold=threshold,
        review_rule=f"{rule}; found together with a least unknown score, so that at most {max_unknown:.0%} "
        f"of {len(free_too)} images of unknown classes get an answer that nobody checks",
        unknown=replace(fit.unknown, answer_threshold=least),
    )


def _with_group_threshold(fit: Calibration, labels: Ints, known: Known, target: float) -> Calibration:
    """The lowest confidence in a group from which groups hold the truth at a rate of `target`."""
    group = judge(fit, known).group
    mass = group_mass(fit.groups, group, known.probabilities)
    chosen = group >= 0
    right = right_in_group(fit.groups, group, labels)
    return replace(fit, group_threshold=min(1.0, good_prefix(mass[chosen], right[chosen], target)))
