"""Metrics, each against a value worked out by hand, or against another implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, f1_score, log_loss, top_k_accuracy_score
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
)

from pawmatch.calibration.apply import tempered
from pawmatch.metrics import (
    brier_scores,
    calibration_bins,
    confusion_matrix,
    expected_calibration_error,
    macro_f1,
    negative_log_likelihood,
    top_k_accuracy,
    wilson_interval,
)

Scores = tuple[np.ndarray, np.ndarray]


def random_scores(seed: int, count: int, classes: int, skill: float = 1.0) -> Scores:
    """Logits (count, classes) that lean to the true labels (count,)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    logits = rng.normal(size=(count, classes))
    logits[np.arange(count), labels] += skill
    return logits, labels


any_scores = st.builds(
    random_scores,
    seed=st.integers(0, 10**6),
    count=st.integers(1, 60),
    classes=st.integers(2, 9),
    skill=st.sampled_from([-3.0, 0.0, 1.0, 8.0]),
)


@pytest.fixture
def scores() -> Scores:
    return random_scores(0, 300, 7)


def test_agrees_with_scikit_learn(scores: Scores) -> None:
    logits, labels = scores
    for k in (1, 3):
        assert top_k_accuracy(logits, labels, k) == pytest.approx(top_k_accuracy_score(labels, logits, k=k))
    predicted = logits.argmax(axis=1)
    assert macro_f1(predicted, labels, 7) == pytest.approx(f1_score(labels, predicted, average="macro"))
    probabilities = tempered(logits, 1.0)
    assert negative_log_likelihood(probabilities, labels) == pytest.approx(log_loss(labels, probabilities))
    expected = brier_score_loss(labels, probabilities, labels=range(7), scale_by_half=False)
    assert brier_scores(probabilities, labels).mean() == pytest.approx(expected)


@settings(max_examples=25, deadline=None)
@given(any_scores)
def test_agrees_with_torchmetrics(scores: Scores) -> None:
    logits, labels = scores
    count, classes = logits.shape
    target = torch.from_numpy(labels)
    probabilities = tempered(logits, 1.0)
    theirs = torch.from_numpy(probabilities)
    predicted = probabilities.argmax(axis=1)
    for k in (1, 2):
        accuracy = MulticlassAccuracy(classes, top_k=k, average="micro")(theirs, target)
        assert top_k_accuracy(probabilities, labels, k) == pytest.approx(float(accuracy))
    matrix = MulticlassConfusionMatrix(classes)(theirs, target).numpy()
    assert (confusion_matrix(predicted, labels, classes) == matrix).all()
    error = MulticlassCalibrationError(classes, n_bins=15)(theirs, target)
    ours = expected_calibration_error(probabilities.max(axis=1), predicted == labels)
    assert ours == pytest.approx(float(error), abs=1e-6)
    if len(set(labels)) == classes:
        f1 = MulticlassF1Score(classes, average="macro")(theirs, target)
        assert macro_f1(predicted, labels, classes) == pytest.approx(float(f1))
    assert len(labels) == count


@settings(max_examples=50, deadline=None)
@given(any_scores)
def test_brier_and_log_losses_are_in_range(scores: Scores) -> None:
    logits, labels = scores
    probabilities = tempered(logits * 100, 1.0)
    assert (brier_scores(probabilities, labels) >= -1e-12).all()
    assert (brier_scores(probabilities, labels) <= 2 + 1e-12).all()
    assert np.isfinite(negative_log_likelihood(probabilities, labels))


def test_top_k_of_more_than_all_is_one(scores: Scores) -> None:
    assert top_k_accuracy(*scores, k=99) == 1


def test_macro_f1_counts_rare_classes_alike() -> None:
    labels = np.array([0] * 98 + [1] * 2)
    assert macro_f1(np.zeros(100, dtype=int), labels, 2) == pytest.approx((2 * 98 / 198 + 0) / 2)


def test_macro_f1_is_over_the_classes_of_the_folder() -> None:
    # Class 2 is answered once and has no image: it costs class 1 its recall, and counts no further.
    assert macro_f1(np.array([0, 0, 2]), np.array([0, 0, 1]), 120) == pytest.approx(0.5)


def test_brier_of_a_known_case() -> None:
    probabilities = np.array([[1.0, 0.0], [0.5, 0.5], [1.0, 0.0]])
    assert brier_scores(probabilities, np.array([0, 0, 1])).tolist() == [0, 0.5, 2]


def test_calibration_error_of_a_known_case() -> None:
    confidence = np.array([0.95] * 10 + [0.55] * 10)
    correct = np.array([True] * 9 + [False] + [True] * 3 + [False] * 7)
    expected = 0.5 * abs(0.95 - 0.9) + 0.5 * abs(0.55 - 0.3)
    assert expected_calibration_error(confidence, correct) == pytest.approx(expected)


def test_calibration_error_takes_the_ends() -> None:
    assert expected_calibration_error(np.array([0.0, 1.0]), np.array([False, True])) == 0
    assert expected_calibration_error(np.array([]), np.array([], dtype=bool)) == 0


def test_bins_hold_every_image_once_and_their_upper_edge() -> None:
    bins = calibration_bins(np.array([0.0, 0.2, 0.21, 1.0]), np.array([True, False, True, True]), bins=5)
    assert bins.count.tolist() == [2, 1, 0, 0, 1]
    assert bins.accuracy[[0, 1, 4]].tolist() == [0.5, 1, 1]
    assert np.isnan(bins.accuracy[2])


def test_wilson_interval_of_known_values() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)
    low, high = wilson_interval(50, 100)
    assert (round(low, 4), round(high, 4)) == (0.4038, 0.5962)
    assert wilson_interval(100, 100)[1] == pytest.approx(1)
    assert all(0 <= wilson_interval(0, n)[0] < 1e-9 for n in range(1, 200))
    assert all(1 - 1e-9 < wilson_interval(n, n)[1] <= 1 for n in range(1, 200))
