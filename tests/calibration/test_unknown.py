"""The rules for what has no label."""

import numpy as np
import pytest

from pawmatch.calibration.apply import outside_mass, softmax, unknown_score
from pawmatch.calibration.scope import (
    ENOUGH_CAUGHT,
    fit_outside_rule,
    fit_unknown_rule,
    label_log_ratio,
    shares_of,
    threshold_for,
)
from pawmatch.metrics import auroc


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
