"""The numbers, fitted on validation data, that turn a model's logits into confidence and a verdict."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ScopeGate:
    """One linear test on the average-pooled feature map: does the image belong to the task at all?

    score = dot(weight, pooled) + bias; an image whose score is below `threshold` is out of scope.
    `fitted_on` says which images stood for "in" and "out".
    """

    weight: tuple[float, ...]
    bias: float
    threshold: float
    fitted_on: str


@dataclass(frozen=True)
class OutsideRule:
    """A test on the answer of the backbone's own ImageNet head: is the task's subject in the picture?

    `classes` are the indices, among the 1000 of ImageNet-1k, of those that show the subject; an image that
    gives them less than `threshold` of probability in all is outside.
    """

    classes: tuple[int, ...]
    threshold: float
    fitted_on: str


@dataclass(frozen=True)
class UnknownRule:
    """A linear score that is high for images of the known classes, low for those of any other class.

    score = dot(weights, `apply.unknown_features`) + bias + label_offsets[first label]. Below `threshold` the
    verdict is unknown; below `answer_threshold` a person should check. `label_offsets` has one number a
    label: some labels are what unknown classes are taken for.
    """

    weights: tuple[float, ...]
    bias: float
    label_offsets: tuple[float, ...]
    threshold: float
    answer_threshold: float
    fitted_on: str


@dataclass(frozen=True)
class LabelGroup:
    """Labels that look alike, as class indices; `name` is in the singular ("scent hound"), or empty."""

    name: str
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Calibration:
    """Everything fitted for one variant of a checkpoint; the defaults leave its logits as they are.

    `temperature` divides the logits (Guo et al. 2017, arXiv 1706.04599). `top_label` (a, b, c) then maps the
    likeliest label's probability, see `apply.with_top_label`; (1, 1, 0) leaves it as it is. Below
    `review_threshold` of confidence a person should check; `review_rule` says how it was chosen.
    `conformal_quantile` q makes the set {labels with confidence >= 1 - q} hold the truth 90 % of the time on
    data like the validation set (Sadinle et al. 2019, the LAC score). An image is outside if any of
    `scope_gates` says so, or the rule `outside`. A group is answered from `group_threshold` of confidence on.
    """

    temperature: float = 1.0
    top_label: tuple[float, float, float] = (1.0, 1.0, 0.0)
    review_threshold: float = 0.5
    review_rule: str = "default: not fitted on any data"
    close_call_margin: float = 0.1
    conformal_quantile: float = 1.0
    scope_gates: tuple[ScopeGate, ...] = ()
    outside: OutsideRule | None = None
    unknown: UnknownRule | None = None
    groups: tuple[LabelGroup, ...] = ()
    group_threshold: float = 1.0
