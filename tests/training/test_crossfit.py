"""Fitting on all images, judging each by the half that it is not in."""

import numpy as np

from pawmatch.confidence import calibrated
from pawmatch.evaluation.metrics import expected_calibration_error
from pawmatch.training.crossfit import (
    close_calls,
    confidence_and_hits,
    fit_calibration,
    judge_halves,
)


def drawn(n: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `temperature` times too large for the labels drawn from them."""
    rng = np.random.default_rng(seed)
    true = rng.normal(size=(n, 6)) * 3
    labels = np.array([rng.choice(6, p=row) for row in calibrated(true.astype(np.float32), 1.0)])
    return (true * temperature).astype(np.float32), labels


NONE = np.zeros(4000, dtype=bool)


def test_the_fit_keeps_its_promises_on_new_images() -> None:
    logits, labels = drawn(4000, 3.0)
    fit = fit_calibration(logits, labels, NONE, target=0.9)
    fresh, truth = drawn(4000, 3.0, seed=1)
    probabilities = calibrated(fresh, fit.temperature)
    confidence, correct = confidence_and_hits(probabilities, truth)
    kept = (confidence >= fit.review_threshold) & ~close_calls(probabilities, fit.close_call_margin)
    assert 0.87 < correct[kept].mean() < 0.93
    assert 0.3 < kept.mean() < 0.9
    sets = 1 - probabilities <= fit.conformal_quantile
    assert 0.88 < sets[np.arange(4000), truth].mean() < 0.92


def test_each_half_is_judged_by_the_other() -> None:
    """The odd images are overconfident, the even ones are not: each half gets the other's temperature."""
    logits, labels = drawn(4000, 1.0)
    logits[1::2] *= 4
    judged = judge_halves(logits, labels, NONE, target=0.9)
    expected = calibrated(logits[1::2], 1.0)
    np.testing.assert_allclose(judged.probabilities[1::2], expected, atol=0.03)
    np.testing.assert_allclose(judged.probabilities[::2], calibrated(logits[::2], 4.0), atol=0.03)


def test_judged_halves_are_calibrated_and_covered() -> None:
    logits, labels = drawn(4000, 3.0)
    judged = judge_halves(logits, labels, NONE, target=0.9)
    confidence, correct = confidence_and_hits(judged.probabilities, labels)
    assert expected_calibration_error(confidence, correct) < 0.03
    assert 0.88 < judged.sets[np.arange(4000), labels].mean() < 0.92
    assert 0.87 < correct[~judged.flagged].mean() < 0.93
    assert judged.sets[np.arange(4000), judged.probabilities.argmax(axis=1)].all()


def test_what_is_flagged_anyway_neither_counts_nor_comes_free() -> None:
    """Wrong answers that another reason flags leave room for a lower threshold."""
    logits, labels = drawn(4000, 1.0)
    wrong = logits.argmax(axis=1) != labels
    flagged = wrong & (np.arange(4000) % 10 != 0)
    fit = fit_calibration(logits, labels, flagged, target=0.9)
    assert fit.review_threshold < fit_calibration(logits, labels, NONE, target=0.9).review_threshold - 0.1
    judged = judge_halves(logits, labels, flagged, target=0.9)
    assert judged.flagged[flagged].all()


def test_close_calls() -> None:
    rows = np.array([[0.5, 0.45, 0.05], [0.6, 0.3, 0.1]])
    assert close_calls(rows, 0.1).tolist() == [True, False]
    assert close_calls(np.ones((2, 1)), 0.1).tolist() == [False, False]
