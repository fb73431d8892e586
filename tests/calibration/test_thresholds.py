"""Thresholds that keep a promise."""

import numpy as np
import pytest

from pawmatch.calibration.fit import FEWEST_KEPT, answer_thresholds, good_prefix


def test_good_prefix_keeps_the_longest_good_prefix() -> None:
    confidence = np.linspace(1, 0, 100)
    correct = np.arange(100) < 50
    threshold = good_prefix(confidence, correct, 0.8)
    kept = confidence >= threshold
    assert correct[kept].mean() >= 0.8
    # 50 right answers of 61, and one more wrong one than there is: 50 / 62. The next would be 50 / 63.
    assert kept.sum() == 61


def test_good_prefix_flags_everything_when_nothing_is_good_enough() -> None:
    assert good_prefix(np.linspace(1, 0, 50), np.zeros(50, dtype=bool), 0.8) == 1.0
    few = np.zeros(50, dtype=bool)
    few[: FEWEST_KEPT // 2] = True
    assert good_prefix(np.linspace(1, 0, 50), few, 0.9) == 1.0


def kept(values: tuple[np.ndarray, np.ndarray], pair: tuple[float, float]) -> np.ndarray:
    both: np.ndarray = (values[0] >= pair[0]) & (values[1] >= pair[1])
    return both


@pytest.mark.parametrize(("target", "most"), [(0.8, 5), (0.8, 60), (0.9, 20), (0.6, 200)])
def test_no_other_pair_of_thresholds_keeps_more(target: float, most: int) -> None:
    rng = np.random.default_rng(0)
    own, unknown = (tuple(rng.normal(mean, 1, (2, 150))) for mean in (0.7, 0.0))
    correct = rng.random(150) < 1 / (1 + np.exp(-2 * own[0]))
    pair = answer_thresholds(own, correct, unknown, target=target, max_unknown=most)
    assert pair is not None
    best = 0
    for one in own[0]:
        for other in own[1]:
            mine = kept(own, (one, other))
            is_good = correct[mine].sum() >= target * (mine.sum() + 1) and mine.sum() >= FEWEST_KEPT
            if is_good and kept(unknown, (one, other)).sum() <= most:
                best = max(best, int(mine.sum()))
    mine = kept(own, pair)
    assert mine.sum() == best > FEWEST_KEPT
    assert correct[mine].mean() >= target
    assert kept(unknown, pair).sum() <= most


def test_promises_that_cannot_be_kept() -> None:
    own = (np.linspace(0, 1, 50), np.zeros(50))
    nothing_right = np.zeros(50, dtype=bool)
    assert answer_thresholds(own, nothing_right, own, target=0.9, max_unknown=50) is None
    assert answer_thresholds(own, ~nothing_right, own, target=0.9, max_unknown=10) is None
    none = (np.zeros(0), np.zeros(0))
    assert answer_thresholds(none, np.zeros(0, dtype=bool), own, target=0.9, max_unknown=50) is None
