"""Fitting temperature, map of confidence, conformal quantile, thresholds, and rules for what has no label."""

import numpy as np
import pytest

from pawmatch.calibration import ScopeGate
from pawmatch.calibration.apply import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    candidate_sets,
    outside_mass,
    scope_score,
    softmax,
    tempered,
    unknown_score,
    with_top_label,
)
from pawmatch.calibration.fit import (
    ENOUGH_CAUGHT,
    FEWEST_KEPT,
    answer_thresholds,
    conformal_quantile,
    fit_outside_rule,
    fit_scope_gate,
    fit_scope_gates,
    fit_temperature,
    fit_top_label,
    fit_unknown_rule,
    good_prefix,
    label_log_ratio,
    shares_of,
    threshold_for,
)
from pawmatch.metrics import auroc


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
    covered = candidate_sets(probabilities, quantile)[np.arange(4000), truth]
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
    assert fit_temperature(wrong, labels) == pytest.approx(MAX_TEMPERATURE, rel=1e-4)
    assert MIN_TEMPERATURE <= fit_temperature(-wrong, labels) < 1


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


def test_scope_gate_tells_two_kinds_apart_and_flags_the_share_asked_for() -> None:
    rng = np.random.default_rng(0)
    inside = rng.normal(size=(500, 6)).astype(np.float32)
    outside = rng.normal(size=(200, 6)).astype(np.float32)
    outside[:, 0] += 4
    held_out = rng.normal(size=(1000, 6)).astype(np.float32)
    gate = fit_scope_gate(inside, outside, held_out, flagged=0.03, penalty=1e-3, fitted_on="numbers")

    def passed(rows: np.ndarray, gate: ScopeGate = gate) -> float:
        return float(np.mean([scope_score(gate, row) >= gate.threshold for row in rows]))

    assert passed(held_out) == pytest.approx(0.97, abs=0.002)
    assert passed(outside) < 0.1


@pytest.mark.parametrize(
    ("corner_axis", "tile_axis", "gates", "turned_away"),
    [(1, 2, 3, 0.02), (1, 4, 2, 0.025), (3, 4, 1, 0.045)],
)
def test_a_gate_against_stand_ins_stays_only_where_it_catches_images_from_outside(
    corner_axis: int, tile_axis: int, gates: int, turned_away: float
) -> None:
    rng = np.random.default_rng(1)
    inside, outside, corners, tiles, held_out = (
        rng.normal(size=(size, 6)).astype(np.float32) for size in (500, 200, 400, 400, 1000)
    )
    outside[:, 0] += 4
    outside[:100, 1] += 4
    outside[100:, 2] += 4
    corners[:, corner_axis] += 6
    tiles[:, tile_axis] += 6
    fitted = fit_scope_gates(inside, outside, {"corners of": corners, "scrambled": tiles}, held_out)
    assert len(fitted) == gates
    assert all("400 corners of" in gate.fitted_on for gate in fitted[1:2])
    scores = held_out @ np.asarray(fitted[0].weight) + fitted[0].bias
    assert (scores < fitted[0].threshold).mean() == pytest.approx(turned_away, abs=0.002)


def imagenet(mass: np.ndarray) -> np.ndarray:
    """ImageNet probabilities with `mass` on the first class and the rest on the last."""
    rows = np.zeros((len(mass), 1000), dtype=np.float32)
    rows[:, 0], rows[:, -1] = mass, 1 - mass
    return rows


def test_the_outside_rule_turns_few_of_its_own_away() -> None:
    rng = np.random.default_rng(0)
    own, outside = imagenet(rng.beta(8, 2, 400)), imagenet(rng.beta(1, 9, 200))
    alone = fit_outside_rule((0, 1), own, None)
    assert (outside_mass(alone, own) < alone.threshold).sum() == 6  # of 400, 1.5 %
    near = imagenet(rng.beta(4, 4, 200))
    assert fit_outside_rule((0, 1), own, near).threshold == alone.threshold
    assert fit_outside_rule((0, 1), own, own).threshold == 0
    # No higher than it takes: what lies between is the subject in unusual pictures.
    rule = fit_outside_rule((0, 1), own, outside)
    assert rule.threshold < alone.threshold
    assert (outside_mass(rule, outside) < rule.threshold).mean() == pytest.approx(ENOUGH_CAUGHT, abs=0.006)


def test_threshold_for_a_share() -> None:
    scores = np.arange(100.0)[::-1]
    assert threshold_for(scores, 0.04) == 4
    assert threshold_for(scores, 0.0) == 0


def test_the_label_log_ratio() -> None:
    own, unknown = np.array([60.0, 40.0, 0.0]), np.array([0.0, 10.0, 10.0])
    expected = np.log([0.62 / 0.02, 0.42 / 0.52, 0.02 / 0.52])
    np.testing.assert_allclose(label_log_ratio(own, unknown), expected)
    less = label_log_ratio(own, unknown, own_less=1)
    assert less[0] == pytest.approx(np.log((59 / 99 + 2 / 99) / (2 / 99)))


def kinds(count: int, seed: int) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Logits and probabilities: unknown classes are less sure, and mostly taken for the last label."""
    rng = np.random.default_rng(seed)
    found = []
    for height, first in ((5.0, rng.integers(0, 6, count)), (4.0, rng.choice(6, count, p=[0.1] * 5 + [0.5]))):
        logits = rng.normal(size=(count, 6))
        logits[np.arange(count), first] += height
        found.append((logits, softmax(logits)))
    return found[0], found[1]


def test_the_unknown_score_holds_on_new_images_and_beats_confidence() -> None:
    own, unknown = kinds(600, seed=0)
    fit = fit_unknown_rule(own, unknown, None)
    fresh, fresh_unknown = kinds(2000, seed=1)
    found = auroc(*(unknown_score(fit.rule, *one, None) for one in (fresh, fresh_unknown)))
    assert found > auroc(*(one[1].max(axis=1) for one in (fresh, fresh_unknown))) + 0.05
    # The scores that thresholds are read off promise no more than comes.
    assert auroc(fit.own, fit.unknown) == pytest.approx(found, abs=0.03)
    assert fit.rule.label_offsets[5] < min(fit.rule.label_offsets[:5])
    assert len(fit.rule.weights) == 3


def test_the_share_of_own_classes_helps() -> None:
    own, unknown = kinds(300, seed=0)
    rng = np.random.default_rng(2)
    shares = rng.beta(9, 1, 300), rng.beta(3, 3, 300)
    with_share, without = fit_unknown_rule(own, unknown, shares), fit_unknown_rule(own, unknown, None)
    assert len(with_share.rule.weights) == 4
    assert auroc(with_share.own, with_share.unknown) > auroc(without.own, without.unknown) + 0.03


def test_luck_alone_gives_no_score() -> None:
    """Labels drawn for no reason, many for the number of images: their offsets do not tell the two apart."""
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(200, 40))
    fit = fit_unknown_rule((logits[:100], softmax(logits[:100])), (logits[100:], softmax(logits[100:])), None)
    assert auroc(fit.own, fit.unknown) < 0.65


def test_shares_need_an_imagenet_head_and_classes() -> None:
    rows = imagenet(np.array([0.5]))
    assert shares_of(None, (0,), (0,)) is None
    assert shares_of(rows, (), (0,)) is None
    assert shares_of(rows, (0,), ()) is None
    share = shares_of(rows, (0,), (0, 999))
    assert share is not None
    np.testing.assert_allclose(share, [0.5])
