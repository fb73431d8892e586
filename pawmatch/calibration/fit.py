"""A calibration fitted as a whole: confidence, sets, rules for what is not known, groups, thresholds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import logsumexp

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
    UnknownRule,
    outside_mass,
    own_share,
    tempered,
    unknown_features,
)
from pawmatch.calibration.decide import Known, Observed, group_mass, judge, know
from pawmatch.calibration.groups import find_groups

Ints = NDArray[np.int64]

COVERAGE = 0.9
FEWEST_KEPT = 20  # a share measured on fewer images says nothing
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
    first, second = fit_quantiles(known, labels)
    fit = replace(
        fit,
        conformal_quantile=first,
        second_look_quantile=second,
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

    logits (N, classes), labels (N,). The logarithm is optimised, within what a checkpoint holds: a model that
    has learnt nothing would get an infinite one, one without a mistake 0.
    """
    scores = logits.astype(np.float64)
    truth = scores[np.arange(len(labels)), labels]

    def loss(log_temperature: float) -> float:
        inverse = math.exp(-log_temperature)
        return float((logsumexp(scores * inverse, axis=1) - truth * inverse).mean())

    bounds = (math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE))
    return math.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-8}).x)


def fit_top_label(confidence: Doubles, correct: NDArray[np.bool_]) -> tuple[float, float, float]:
    """The (a, b, c) for `apply.with_top_label`, from confidence (N,) and whether it is right (N,).

    Maximises the likelihood of which first choices are right (Kull et al. 2017), with ln a, ln b and c held
    near 0, no change at all, as by a normal prior of standard deviation PRIOR: few images bend it little.
    """
    top = confidence.clip(TINY, 1 - TINY)
    log_top, log_rest = np.log(top), np.log1p(-top)

    def loss(moved: Doubles) -> float:
        scores = np.exp(moved[0]) * log_top - np.exp(moved[1]) * log_rest + moved[2]
        wrong = np.logaddexp(0, np.where(correct, -scores, scores)).sum()
        return float(wrong + (moved / PRIOR) @ (moved / PRIOR) / 2) / len(confidence)

    a, b, c = minimize(loss, np.zeros(3), method="BFGS", options={"gtol": 1e-7}).x.tolist()
    return math.exp(a), math.exp(b), c


def fit_quantiles(known: Known, labels: Ints) -> tuple[float, float | None]:
    """The conformal quantile, and another one for a second look where FEWEST_KEPT images had it or not."""
    doubted = known.doubted
    if doubted is None or min(doubted.sum(), (~doubted).sum()) < FEWEST_KEPT:
        return conformal_quantile(known.probabilities, labels, COVERAGE), None
    first, second = (
        conformal_quantile(known.probabilities[rows], labels[rows], COVERAGE) for rows in (~doubted, doubted)
    )
    return first, second


def conformal_quantile(probabilities: Doubles, labels: Ints, coverage: float = 0.9) -> float:
    """The quantile of 1 - p(truth) that gives sets of at least `coverage` on exchangeable data.

    Uses the finite-sample rank ceil((n + 1) * coverage) of split conformal prediction (Vovk et al. 2005;
    Sadinle et al. 2019). 1.0, every label, where n is too small for the coverage asked for.
    """
    scores = np.sort(1 - probabilities[np.arange(len(labels)), labels])
    rank = math.ceil((len(scores) + 1) * coverage)
    return float(scores[rank - 1]) if rank <= len(scores) else 1.0


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


# --- rules for what has no label


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

    The threshold is the score below which the share `flagged` of `held_out` (images of the task, not used in
    the fit) falls; for `penalty` see `logistic`.
    """
    weights, bias = logistic(np.concatenate([inside, outside]).astype(np.float64), len(inside), penalty)
    scores = held_out.astype(np.float64) @ weights + bias
    return ScopeGate(
        weight=tuple(float(f"{value:.6g}") for value in weights),
        bias=bias,
        threshold=float(np.quantile(scores, flagged)),
        fitted_on=fitted_on,
    )


def logistic(features: Doubles, positives: int, penalty: float) -> tuple[Doubles, float]:
    """Weights and bias that tell the first `positives` rows of features (N, F) from the others.

    Logistic regression on standardized features, both sides weighing alike, with `penalty` times the squared
    weights added to the mean loss. Standardization is folded in: a score is one dot product.
    """
    from sklearn.linear_model import LogisticRegression  # which takes a second to import

    mean, std = features.mean(axis=0), features.std(axis=0) + 1e-6
    target = np.arange(len(features)) < positives
    balance = np.where(target, 0.5 / positives, 0.5 / (len(features) - positives))
    model = LogisticRegression(C=1 / (2 * penalty), solver="newton-cholesky", tol=TOLERANCE)
    model.fit((features - mean) / std, target, sample_weight=balance)
    folded: Doubles = model.coef_[0] / std
    return folded, float(model.intercept_[0] - mean @ folded)


# Shares of the own validation images that the rules may turn away.
MAX_OUTSIDE = 0.015
MAX_UNKNOWN = 0.04
MIN_CAUGHT = 0.2  # share of images from outside; a rule that sees fewer of them earns nothing
PRIOR_COUNT = 2.0  # images of either kind that each label is taken to have had beforehand
ENOUGH_CAUGHT = 0.98
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
    rows = np.column_stack([features, left_out])
    weights, bias = logistic(rows, len(first), PENALTY)
    scores = rows @ weights + bias
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
