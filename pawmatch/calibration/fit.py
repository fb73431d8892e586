"""A calibration fitted as a whole: confidence, sets, rules for what is not known, groups, thresholds."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from pawmatch.calibration.apply import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    TINY,
    Calibration,
    Doubles,
    Flags,
    Floats,
    LabelGroup,
    OutsideRule,
    ScopeGate,
    tempered,
)
from pawmatch.calibration.decide import Known, Observed, group_mass, judge, know
from pawmatch.calibration.groups import find_groups
from pawmatch.calibration.scope import (
    MAX_UNKNOWN,
    UnknownFit,
    fit_outside_rule,
    fit_unknown_rule,
    minimise,
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
    images; `flagged` (N,) are the own images that a person checks for a reason that cannot be seen here;
    `unknown_groups` (M,) says which unknown images are of one class, so that a fit can do without one.
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
    unknown_groups: Ints | None = None

    def rows(self, own: Flags, unknown: Flags) -> Evidence:
        """The same of some of the images, by flags: (N,) and, where there are unknown ones, (M,)."""
        return replace(
            self,
            own=self.own.rows(own),
            labels=self.labels[own],
            unknown=self.unknown.rows(unknown) if self.unknown else None,
            unknown_groups=None,
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


PRIOR = 1.0


def fit_temperature(logits: Floats, labels: Ints) -> float:
    """The temperature that minimises the mean negative log-likelihood (Guo et al. 2017, section 4.2).

    logits (N, classes), labels (N,). The logarithm is optimised, so the result is positive. A model that has
    learnt nothing would get an infinite one, one without a mistake 0; both end at what a checkpoint holds.
    """
    scores = torch.from_numpy(logits.astype(np.float64))
    target = torch.from_numpy(labels)
    log_temperature = torch.zeros((), dtype=torch.float64, requires_grad=True)
    minimise(lambda: cross_entropy(scores / log_temperature.exp(), target), [log_temperature])
    return min(max(float(log_temperature.detach().exp()), MIN_TEMPERATURE), MAX_TEMPERATURE)


def fit_top_label(confidence: Doubles, correct: NDArray[np.bool_]) -> tuple[float, float, float]:
    """The (a, b, c) for `apply.with_top_label`, from confidence (N,) and whether it is right (N,).

    Maximises the likelihood of which first choices are right (Kull et al. 2017), with ln a, ln b and c held
    near 0, no change at all, as by a normal prior of standard deviation PRIOR: few images bend it little.
    """
    top = torch.from_numpy(confidence).clamp(TINY, 1 - TINY)
    right = torch.from_numpy(correct.astype(np.float64))
    log_top, log_rest = top.log(), torch.log1p(-top)
    moved = torch.zeros(3, dtype=torch.float64, requires_grad=True)

    def loss() -> torch.Tensor:
        scores = moved[0].exp() * log_top - moved[1].exp() * log_rest + moved[2]
        fit = binary_cross_entropy_with_logits(scores, right, reduction="sum")
        return (fit + (moved / PRIOR).square().sum() / 2) / len(confidence)

    minimise(loss, [moved])
    a, b, c = (float(value) for value in moved.detach())
    return math.exp(a), math.exp(b), c


def conformal_quantile(probabilities: Doubles, labels: Ints, coverage: float = 0.9) -> float:
    """The quantile of 1 - p(truth) that gives sets of at least `coverage` on exchangeable data.

    Uses the finite-sample rank ceil((n + 1) * coverage) of split conformal prediction (Vovk et al. 2005;
    Sadinle et al. 2019). 1.0, every label, where n is too small for the coverage asked for.
    """
    scores = np.sort(1 - probabilities[np.arange(len(labels)), labels])
    rank = math.ceil((len(scores) + 1) * coverage)
    return float(scores[rank - 1]) if rank <= len(scores) else 1.0


FEWEST_KEPT = 20  # a share measured on fewer images says nothing
GRID = 400  # thresholds that are tried, evenly spaced among the images


def good_prefix(scores: Doubles, correct: Flags, target: float) -> float:
    """The lowest score at or above which answers are right at a rate of at least `target`.

    Read off the risk-coverage curve: images are sorted by score, and the longest prefix whose accuracy
    reaches the target is kept. One more wrong answer is counted than there is, as in conformal risk control
    (Angelopoulos et al. 2022, eq. 4), because the longest of many prefixes is picked for being good. 1.0
    where no prefix of FEWEST_KEPT reaches the target.
    """
    order = np.argsort(-scores, kind="stable")
    accuracy = np.cumsum(correct[order]) / (np.arange(1, len(order) + 1) + 1)
    good = np.flatnonzero(accuracy >= target)
    good = good[good >= FEWEST_KEPT - 1]
    return float(scores[order[good[-1]]]) if len(good) else 1.0


def answer_thresholds(
    own: tuple[Doubles, Doubles],
    correct: Flags,
    unknown: tuple[Doubles, Doubles],
    *,
    target: float,
    max_unknown: float,
) -> tuple[float, float] | None:
    """The thresholds of confidence and of the unknown score that leave most own answers unflagged.

    `own` are confidences and scores (N,) of the own images that nothing else flags, and `correct` whether
    their answers are right; `unknown` those (M,) of images of unknown classes that nothing else flags. Among
    pairs of thresholds at which unflagged own answers are right at a rate of `target` or more, with one more
    wrong answer than there is as in `good_prefix`, and at most `max_unknown` unknown images stay unflagged.
    None where there is no such pair, or it keeps fewer than FEWEST_KEPT.
    """
    levels = [_levels(values) for values in own]
    kept, right = (_at_or_above(own, levels, weight) for weight in (np.ones(len(correct)), correct))
    beyond = _at_or_above(unknown, levels, np.ones(len(unknown[0])))
    good = (right >= target * (kept + 1)) & (beyond <= max_unknown) & (kept >= FEWEST_KEPT)
    if not good.any():
        return None
    confidence, score = np.unravel_index(int(np.where(good, kept, -1).argmax()), kept.shape)
    return float(levels[0][confidence]), float(levels[1][score])


def _levels(values: Doubles) -> Doubles:
    """Up to GRID of the values (N,), from the least one up."""
    ordered = np.unique(values)
    places = np.linspace(0, max(len(ordered) - 1, 0), min(GRID, len(ordered))).round().astype(int)
    levels: Doubles = ordered[places]
    return levels


def _at_or_above(values: tuple[Doubles, Doubles], levels: list[Doubles], weight: Doubles | Flags) -> Doubles:
    """The summed weight of the rows at or above each pair of levels, (levels, levels)."""
    places = [
        np.searchsorted(level, value, side="right") for level, value in zip(levels, values, strict=True)
    ]
    table = np.zeros([len(level) + 1 for level in levels])
    np.add.at(table, tuple(places), weight)
    summed: Doubles = table[::-1, ::-1].cumsum(axis=0).cumsum(axis=1)[::-1, ::-1]
    return summed[1:, 1:]
