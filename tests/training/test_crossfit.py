"""Fitting on all images, judging each by the half that it is not in."""

import numpy as np
import pytest

from pawmatch.confidence import calibrated, tempered
from pawmatch.evaluation.metrics import expected_calibration_error
from pawmatch.training import crossfit
from pawmatch.training.crossfit import (
    close_calls,
    confidence_and_hits,
    fit_calibration,
    judge_halves,
    random_half,
)


def drawn(n: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are `temperature` times too large for the labels drawn from them."""
    rng = np.random.default_rng(seed)
    true = rng.normal(size=(n, 6)) * 3
    labels = np.array([rng.choice(6, p=row) for row in tempered(true.astype(np.float32), 1.0)])
    return (true * temperature).astype(np.float32), labels


NONE = np.zeros(4000, dtype=bool)


def test_the_fit_keeps_its_promises_on_new_images() -> None:
    logits, labels = drawn(4000, 3.0)
    fit = fit_calibration(logits, labels, NONE, target=0.9)
    fresh, truth = drawn(4000, 3.0, seed=1)
    probabilities = calibrated(fresh, fit)
    confidence, correct = confidence_and_hits(probabilities, truth)
    kept = (confidence >= fit.review_threshold) & ~close_calls(probabilities, fit.close_call_margin)
    assert 0.87 < correct[kept].mean() < 0.93
    assert 0.3 < kept.mean() < 0.9
    sets = 1 - probabilities <= fit.conformal_quantile
    assert 0.88 < sets[np.arange(4000), truth].mean() < 0.92


def test_no_image_is_judged_by_a_fit_that_it_took_part_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Telling one image's truth otherwise changes how others are judged, and not how it is."""
    monkeypatch.setattr(crossfit, "random_half", lambda labels, rng: rng.permutation(len(labels)) % 2 == 0)
    logits, labels = drawn(60, 2.0)
    logits[7] = 9 * np.eye(6)[labels[7]]
    first = judge_halves(logits, labels, NONE[:60], target=0.7)
    labels[7] = (labels[7] + 1) % 6
    second = judge_halves(logits, labels, NONE[:60], target=0.7)
    np.testing.assert_array_equal(second.probabilities[7], first.probabilities[7])
    np.testing.assert_array_equal(second.sets[7], first.sets[7])
    assert second.below_threshold[7] == first.below_threshold[7]
    moved = abs(second.probabilities - first.probabilities).max(axis=1)
    assert (np.delete(moved, 7) > 0.01).mean() > 0.8


def test_the_figures_do_not_hang_on_one_halving(monkeypatch: pytest.MonkeyPatch) -> None:
    """With other halvings, the judgement of few images changes less than between two single ones."""
    logits, labels = drawn(60, 2.0)

    def spread() -> float:
        judged = []
        for seed in range(6):
            monkeypatch.setattr(crossfit, "SEED", seed)
            judged.append(judge_halves(logits, labels, NONE[:60], target=0.9).probabilities)
        return float(np.std(judged, axis=0).mean())

    many = spread()
    monkeypatch.setattr(crossfit, "HALVINGS", 1)
    assert many < spread() / 3


def test_halves_hold_as_many_of_each_class() -> None:
    labels = np.array([0] * 5 + [1] * 4 + [2] * 4 + [3])
    rng = np.random.default_rng(0)
    halves = [random_half(labels, rng) for _ in range(10)]
    for half in halves:
        assert half.sum() == 7
        both = np.bincount(labels[half], minlength=4), np.bincount(labels[~half], minlength=4)
        assert (abs(both[0] - both[1]) <= 1).all()
    assert len({half.tobytes() for half in halves}) > 5


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
