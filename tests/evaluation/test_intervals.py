"""Intervals: against scipy's bootstrap, and by how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap

from pawmatch import metrics
from pawmatch.metrics import (
    Estimate,
    bootstrap,
    expected_calibration_error,
    mean,
    perfect_calibration_errors,
    share,
    wilson_interval,
)


def test_share_is_wilsons() -> None:
    hits = np.array([True] * 7 + [False] * 3)
    assert share(hits) == Estimate(0.7, *wilson_interval(7, 10))


def test_mean_agrees_with_scipy() -> None:
    values = np.random.default_rng(3).exponential(size=80)
    theirs = scipy_bootstrap((values,), np.mean, method="basic", n_resamples=5000, rng=0).confidence_interval
    ours = mean(values)
    assert ours.value == values.mean()
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), abs=0.02)


def test_the_same_data_give_the_same_interval() -> None:
    values = np.random.default_rng(0).random(30)
    assert mean(values) == mean(values)
    assert mean(np.array([2.0])) == Estimate(2.0, 2.0, 2.0)


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
