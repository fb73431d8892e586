"""Judging by a checkpoint's own calibration, and by fits on halves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pawmatch.calibration import Calibration
from pawmatch.calibration.apply import tempered
from pawmatch.calibration.decide import Observed
from pawmatch.calibration.fit import Evidence, fit_calibration
from pawmatch.errors import BadOption
from pawmatch.evaluation.evaluate import Answers, judge, judge_by_halves, with_reasons_of
from pawmatch.metrics import expected_calibration_error
from tests.support.sets import candidate_set

NAMES = ("a", "b", "c", "d")
CALIBRATION = Calibration(
    temperature=2.0, review_threshold=0.5, close_call_margin=0.2, conformal_quantile=0.8
)


def answers(count: int = 120, classes: int = 4) -> tuple[Answers, np.ndarray]:
    """Answers three times as sure as they should be, and the truth; every fifth is out of scope."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(count, classes)).astype(np.float32)
    targets = np.array([rng.choice(classes, p=row) for row in tempered(logits, 1.0)])
    reasons = tuple(("out_of_scope", "low_confidence") if i % 5 == 0 else () for i in range(count))
    logits *= 3
    return Answers(np.arange(count), {"cnn": logits}, {}, logits.argmax(axis=1), reasons, ()), targets


def test_own_calibration_is_that_of_serving() -> None:
    given, _ = answers()
    logits = given.logits["cnn"]
    judged = judge(CALIBRATION, given, "cnn")
    np.testing.assert_array_equal(judged.probabilities, tempered(logits, 2.0))
    for row, members, low, close in zip(
        judged.probabilities,
        judged.sets,
        judged.reasons["low_confidence"],
        judged.reasons["close_call"],
        strict=True,
    ):
        best = sorted(row)[::-1]
        assert set(np.flatnonzero(members)) == set(candidate_set(row, 0.8))
        assert low == (best[0] < 0.5)
        assert close == (best[0] - best[1] < 0.2)


def test_halves_are_judged_by_fits_on_others() -> None:
    given, targets = answers(count=600)
    logits = given.logits["cnn"]
    judged = judge_by_halves(NAMES, given, "cnn", targets)
    flagged = np.array(["out_of_scope" in codes for codes in given.reasons])
    observed = Observed(logits, logits.argmax(axis=1)[None])
    fit = fit_calibration(Evidence(observed, targets, NAMES, flagged=flagged))
    np.testing.assert_allclose(judged.probabilities, tempered(logits, fit.temperature), atol=0.05)
    assert 2 < fit.temperature < 5
    confidence, correct = judged.probabilities.max(axis=1), judged.probabilities.argmax(axis=1) == targets
    before = tempered(logits, 1.0).max(axis=1)
    assert expected_calibration_error(confidence, correct) < expected_calibration_error(before, correct) / 2
    assert 0.8 < judged.sets[np.arange(len(targets)), targets].mean() <= 1


def test_too_few_images_for_halves_are_refused() -> None:
    given, targets = answers(count=19)
    with pytest.raises(BadOption, match=r"19 images are too few .* use --calibration own"):
        judge_by_halves(NAMES, given, "cnn", targets)


def test_reasons_follow_the_judgement() -> None:
    given, _ = answers(count=3)
    judged = judge(CALIBRATION, given, "cnn")
    judged = replace(
        judged, reasons={"low_confidence": np.array([0, 1, 0], bool), "close_call": np.array([0, 1, 0], bool)}
    )
    # Those that no calibration decides on stay.
    assert with_reasons_of(judged, given).reasons == (
        ("out_of_scope",),
        ("low_confidence", "close_call"),
        (),
    )
