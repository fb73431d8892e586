"""From answers to reports."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from pawmatch.calibration import Calibration
from pawmatch.calibration.apply import tempered
from pawmatch.evaluation.evaluate import Answers, judge, measure_review, measure_variant
from pawmatch.evaluation.report import Evaluation
from tests.support.sets import candidate_set

LABELS = ("a", "b", "c")
# Four images of a, b, c, c; the third is taken for a, surely.
LOGITS = np.array([[3, 0, 0], [0, 2, 0], [6, 0, 1], [0, 0, 1]], dtype=np.float32)
TARGETS = np.array([0, 1, 2, 2])
ANSWERS = Answers(
    rows=np.arange(4),
    logits={"cnn": LOGITS},
    scope={},
    chosen=LOGITS.argmax(axis=1),
    reasons=((), (), ("close_call",), ("low_confidence", "close_call")),
    unreadable=(),
)
CALIBRATION = Calibration(temperature=2.0, review_threshold=0.55, conformal_quantile=0.6)


def test_a_variant_of_known_answers(few_resamples: None) -> None:
    report = measure_variant("cnn", CALIBRATION, LABELS, ANSWERS, TARGETS, judge(CALIBRATION, ANSWERS, "cnn"))
    probabilities = tempered(LOGITS, 2.0)
    sets = [candidate_set(row, 0.6) for row in probabilities]
    assert report.top1.value == 0.75
    assert report.top5.value == 1
    assert report.temperature == 2
    assert report.nll.value == pytest.approx(-np.log(probabilities[range(4), TARGETS]).mean())
    assert report.nll_before.value == pytest.approx(-np.log(tempered(LOGITS, 1)[range(4), TARGETS]).mean())
    assert report.set_coverage.value == np.mean([t in s for t, s in zip(TARGETS, sets, strict=True)])
    assert report.set_size.value == np.mean([len(s) for s in sets])
    # Confidences 0.69, 0.58, 0.88 and 0.45: the last one is below the threshold.
    assert report.kept.value == 0.75
    assert report.kept_accuracy is not None
    assert report.kept_accuracy.value == pytest.approx(2 / 3)
    assert [(pair.truth, pair.answer) for pair in report.confusions] == [("c", "a")]
    assert report.risk_coverage[0].risk == 1
    assert report.scope is None
    assert sum(entry.count for entry in report.reliability) == 4


def test_only_an_error_beyond_chance_is_improbable(few_resamples: None) -> None:
    """Labels drawn from the very probabilities, and the same answers made five times as sure."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(300, 3)).astype(np.float32)
    targets = np.array([rng.choice(3, p=row) for row in tempered(logits, 1.0)])
    answers = replace(ANSWERS, rows=np.arange(300), logits={"cnn": logits}, reasons=((),) * 300)
    for temperature, is_rare in ((1.0, False), (0.2, True)):
        own = Calibration(temperature=temperature)
        report = measure_variant("cnn", own, LABELS, answers, targets, judge(own, answers, "cnn"))
        assert (report.ece_p_value < 0.05) == is_rare
        assert (report.ece.value > 2 * report.ece_floor) == is_rare


def test_none_above_the_threshold(few_resamples: None) -> None:
    strict = replace(CALIBRATION, review_threshold=1.0)
    report = measure_variant("cnn", strict, LABELS, ANSWERS, TARGETS, judge(strict, ANSWERS, "cnn"))
    assert report.kept.value == 0
    assert report.kept_accuracy is None


def test_the_review_flag() -> None:
    report = measure_review(ANSWERS, TARGETS)
    assert report.flagged.value == 0.5
    assert {code: share.value for code, share in report.reasons.items()} == {
        "close_call": 0.5,
        "low_confidence": 0.25,
    }
    assert report.unflagged_accuracy is not None
    assert report.unflagged_accuracy.value == 1
    assert report.flagged_accuracy is not None
    assert report.flagged_accuracy.value == 0.5
    assert report.outside_flagged is None
    unflagged = measure_review(replace(ANSWERS, reasons=((),) * 4), TARGETS, ANSWERS)
    assert unflagged.flagged_accuracy is None
    assert unflagged.outside_flagged is not None
    assert unflagged.outside_flagged.value == 0.5


def test_scope_against_another_folder(made_up: Callable[..., Evaluation]) -> None:
    scope = made_up().variants["cnn"].scope
    assert scope is not None
    # Scores of two normal distributions, two standard deviations apart: 0.921 in the limit.
    assert 0.8 < scope.auroc.value < 1
    assert scope.own_flagged.value < 0.35 < 0.65 < scope.outside_flagged.value
    assert scope.auroc.low < scope.auroc.value < scope.auroc.high


def test_the_json_holds_every_report(made_up: Callable[..., Evaluation]) -> None:
    evaluation = made_up()
    values = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    assert values["variants"]["cnn"]["top1"]["value"] == evaluation.variants["cnn"].top1.value
    assert len(values["variants"]["cnn"]["reliability"]) == 15
    assert values["review"]["reasons"]["close_call"]["low"] > 0
    assert evaluation.leading.variant == "cnn_transformer_mfe"
    assert made_up(variants=("cnn",)).leading.variant == "cnn"
