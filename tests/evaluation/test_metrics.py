"""Metrics, each against a value worked out by hand or by another way."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, log_loss, top_k_accuracy_score

from pawmatch.confidence import calibrated
from pawmatch.evaluation.metrics import (
    expected_calibration_error,
    macro_f1,
    negative_log_likelihood,
    top_k_accuracy,
    wilson_interval,
)


@pytest.fixture
def scores() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 7, 300)
    logits = rng.normal(size=(300, 7))
    logits[np.arange(300), labels] += 1
    return logits, labels


def test_agrees_with_scikit_learn(scores: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = scores
    for k in (1, 3):
        assert top_k_accuracy(logits, labels, k) == pytest.approx(top_k_accuracy_score(labels, logits, k=k))
    predicted = logits.argmax(axis=1)
    assert macro_f1(predicted, labels, 7) == pytest.approx(f1_score(labels, predicted, average="macro"))
    probabilities = calibrated(logits, 1.0)
    assert negative_log_likelihood(probabilities, labels) == pytest.approx(log_loss(labels, probabilities))


def test_top_k_of_more_than_all_is_one(scores: tuple[np.ndarray, np.ndarray]) -> None:
    assert top_k_accuracy(*scores, k=99) == 1


def test_macro_f1_counts_rare_classes_alike() -> None:
    labels = np.array([0] * 98 + [1] * 2)
    assert macro_f1(np.zeros(100, dtype=int), labels, 2) == pytest.approx((2 * 98 / 198 + 0) / 2)


def test_calibration_error_of_a_known_case() -> None:
    confidence = np.array([0.95] * 10 + [0.55] * 10)
    correct = np.array([True] * 9 + [False] + [True] * 3 + [False] * 7)
    expected = 0.5 * abs(0.95 - 0.9) + 0.5 * abs(0.55 - 0.3)
    assert expected_calibration_error(confidence, correct) == pytest.approx(expected)


def test_calibration_error_takes_the_ends() -> None:
    assert expected_calibration_error(np.array([0.0, 1.0]), np.array([False, True])) == 0


def test_wilson_interval_of_known_values() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)
    low, high = wilson_interval(50, 100)
    assert (round(low, 4), round(high, 4)) == (0.4038, 0.5962)
    assert wilson_interval(100, 100)[1] == pytest.approx(1)
