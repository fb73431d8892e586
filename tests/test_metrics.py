"""Metrics, each against a value worked out by hand, or against another implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap as scipy_bootstrap
from scipy.stats import spearmanr
from sklearn.metrics import brier_score_loss, f1_score, log_loss, top_k_accuracy_score
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
)
from torchmetrics.functional.classification import binary_auroc

from pawmatch import metrics
from pawmatch.calibration.apply import tempered
from pawmatch.metrics import (
    auroc,
    bootstrap,
    brier_scores,
    calibration_bins,
    confusion_matrix,
    expected_calibration_error,
    macro_f1,
    mean,
    negative_log_likelihood,
    perfect_calibration_errors,
    rank_correlation,
    risk_coverage,
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


def test_macro_f1_counts_rare_classes_alike() -> None:
    labels = np.array([0] * 98 + [1] * 2)
    assert macro_f1(np.zeros(100, dtype=int), labels, 2) == pytest.approx((2 * 98 / 198 + 0) / 2)


def test_macro_f1_is_over_the_classes_of_the_folder() -> None:
    # Class 2 is answered once and has no image: it costs class 1 its recall, and counts no further.
    assert macro_f1(np.array([0, 0, 2]), np.array([0, 0, 1]), 120) == pytest.approx(0.5)


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


def test_mean_agrees_with_scipy() -> None:
    values = np.random.default_rng(3).exponential(size=80)
    theirs = scipy_bootstrap((values,), np.mean, method="basic", n_resamples=5000, rng=0).confidence_interval
    ours = mean(values)
    assert ours.value == values.mean()
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), abs=0.02)


def test_an_interval_holds_its_value_and_keeps_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "RESAMPLES", 100)
    rng = np.random.default_rng(0)
    confidence = rng.random(20)
    correct = rng.random(20) < confidence
    error = bootstrap(
        lambda rows: expected_calibration_error(confidence[rows], correct[rows]), 20, lowest=0, highest=1
    )
    assert 0 <= error.low <= error.value <= error.high <= 1


def test_intervals_hold_the_truth_about_as_often_as_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "RESAMPLES", 200)
    rng = np.random.default_rng(1)
    held = [(e := mean(rng.normal(1, 1, 50))).low <= 1 <= e.high for _ in range(120)]
    assert 0.87 <= np.mean(held) <= 0.99


def test_errors_are_those_that_perfect_models_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "RESAMPLES", 300)
    rng = np.random.default_rng(2)
    confidence = rng.uniform(0.2, 0.9, 150)
    shown = [expected_calibration_error(confidence, rng.random(150) < confidence) for _ in range(300)]
    errors = perfect_calibration_errors(confidence)
    assert errors.shape == (300,)
    assert np.quantile(errors, (0.1, 0.5, 0.9)) == pytest.approx(np.quantile(shown, (0.1, 0.5, 0.9)), rel=0.1)
    assert (perfect_calibration_errors(np.ones(10)) == 0).all()


some = st.lists(st.integers(-4, 4), min_size=1, max_size=30)


@settings(max_examples=40, deadline=None)
@given(some, some)
def test_auroc_agrees_with_torchmetrics_and_the_definition(own: list[int], other: list[int]) -> None:
    positive, negative = np.array(own, dtype=float), np.array(other, dtype=float)
    area = auroc(positive, negative)
    pairs = np.sign(positive[:, None] - negative[None]) / 2 + 0.5
    assert area == pytest.approx(pairs.mean())
    scores = torch.sigmoid(torch.from_numpy(np.concatenate([positive, negative])))
    target = torch.tensor([1] * len(own) + [0] * len(other))
    assert area == pytest.approx(float(binary_auroc(scores, target)), abs=1e-6)


def test_rank_correlation_agrees_with_scipy() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        one, other = rng.integers(0, 5, (8, 8)).astype(float), rng.random((8, 8))
        expected = spearmanr(one.ravel(), other.ravel()).statistic
        assert rank_correlation(one, other) == pytest.approx(expected)


def test_a_constant_map_agrees_with_none() -> None:
    assert rank_correlation(np.zeros((3, 3)), np.eye(3)) == 0
    assert rank_correlation(np.eye(3), np.eye(3) * 7) == pytest.approx(1)


def test_curve_of_a_known_case() -> None:
    curve = risk_coverage(np.array([0.5, 0.9, 0.7, 0.6]), np.array([False, True, False, True]))
    assert curve.coverage.tolist() == [0.25, 0.5, 0.75, 1]
    assert curve.risk.tolist() == [0, 1 / 2, 1 / 3, 1 / 2]
    assert curve.threshold.tolist() == [0.9, 0.7, 0.6, 0.5]
    assert curve.area == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)


def test_area_of_perfect_and_useless_confidence() -> None:
    correct = np.array([True] * 60 + [False] * 40)
    best = risk_coverage(np.linspace(1, 0, 100), correct).area
    worst = risk_coverage(np.linspace(0, 1, 100), correct).area
    none = risk_coverage(np.full(100, 0.5), correct).area
    assert none == pytest.approx(0.4)
    assert best < none < worst
    assert risk_coverage(np.array([0.3]), np.array([True])).area == 0


def test_ties_are_what_random_orders_give_on_average() -> None:
    confidence = np.array([0.9, 0.5, 0.5, 0.5])
    correct = np.array([True, False, True, True])
    orders = [[0, *rest] for rest in ([1, 2, 3], [2, 1, 3], [2, 3, 1])]
    averaged = np.mean([np.cumsum(~correct[order]) / np.arange(1, 5) for order in orders], axis=0)
    np.testing.assert_allclose(risk_coverage(confidence, correct).risk, averaged)


def test_thinning_keeps_the_end() -> None:
    rng = np.random.default_rng(0)
    curve = risk_coverage(rng.random(1000), rng.random(1000) < 0.5)
    thin = curve.thinned(50)
    assert len(thin.coverage) == 50
    assert (thin.coverage[-1], thin.risk[-1]) == (1, curve.risk[-1])
    assert len(curve.thinned(10**6).coverage) == 1000
