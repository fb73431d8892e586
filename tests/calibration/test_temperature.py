"""Fitting temperature, map of confidence and conformal quantile."""

import numpy as np
import pytest

from pawmatch.calibration.apply import MAX_TEMPERATURE, MIN_TEMPERATURE, tempered, with_top_label
from pawmatch.calibration.fit import (
    conformal_quantile,
    fit_temperature,
    fit_top_label,
)
from tests.support.sets import candidate_set


def drawn(n: int, classes: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `temperature` times too large for the labels drawn from them."""
    rng = np.random.default_rng(seed)
    true = rng.normal(size=(n, classes)) * 2
    labels = np.array([rng.choice(classes, p=row) for row in tempered(true.astype(np.float32), 1.0)])
    return (true * temperature).astype(np.float32), labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_temperature_is_recovered(temperature: float) -> None:
    logits, labels = drawn(4000, 8, temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.08)


def test_the_map_of_confidence_is_recovered() -> None:
    """First choices that are right as often as a known map says, and a fit to the answers alone."""
    rng = np.random.default_rng(0)
    true = (0.7, 1.6, -0.4)
    rows = rng.dirichlet(np.full(6, 0.4), size=20_000)
    right = rng.random(len(rows)) < with_top_label(np.log(rows), true).max(axis=1)
    found = with_top_label(np.log(rows), fit_top_label(rows.max(axis=1), right)).max(axis=1)
    before = abs(rows.max(axis=1) - with_top_label(np.log(rows), true).max(axis=1)).mean()
    after = abs(found - with_top_label(np.log(rows), true).max(axis=1)).mean()
    assert before > 0.05
    assert after < 0.01


def test_few_images_bend_confidence_little() -> None:
    """Five right answers out of five would ask for no doubt at all."""
    rows = np.tile([0.6, 0.3, 0.1], (5, 1))
    mapped = with_top_label(np.log(rows), fit_top_label(rows.max(axis=1), np.ones(5, dtype=bool)))
    assert 0.6 < mapped[0, 0] < 0.95


def test_conformal_sets_cover_new_data() -> None:
    logits, labels = drawn(2000, 8, 1.0)
    quantile = conformal_quantile(tempered(logits, 1.0), labels)
    fresh, truth = drawn(4000, 8, 1.0, seed=1)
    probabilities = tempered(fresh, 1.0)
    pairs = zip(probabilities, truth, strict=True)
    covered = [label in candidate_set(row, quantile) for row, label in pairs]
    assert 0.88 < np.mean(covered) < 0.92


def test_conformal_quantile_uses_the_finite_sample_rank() -> None:
    truth = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    probabilities = np.stack([truth, 1 - truth], axis=1)
    labels = np.zeros(9, dtype=np.int64)
    # The rank is ceil(10 * 0.8), the eighth of nine.
    assert conformal_quantile(probabilities, labels, coverage=0.8) == pytest.approx(0.8)
    assert conformal_quantile(probabilities[:3], labels[:3]) == 1.0


def test_the_temperature_of_a_model_that_knows_nothing_or_everything_is_one_that_a_checkpoint_holds() -> None:
    labels = np.array([0, 1, 0, 1])
    wrong = np.array([[0, 9], [9, 0], [0, 9], [9, 0]], dtype=np.float32)
    assert fit_temperature(wrong, labels) == MAX_TEMPERATURE
    assert MIN_TEMPERATURE <= fit_temperature(-wrong, labels) < 1
