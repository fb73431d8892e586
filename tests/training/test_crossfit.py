"""Fitting on all images, judging each by the half that it is not in."""

import numpy as np

from pawmatch.confidence import tempered
from pawmatch.evaluation.metrics import expected_calibration_error
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
    probabilities = tempered(fresh, fit.temperature)
    confidence, correct = confidence_and_hits(probabilities, truth)
    kept = (confidence >= fit.review_threshold) & ~close_calls(probabilities, fit.close_call_margin)
    assert 0.87 < correct[kept].mean() < 0.93
    assert 0.3 < kept.mean() < 0.9
    sets = 1 - probabilities <= fit.conformal_quantile
    assert 0.88 < sets[np.arange(4000), truth].mean() < 0.92


def temperatures(logits: np.ndarray) -> np.ndarray:
    """The temperature (60,) that each of 60 images is judged with."""
    probabilities = judge_halves(logits, drawn(60, 2.0)[1], NONE[:60], target=0.9).probabilities
    ratio: np.ndarray = np.ptp(logits, axis=1) / np.ptp(np.log(probabilities), axis=1)
    return ratio


def test_no_image_is_judged_by_a_fit_that_it_took_part_in() -> None:
    """An image so wrong that it changes every fit it is in changes how others are judged, not itself."""
    logits, labels = drawn(60, 2.0)
    before = temperatures(logits)
    logits[7] = -20 * np.eye(6)[labels[7]]
    after = temperatures(logits)
    np.testing.assert_allclose(after[7], before[7], rtol=1e-4)
    assert (np.delete(after, 7) > 1.05 * np.delete(before, 7)).mean() > 0.9


def test_the_figures_do_not_hang_on_one_halving() -> None:
    """Fits on 30 images differ; the medians by which images are judged hardly do."""
    logits, labels = drawn(60, 2.0)
    rng = np.random.default_rng(5)
    thirties = [rng.permutation(60)[:30] for _ in range(20)]
    single = [fit_calibration(logits[rows], labels[rows], NONE[:30], target=0.9) for rows in thirties]
    found = temperatures(logits)
    assert np.ptp(found) < np.ptp([fit.temperature for fit in single]) / 2
    of_all = fit_calibration(logits, labels, NONE[:60], target=0.9).temperature
    assert abs(np.median(found) / of_all - 1) < 0.15


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
