"""The numbers, fitted on validation data, that turn a model's logits into confidence and a review flag."""

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
class Calibration:
    """Temperature, review rule, conformal quantile and scope gate of one checkpoint.

    `temperature` divides the logits (Guo et al. 2017, arXiv 1706.04599). `top_label` (a, b, c) then maps the
    likeliest label's probability, see `confidence.with_top_label`; (1, 1, 0) leaves it as it is. Below
    `review_threshold` of confidence a person should check; `review_rule` says how it was chosen.
    `conformal_quantile` q makes the set {labels with confidence >= 1 - q} hold the truth 90 % of the time on
    data like the validation set (Sadinle et al. 2019, the LAC score). An image is out of scope if any of
    `scope_gates` says so.
    """

    temperature: float = 1.0
    top_label: tuple[float, float, float] = (1.0, 1.0, 0.0)
    review_threshold: float = 0.5
    review_rule: str = "default: not fitted on any data"
    close_call_margin: float = 0.1
    conformal_quantile: float = 1.0
    scope_gates: tuple[ScopeGate, ...] = ()
