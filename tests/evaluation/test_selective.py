"""Risk against coverage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pawmatch.metrics import risk_coverage

answers = st.lists(st.tuples(st.sampled_from([0.1, 0.4, 0.4001, 0.9]), st.booleans()), min_size=1)


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


@settings(max_examples=60, deadline=None)
@given(answers, st.randoms(use_true_random=False))
def test_order_of_equal_answers_does_not_matter(pairs: list[tuple[float, bool]], random: object) -> None:
    shuffled = pairs.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = (
        risk_coverage(np.array([c for c, _ in some]), np.array([r for _, r in some]))
        for some in (pairs, shuffled)
    )
    np.testing.assert_allclose(one.risk, other.risk)
    assert one.risk[-1] == pytest.approx(np.mean([not right for _, right in pairs]))


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
