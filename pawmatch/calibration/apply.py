"""The numbers fitted on validation data, and from logits to what may be said: probabilities, sets, scores.

Only arithmetic on fitted numbers happens here, for any number of images at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from annotated_types import Interval, Len, Predicate
from numpy.typing import NDArray

from pawmatch.strict import Number, Share, Text

MIN_TEMPERATURE, MAX_TEMPERATURE = 1e-3, 1e3
Temperature = Annotated[float, Interval(ge=MIN_TEMPERATURE, le=MAX_TEMPERATURE)]
# What a map of confidence multiplies log odds by, and adds to them.
Slope = Annotated[float, Interval(gt=0, le=100)]
Offset = Annotated[float, Interval(ge=-100, le=100)]
Floats = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]
Flags = NDArray[np.bool_]

TINY = 1e-12  # what rounding may cost a probability
MAX_LOG_ODDS = 30.0  # of a mapped confidence: further up, the others would vanish
MIN_RISE = 1e-4  # of a mapped confidence above 1 / classes, which takes an infinite temperature
MAX_SPREAD = 600.0  # of a row's logits over its temperature: further apart, the last label would vanish
MAX_STEPS = 100  # of Newton's method; it takes some ten
STEP_TOLERANCE = 1e-14
MAX_FEATURE = 12.0  # what a logarithm among the features of the unknown score is cut to


@dataclass(frozen=True)
class ScopeGate:
    """One linear test on the average-pooled feature map: does the image belong to the task at all?

    score = dot(weight, pooled) + bias; an image whose score is below `threshold` is out of scope.
    `fitted_on` says which images stood for "in" and "out".
    """

    weight: tuple[Number, ...]
    bias: Number
    threshold: Number
    fitted_on: Text


@dataclass(frozen=True)
class OutsideRule:
    """A test on the answer of the backbone's own ImageNet head: is the task's subject in the picture?

    `classes` are the indices, among the 1000 of ImageNet-1k, of those that show the subject; an image that
    gives them less than `threshold` of probability in all is outside.
    """

    classes: Annotated[tuple[int, ...], Len(1, 1_000)]
    threshold: Share
    fitted_on: Text


@dataclass(frozen=True)
class UnknownRule:
    """A linear score that is high for images of the known classes, low for those of any other class.

    score = dot(weights, `apply.unknown_features`) + bias + label_offsets[first label]. Below `threshold` the
    verdict is unknown; below `answer_threshold` a person should check. `label_offsets` has one number a
    label: some labels are what unknown classes are taken for.
    """

    weights: Annotated[tuple[Number, ...], Len(3, 4)]
    bias: Number
    label_offsets: tuple[Number, ...]
    threshold: Number
    answer_threshold: Number
    fitted_on: Text


@dataclass(frozen=True)
class LabelGroup:
    """Labels that look alike, as class indices; `name` is in the singular ("scent hound"), or empty."""

    name: Annotated[str, Len(0, 200), Predicate(str.isprintable)]
    labels: Annotated[tuple[int, ...], Len(2, 64)]


@dataclass(frozen=True)
class Calibration:
    """Everything fitted for one variant of a checkpoint; the defaults leave its logits as they are.

    `temperature` divides the logits (Guo et al. 2017, arXiv 1706.04599). `top_label` (a, b, c) then maps the
    likeliest label's probability, see `apply.with_top_label`; (1, 1, 0) leaves it as it is. Below
    `review_threshold` of confidence a person should check; `review_rule` says how it was chosen.
    `conformal_quantile` q makes the set {labels with confidence >= 1 - q} hold the truth 90 % of the time on
    data like the validation set (Sadinle et al. 2019, the LAC score). Where a second look was taken,
    `second_look_quantile` does, if it is given: so each exit of the cascade keeps the promise, as in Mondrian
    conformal prediction (Vovk et al. 2005, section 4.5). An image is outside if any of
    `scope_gates` says so, or the rule `outside`. A group is answered from `group_threshold` of confidence on.
    """

    temperature: Temperature = 1.0
    top_label: tuple[Slope, Slope, Offset] = (1.0, 1.0, 0.0)
    review_threshold: Share = 0.5
    review_rule: Text = "default: not fitted on any data"
    close_call_margin: Share = 0.1
    conformal_quantile: Share = 1.0
    second_look_quantile: Share | None = None
    scope_gates: tuple[ScopeGate, ...] = ()
    outside: OutsideRule | None = None
    unknown: UnknownRule | None = None
    groups: tuple[LabelGroup, ...] = ()
    group_threshold: Share = 1.0


def calibrated(logits: Floats, calibration: Calibration) -> Doubles:
    """Probabilities (..., classes) of logits (..., classes), by temperature and map of confidence."""
    return with_top_label(logits.astype(np.float64) / calibration.temperature, calibration.top_label)


def tempered(logits: Floats, temperature: float) -> Doubles:
    """Probabilities (..., classes) of logits (..., classes): softmax of logits / temperature."""
    return softmax(logits.astype(np.float64) / temperature)


def softmax(logits: Doubles) -> Doubles:
    """Probabilities (..., classes) of logits (..., classes)."""
    exp = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: Doubles = exp / exp.sum(axis=-1, keepdims=True)
    return probabilities


def with_top_label(logits: Doubles, top_label: tuple[float, float, float]) -> Doubles:
    """Probabilities (..., classes) of logits (..., classes) in which the likeliest label's p is mapped.

    It becomes sigmoid(a ln p - b ln(1 - p) + c) with (a, b, c) = `top_label`: beta calibration (Kull et al.
    2017) of the confidence (Gupta and Ramdas 2022), whose curve one temperature cannot bend. Each row gets
    the one temperature at which its softmax has that confidence, or comes nearest to it without making labels
    vanish. So all labels keep their order, and none that differ become equal. Rows in which several labels
    share the first place, so that no temperature takes them there, stay as they are.
    """
    classes = logits.shape[-1]
    if tuple(top_label) == Calibration.top_label or classes < 2:
        return softmax(logits)
    gaps = logits.max(axis=-1, keepdims=True) - logits  # how far each label lies below the likeliest
    first = np.arange(classes) == logits.argmax(axis=-1)[..., None]
    wanted = np.clip(
        _mapped_odds(gaps, first, top_label), -MAX_LOG_ODDS, np.log(classes / (1 + MIN_RISE) - 1)
    )
    spread = gaps.max(axis=-1, keepdims=True)
    ties = (gaps == 0).sum(axis=-1, keepdims=True) - 1
    with np.errstate(divide="ignore"):
        reachable = np.log(ties) < wanted
    # The log odds against the first label fall with the inverse temperature, ever more slowly: from the left,
    # Newton's method never steps too far.
    inverse = np.zeros_like(wanted)
    highest = MAX_SPREAD / np.where(spread > 0, spread, 1)
    for _ in range(MAX_STEPS):
        odds = np.where(first, 0, np.exp(-gaps * inverse))
        total = odds.sum(axis=-1, keepdims=True)
        fall = (gaps * odds).sum(axis=-1, keepdims=True) / total
        step = np.where(reachable, np.log(total) - wanted, 0) / np.where(reachable, fall, 1)
        inverse = np.minimum(inverse + step, highest)
        if np.abs(step).max() <= STEP_TOLERANCE * inverse.max():
            break
    return softmax(-gaps * np.where(reachable, inverse, 1))


def _mapped_odds(gaps: Doubles, first: Flags, top_label: tuple[float, float, float]) -> Doubles:
    """The log odds against the likeliest label, (..., 1), after the map of confidence."""
    a, b, c = top_label
    # The sum of the others, since 1 - p would round to 0 where they are few in a million million.
    odds = np.maximum(np.where(first, 0, np.exp(-gaps)).sum(axis=-1, keepdims=True), TINY)
    log_top = -np.log1p(odds)
    mapped: Doubles = -(a * log_top - b * (np.log(odds) + log_top) + c)
    return mapped


def candidate_sets(probabilities: Doubles, quantile: float | Doubles) -> Flags:
    """Which labels (N, classes) belong to each image's conformal set; none is empty.

    A label belongs if its score 1 - p is at most `quantile` (LAC, Sadinle et al. 2019), which is one number
    or one for each image, (N, 1). The most likely
    label is always kept: an empty answer helps nobody, and adding to a set cannot lower its coverage.
    """
    sets: Flags = 1 - probabilities <= quantile
    sets[range(len(sets)), probabilities.argmax(axis=1)] = True
    return sets


def scope_score(gate: ScopeGate, pooled: Floats) -> Doubles:
    """The gate's score (...) of average-pooled maps (..., C): higher means more like the task's images."""
    scores: Doubles = pooled.astype(np.float64) @ np.asarray(gate.weight) + gate.bias
    return scores


def scope_margin(gates: Sequence[ScopeGate], pooled: Floats) -> Doubles:
    """The least (...) of the gates' scores above their thresholds; negative means out of scope.

    Infinite where there is no gate. `pooled` is (..., C).
    """
    margins = [scope_score(gate, pooled) - gate.threshold for gate in gates]
    least: Doubles = np.min([np.full(pooled.shape[:-1], np.inf), *margins], axis=0)
    return least


def outside_mass(rule: OutsideRule, imagenet: Floats) -> Doubles:
    """The probability (...) of the rule's classes in all, from ImageNet probabilities (..., 1000)."""
    mass: Doubles = imagenet[..., list(rule.classes)].sum(axis=-1, dtype=np.float64)
    return mass


def own_share(imagenet: Floats, own: Sequence[int], subject: Sequence[int]) -> Doubles:
    """How much (...) of the subject's ImageNet probability lies on the labels' own classes, in (0, 1].

    `imagenet` is (..., 1000), `own` the classes that are labels, `subject` all that show the subject.
    """
    mine, all_of_it = (
        imagenet[..., list(classes)].sum(axis=-1, dtype=np.float64) for classes in (own, subject)
    )
    share: Doubles = np.clip((mine + TINY) / (all_of_it + TINY), TINY, 1)
    return share


def unknown_features(logits: Floats, probabilities: Doubles, share: Doubles | None) -> Doubles:
    """What the unknown score is made of, (..., 3), or (..., 4) with the `share` of `own_share`.

    In order: log odds of the first label's calibrated probability, largest logit, logsumexp of the logits
    (the energy score of Liu et al. 2020), and the logarithm of the share.
    """
    top = np.clip(probabilities.max(axis=-1), TINY, 1 - TINY)
    raw = logits.astype(np.float64)
    largest = raw.max(axis=-1)
    columns = [
        np.clip(np.log(top / (1 - top)), -MAX_FEATURE, MAX_FEATURE),
        largest,
        largest + np.log(np.exp(raw - largest[..., None]).sum(axis=-1)),
    ]
    if share is not None:
        columns.append(np.maximum(np.log(share), -MAX_FEATURE))
    return np.stack(columns, axis=-1)


def unknown_score(
    rule: UnknownRule, logits: Floats, probabilities: Doubles, share: Doubles | None
) -> Doubles:
    """The rule's score (...) of logits and calibrated probabilities (..., classes).

    A rule that was fitted with the `share` of `own_share` says nothing, infinity, where there is none.
    """
    if share is None and len(rule.weights) > 3:
        return np.full(logits.shape[:-1], np.inf)
    given = share if len(rule.weights) > 3 else None
    offsets = np.asarray(rule.label_offsets)[probabilities.argmax(axis=-1)]
    features = unknown_features(logits, probabilities, given)
    scores: Doubles = features @ np.asarray(rule.weights) + rule.bias + offsets
    return scores
