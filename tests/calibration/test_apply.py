"""From logits to probabilities, candidate sets, scope and the unknown score."""

from __future__ import annotations

import numpy as np
import pytest

from pawmatch.calibration import Calibration, OutsideRule, ScopeGate, UnknownRule
from pawmatch.calibration.apply import (
    MAX_LOG_ODDS,
    MAX_SPREAD,
    calibrated,
    candidate_sets,
    outside_mass,
    own_share,
    scope_margin,
    scope_score,
    softmax,
    tempered,
    unknown_score,
    with_top_label,
)

MAPS = ((0.7, 1.4, -0.2), (1.0, 1.0, -5.0), (5.0, 0.2, 0.0), (0.1, 8.0, 3.0))


def mapped(p: np.ndarray, top_label: tuple[float, float, float]) -> np.ndarray:
    """What the map of confidence makes of probabilities of the first label."""
    a, b, c = top_label
    score: np.ndarray = 1 / (1 + np.exp(-(a * np.log(p) - b * np.log(1 - p) + c)))
    return score


def rows_of(count: int, classes: int = 5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, classes)) * 2


def test_temperature_divides_the_logits() -> None:
    logits = np.array([[2.0, 0.0]], dtype=np.float32)
    expected = 1 / (1 + np.exp(-1.0))
    assert tempered(logits, 2.0)[0, 0] == pytest.approx(expected)


def test_huge_logits_do_not_overflow() -> None:
    probabilities = tempered(np.array([1e4, 0.0, -1e4], dtype=np.float32), 0.5)
    np.testing.assert_allclose(probabilities, [1, 0, 0])


@pytest.mark.parametrize("top_label", MAPS)
def test_the_first_choice_has_the_mapped_confidence(top_label: tuple[float, float, float]) -> None:
    logits = rows_of(500)
    probabilities = with_top_label(logits, top_label)
    wanted = mapped(softmax(logits).max(axis=1), top_label)
    # No finite temperature goes down to one in five, and far up the others would vanish.
    can_be = (wanted > 1.001 / 5) & (wanted < 1 - 2 * np.exp(-MAX_LOG_ODDS))
    can_be &= probabilities.min(axis=1) > np.exp(0.99 - MAX_SPREAD)
    assert can_be.mean() > 0.01
    np.testing.assert_allclose(probabilities.max(axis=1)[can_be], wanted[can_be], atol=1e-6)
    assert (probabilities.max(axis=1)[wanted < 1 / 5] < 1.001 / 5).all()


@pytest.mark.parametrize("top_label", MAPS)
def test_mapping_keeps_the_order_and_makes_no_ties(top_label: tuple[float, float, float]) -> None:
    logits = rows_of(500)
    probabilities = with_top_label(logits, top_label)
    np.testing.assert_array_equal(np.argsort(-probabilities, axis=1), np.argsort(-logits, axis=1))
    assert (np.diff(np.sort(probabilities, axis=1), axis=1) > 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


def test_each_row_has_one_temperature() -> None:
    """The logarithms of what comes out are the logits, scaled: how far apart the labels are stays."""
    logits = rows_of(50)
    logs = np.log(with_top_label(logits, (0.7, 1.4, -0.2)))
    scales = (logs - logs[:, :1])[:, 1:] / (logits - logits[:, :1])[:, 1:]
    np.testing.assert_allclose(scales, scales[:, :1].repeat(4, axis=1), rtol=1e-6)
    assert (scales > 0).all()
    assert scales.std() > 0.01


@pytest.mark.parametrize("top_label", [*MAPS, (100.0, 100.0, -100.0), (1e-3, 100.0, 100.0)])
def test_odd_rows_stay_finite(top_label: tuple[float, float, float]) -> None:
    np.testing.assert_allclose(with_top_label(np.zeros((1, 20_000)), top_label), 1 / 20_000)
    np.testing.assert_array_equal(with_top_label(np.array([[3.0]]), top_label), [[1.0]])
    np.testing.assert_allclose(
        with_top_label(np.array([[2.0, 2.0, 1.0]]), (0.1, 8.0, 3.0)), softmax(np.array([[2.0, 2.0, 1.0]]))
    )
    extreme = np.array([[1e4, 0.0, -1e4], [1e-6, 0.0, -1e4], [1e30, 1e29, 0.0]])
    probabilities = with_top_label(extreme, top_label)
    assert np.isfinite(probabilities).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert (probabilities.argmax(axis=1) == 0).all()


def test_a_calibration_is_temperature_and_then_the_map() -> None:
    logits = np.array([[2.0, 0.0, -1.0]], dtype=np.float32)
    plain = Calibration(temperature=2.0)
    np.testing.assert_array_equal(calibrated(logits, plain), tempered(logits, 2.0))
    bent = Calibration(temperature=2.0, top_label=(0.8, 1.2, -0.3))
    np.testing.assert_array_equal(
        calibrated(logits, bent), with_top_label(logits.astype(float) / 2, (0.8, 1.2, -0.3))
    )


def test_candidate_sets_hold_what_is_likely_enough_and_are_never_empty() -> None:
    probabilities = np.array([[0.2, 0.5, 0.3]])
    assert candidate_sets(probabilities, 0.75).tolist() == [[False, True, True]]
    assert candidate_sets(probabilities, 1.0).all()
    assert candidate_sets(probabilities, 0.1).tolist() == [[False, True, False]]


def test_the_strictest_gate_decides() -> None:
    gates = [
        ScopeGate(weight=(1.0, 0.0), bias=0.0, threshold=1.0, fitted_on="numbers"),
        ScopeGate(weight=(0.0, 1.0), bias=0.0, threshold=-1.0, fitted_on="numbers"),
    ]
    assert scope_margin(gates, np.array([3.0, 0.5], dtype=np.float32)) == pytest.approx(1.5)
    assert scope_margin(gates, np.array([3.0, -2.0], dtype=np.float32)) == pytest.approx(-1.0)
    assert scope_margin([], np.zeros(2, dtype=np.float32)) == float("inf")


def test_scope_score_is_linear_in_the_pooled_features() -> None:
    gate = ScopeGate(weight=(1.0, -2.0), bias=0.5, threshold=0.0, fitted_on="numbers")
    assert scope_score(gate, np.array([3.0, 1.5], dtype=np.float32)) == pytest.approx(3.0 - 2 * 1.5 + 0.5)


def test_outside_mass_and_own_share_are_sums_of_classes() -> None:
    imagenet = np.zeros((2, 1000), dtype=np.float32)
    imagenet[0, [10, 11, 12, 500]] = 0.4, 0.2, 0.2, 0.2
    imagenet[1, 500] = 1
    rule = OutsideRule(classes=(10, 11, 12), threshold=0.5, fitted_on="numbers")
    np.testing.assert_allclose(outside_mass(rule, imagenet), [0.8, 0], atol=1e-7)
    # Where nothing is of the subject, it is no fault of the labels.
    np.testing.assert_allclose(own_share(imagenet, (10, 11), rule.classes), [0.75, 1], atol=1e-6)


def test_the_unknown_score_is_linear_in_its_features() -> None:
    logits = np.array([[2.0, 1.0, 0.0], [0.0, 0.0, 3.0]], dtype=np.float32)
    probabilities = tempered(logits, 1.0)
    rule = UnknownRule((2.0, -1.0, 0.5, 3.0), 0.25, (0.1, 0.2, 0.3), 0.0, 0.0, "numbers")
    top = probabilities.max(axis=1)
    energy = np.log(np.exp(logits.astype(float)).sum(axis=1))
    expected = 2 * np.log(top / (1 - top)) - logits.max(axis=1) + 0.5 * energy + 3 * np.log([0.5, 0.9])
    expected += 0.25 + np.array([0.1, 0.3])
    share = np.array([0.5, 0.9])
    np.testing.assert_allclose(unknown_score(rule, logits, probabilities, share), expected)
    assert unknown_score(rule, logits[0], probabilities[0], share[0]) == pytest.approx(expected[0])
    assert np.isinf(unknown_score(rule, logits, probabilities, None)).all()
    extreme = np.array([[1e30, -1e30, 0.0]])
    assert np.isfinite(unknown_score(rule, extreme, tempered(extreme, 1.0), np.array([0.0 + 1e-12]))).all()
