"""Fitting on all images, judging each by the half that it is not in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from pawmatch.calibration import measure
from pawmatch.calibration.apply import candidate_sets, softmax, tempered
from pawmatch.calibration.decide import Observed, judge, know
from pawmatch.calibration.fit import FEWEST_KEPT, Evidence, confidence_and_hits, fit_calibration
from pawmatch.calibration.measure import (
    Halves,
    by_class,
    figures,
    fit_and_measure,
    half_of_unknown,
    judge_halves,
    random_half,
)
from pawmatch.metrics import expected_calibration_error

NAMES = tuple("abcdef")
HALVINGS = measure.HALVINGS  # other tests have fewer


@pytest.fixture(scope="module", autouse=True)
def as_many_halvings_as_users_get() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "HALVINGS", HALVINGS)
        yield


def observed(logits: np.ndarray) -> Observed:
    return Observed(logits, logits.argmax(axis=1)[None])


def drawn(n: int, temperature: float, seed: int = 0) -> Evidence:
    """Logits that are `temperature` times too large for the labels drawn from them."""
    rng = np.random.default_rng(seed)
    true = rng.normal(size=(n, 6)) * 3
    labels = np.array([rng.choice(6, p=row) for row in softmax(true)])
    return Evidence(observed((true * temperature).astype(np.float32)), labels, NAMES)


def with_others(n: int, seed: int = 0) -> Evidence:
    """The same with images of unknown classes, which are less sure, and of another subject."""
    rng = np.random.default_rng(seed + 100)
    evidence = drawn(n, 1.0, seed)

    def seen(count: int, mean: float) -> np.ndarray:
        rows = np.zeros((count, 1000), dtype=np.float32)
        rows[:, 3] = rng.beta(10 * mean, 10 * (1 - mean), count)
        rows[:, 900] = 1 - rows[:, 3]
        return rows

    unknown, outside = (rng.normal(size=(count, 6)).astype(np.float32) * 1.5 for count in (n // 3, n // 4))
    return replace(
        evidence,
        own=replace(evidence.own, imagenet=seen(n, 0.8)),
        unknown=replace(observed(unknown), imagenet=seen(len(unknown), 0.8)),
        outside=replace(observed(outside), imagenet=seen(len(outside), 0.1)),
        own_classes=(3,),
        subject_classes=(3, 4),
    )


def judged(evidence: Evidence, target: float) -> Halves:
    return judge_halves(evidence, target=target, max_unknown=0.07)


@pytest.fixture(autouse=True)
def few_halvings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "HALVINGS", 6)


def test_the_fit_keeps_its_promises_on_new_images() -> None:
    fit = fit_calibration(drawn(4000, 3.0), target=0.9)
    fresh = drawn(4000, 3.0, seed=1)
    known = know(fit, fresh.own)
    found = judge(fit, known)
    _, correct = confidence_and_hits(known.probabilities, fresh.labels)
    assert 0.87 < correct[~found.flagged].mean() < 0.93
    assert 0.3 < (~found.flagged).mean() < 0.9
    assert 0.88 < found.sets[np.arange(4000), fresh.labels].mean() < 0.92


def test_unknown_and_outside_images_get_few_plain_answers() -> None:
    evidence, fresh = with_others(1500), with_others(1500, seed=1)
    fit = fit_calibration(evidence, target=0.9, max_unknown=0.1)
    assert fit.unknown is not None
    assert fit.unknown.answer_threshold >= fit.unknown.threshold
    assert len(fit.unknown.weights) == 4
    assert fresh.unknown is not None
    assert fresh.outside is not None
    own, unknown, outside = (
        judge(fit, know(fit, one, fresh.own_classes)) for one in (fresh.own, fresh.unknown, fresh.outside)
    )
    _, correct = confidence_and_hits(know(fit, fresh.own).probabilities, fresh.labels)
    assert correct[~own.flagged].mean() > 0.87
    assert (~own.flagged).mean() > 0.3
    assert (~unknown.flagged).mean() < 0.13
    assert own.outside.mean() < 0.03
    assert outside.outside.mean() > 0.9
    assert own.unknown.mean() < 0.07
    assert unknown.unknown.mean() > 2 * own.unknown.mean()


def test_no_image_is_judged_by_a_fit_that_it_took_part_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Telling one image's truth otherwise changes how others are judged, and not how it is."""
    monkeypatch.setattr(measure, "random_half", lambda labels, rng: rng.permutation(len(labels)) % 2 == 0)
    evidence = drawn(60, 2.0)
    evidence.own.logits[7] = 9 * np.eye(6)[evidence.labels[7]]
    first = judged(evidence, 0.7)
    evidence.labels[7] = (evidence.labels[7] + 1) % 6
    second = judged(evidence, 0.7)
    np.testing.assert_array_equal(second.probabilities[7], first.probabilities[7])
    np.testing.assert_array_equal(second.sets[7], first.sets[7])
    assert second.flagged[7] == first.flagged[7]
    moved = abs(second.probabilities - first.probabilities).max(axis=1)
    assert (np.delete(moved, 7) > 0.01).mean() > 0.5


def test_nor_is_an_image_of_an_unknown_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "random_half", lambda labels, rng: rng.permutation(len(labels)) % 2 == 0)
    evidence = with_others(90)
    assert evidence.unknown is not None
    first = judged(evidence, 0.7)
    evidence.unknown.logits[4] *= 40
    second = judged(evidence, 0.7)
    assert first.unknown_score is not None
    assert second.unknown_score is not None
    moved = second.unknown_score != first.unknown_score
    assert moved.mean() > 0.9
    evidence.unknown.logits[5:] *= 1.01
    third = judged(evidence, 0.7)
    assert third.unknown_score is not None
    assert third.unknown_score[4] != second.unknown_score[4]


def test_the_figures_do_not_hang_on_one_halving(monkeypatch: pytest.MonkeyPatch) -> None:
    """With other halvings, the judgement of few images changes less than between two single ones."""
    evidence = drawn(60, 2.0)

    def spread() -> float:
        found = []
        for seed in range(5):
            monkeypatch.setattr(measure, "SEED", seed)
            found.append(judged(evidence, 0.9).probabilities)
        return float(np.std(found, axis=0).mean())

    monkeypatch.setattr(measure, "HALVINGS", 12)
    many = spread()
    monkeypatch.setattr(measure, "HALVINGS", 1)
    assert many < spread() / 2


def test_halves_hold_as_many_of_each_class() -> None:
    labels = np.array([0] * 5 + [1] * 4 + [2] * 4 + [3])
    rng = np.random.default_rng(0)
    halves = [random_half(labels, rng) for _ in range(10)]
    for half in halves:
        assert half.sum() == 7
        both = np.bincount(labels[half], minlength=4), np.bincount(labels[~half], minlength=4)
        assert (abs(both[0] - both[1]) <= 1).all()
    assert len({half.tobytes() for half in halves}) > 5


def test_no_unknown_class_is_in_both_halves_where_classes_are_told() -> None:
    rng = np.random.default_rng(0)
    groups = np.arange(90) % 9
    for _ in range(5):
        half = half_of_unknown(groups, 90, rng)
        assert [set(half[groups == group]) for group in range(9)].count({np.True_}) == 5
        assert all(len(set(half[groups == group])) == 1 for group in range(9))
    assert half_of_unknown(None, 90, rng).sum() == 45


def test_judged_halves_are_calibrated_and_covered() -> None:
    evidence = drawn(2000, 3.0)
    found = judged(evidence, 0.9)
    confidence, correct = confidence_and_hits(found.probabilities, evidence.labels)
    assert expected_calibration_error(confidence, correct) < 0.04
    assert 0.87 < found.sets[np.arange(2000), evidence.labels].mean() < 0.93
    assert 0.86 < correct[~found.flagged].mean() < 0.94
    assert found.sets[np.arange(2000), found.probabilities.argmax(axis=1)].all()
    assert (found.sets == candidate_sets(found.probabilities, 0.9)).mean() > 0.5


def test_what_is_flagged_anyway_neither_counts_nor_comes_free() -> None:
    """Wrong answers that another reason flags leave room for a lower threshold."""
    evidence = drawn(2000, 1.0)
    wrong = evidence.own.logits.argmax(axis=1) != evidence.labels
    flagged = wrong & (np.arange(2000) % 10 != 0)
    plain = fit_calibration(evidence, target=0.9)
    evidence = replace(evidence, flagged=flagged)
    assert fit_calibration(evidence, target=0.9).review_threshold < plain.review_threshold - 0.1
    assert judged(evidence, 0.9).flagged[flagged].all()


def test_groups_hold_the_truth_as_often_as_promised() -> None:
    """Two families of three, whose members are often confused with each other."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 6, 3000)
    logits = rng.normal(size=(3000, 6))
    logits[labels < 3, :3] += 3
    logits[labels >= 3, 3:] += 3
    logits[np.arange(3000), labels] += 1.5
    evidence = Evidence(observed(logits), labels, NAMES)
    fit = fit_calibration(evidence)
    assert {(0, 1, 2), (3, 4, 5)} <= {group.labels for group in fit.groups}
    found = judged(evidence, 0.955)
    assert found.group_share > 0.1
    assert found.group_accuracy is not None
    assert found.group_accuracy > 0.93


def test_a_class_that_the_fit_has_not_seen_is_told_apart_less_well() -> None:
    """Each unknown class is taken for a label of its own, which a fit learns of those that it sees."""
    evidence = with_others(600)
    assert evidence.unknown is not None
    classes = evidence.unknown.logits.argmax(axis=1)
    figures_of_both = fit_and_measure(replace(evidence, unknown_groups=classes), target=0.9).metrics
    assert figures_of_both["unknown_class_auroc"] < figures_of_both["unknown_auroc"]
    assert figures_of_both["answered_unknown_class"] >= figures_of_both["answered_unknown"]
    assert "answered_unknown_class" not in fit_and_measure(evidence, target=0.9).metrics


def test_the_figures_say_what_was_promised() -> None:
    evidence = with_others(400)
    fitted = fit_and_measure(evidence, target=0.9)
    metrics = fitted.metrics
    assert metrics["unflagged_share"] == pytest.approx(1 - metrics["flagged"])
    assert metrics["unflagged_accuracy"] > 0.85
    assert metrics["unknown_images"] == 133
    assert metrics["answered_unknown"] < 0.15
    assert metrics["unknown_auroc"] > 0.6
    assert metrics["outside_caught"] > 0.9
    assert metrics["own_turned_away"] < 0.12
    assert metrics["nll"] < -np.log(tempered(np.zeros((1, 6)), 1.0))[0, 0]
    alone = figures(drawn(400, 1.0), judged(drawn(400, 1.0), 0.9))
    assert not {"answered_unknown", "unknown_auroc", "outside_caught"} & alone.keys()


def test_each_class_says_what_it_is_taken_for() -> None:
    labels, predicted = np.array([0, 0, 0, 2, 2, 2, 2]), np.array([0, 1, 2, 1, 1, 0, 2])
    assert by_class(predicted, labels, NAMES) == {
        "a": [3, 1, {"b": 1, "c": 1}],
        "c": [4, 1, {"b": 2, "a": 1}],
    }


def test_the_sets_of_either_exit_hold_the_truth_as_often_as_promised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One quantile for both holds it too often where one look was enough, too rarely where it was not."""
    monkeypatch.setattr(measure, "HALVINGS", 3)
    evidence, rng = drawn(800, 1.0), np.random.default_rng(1)
    doubted = rng.random(800) < 0.3
    labels = np.where(doubted & (rng.random(800) < 0.5), rng.integers(0, 6, 800), evidence.labels)
    evidence = replace(evidence, labels=labels)
    apart = replace(evidence, own=replace(evidence.own, doubted=doubted))
    found, together = fit_and_measure(apart), fit_and_measure(evidence)
    assert found.calibration.second_look_quantile is not None
    assert found.calibration.second_look_quantile > together.calibration.conformal_quantile
    assert found.metrics["second_looks"] == doubted.mean()
    assert found.metrics["coverage_of_90_first_look"] == pytest.approx(0.9, abs=0.03)
    assert found.metrics["coverage_of_90_second_look"] == pytest.approx(0.9, abs=0.03)
    held = together.halves.sets[np.arange(800), evidence.labels]
    assert held[doubted].mean() < 0.8
    assert together.calibration.second_look_quantile is None
    assert "second_looks" not in together.metrics


def test_an_exit_of_few_images_has_no_quantile_of_its_own() -> None:
    evidence = drawn(200, 1.0)
    doubted = np.arange(200) < FEWEST_KEPT - 1
    few = replace(evidence, own=replace(evidence.own, doubted=doubted))
    assert fit_calibration(few).conformal_quantile == fit_calibration(evidence).conformal_quantile
    assert fit_calibration(few).second_look_quantile is None
