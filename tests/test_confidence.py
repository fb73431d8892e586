"""From logits to a review decision."""

from typing import Any

import numpy as np
import pytest

from pawmatch.calibration import Calibration, ScopeGate
from pawmatch.confidence import (
    calibrated,
    candidate_set,
    decide_review,
    scope_margin,
    scope_score,
    tempered,
    with_top_label,
)
from pawmatch.results import Review, VariantAnswer

NAMES = ("Beagle", "Boxer", "Collie")
CALIBRATION = Calibration(review_threshold=0.5, close_call_margin=0.1)


def answer(variant: str, name: str) -> VariantAnswer:
    return VariantAnswer(variant, name, name, 0.9)


def review(**changes: Any) -> Review:
    values: dict[str, Any] = {
        "task": "breed",
        "calibration": CALIBRATION,
        "probabilities": np.array([0.8, 0.15, 0.05]),
        "answers": [answer("cnn", "Beagle"), answer("cnn_transformer", "Beagle")],
        "names": NAMES,
        "in_scope": True,
        "size": (640, 480),
    }
    return decide_review(**{**values, **changes})


def codes(result: Review) -> list[str]:
    return [reason.code for reason in result.reasons]


def test_temperature_divides_the_logits() -> None:
    logits = np.array([[2.0, 0.0]], dtype=np.float32)
    expected = 1 / (1 + np.exp(-1.0))
    assert tempered(logits, 2.0)[0, 0] == pytest.approx(expected)


def test_huge_logits_do_not_overflow() -> None:
    probabilities = tempered(np.array([1e4, 0.0, -1e4], dtype=np.float32), 0.5)
    np.testing.assert_allclose(probabilities, [1, 0, 0])


def test_the_first_choice_is_mapped_and_the_others_share_the_rest() -> None:
    rows = np.array([[0.1, 0.6, 0.3], [0.9, 0.04, 0.06]])
    mapped = with_top_label(rows, (0.7, 1.4, -0.2))
    for row, own in zip(rows, mapped, strict=True):
        top = row.argmax()
        score = 0.7 * np.log(row[top]) - 1.4 * np.log(1 - row[top]) - 0.2
        assert own[top] == pytest.approx(1 / (1 + np.exp(-score)))
        others = np.arange(3) != top
        np.testing.assert_allclose(own[others] / own[others].sum(), row[others] / row[others].sum())
        assert own.sum() == pytest.approx(1)


def test_mapping_never_changes_the_order() -> None:
    """A map that lowers every first choice stops where the second one would overtake it."""
    rng = np.random.default_rng(0)
    rows = rng.dirichlet(np.ones(5), size=500)
    for top_label in ((1.0, 1.0, -5.0), (5.0, 0.2, 0.0), (0.1, 8.0, 3.0)):
        mapped = with_top_label(rows, top_label)
        np.testing.assert_array_equal(np.argsort(-mapped, axis=1), np.argsort(-rows, axis=1))
        np.testing.assert_allclose(mapped.sum(axis=1), 1)
    lowered = with_top_label(np.array([0.5, 0.4, 0.1]), (1.0, 1.0, -5.0))
    np.testing.assert_allclose(lowered, [4 / 9, 4 / 9, 1 / 9])


def test_rows_without_doubt_and_without_choice_stay_finite() -> None:
    for top_label in ((0.5, 2.0, -1.0), (100.0, 100.0, -100.0), (1e-3, 100.0, 100.0)):
        sure = with_top_label(np.array([[1.0, 0.0, 0.0], [1 - 1e-13, 1e-13, 0.0]]), top_label)
        assert np.isfinite(sure).all()
        assert (sure.argmax(axis=1) == 0).all()
        assert ((sure >= 0) & (sure <= 1)).all()
        np.testing.assert_array_equal(with_top_label(np.array([[1.0]]), top_label), [[1.0]])
        even = with_top_label(np.full((1, 20_000), 1 / 20_000), top_label)
        assert even.sum() == pytest.approx(1)
        assert even.argmax() == 0


def test_a_calibration_is_temperature_and_then_the_map() -> None:
    logits = np.array([[2.0, 0.0, -1.0]], dtype=np.float32)
    plain = Calibration(temperature=2.0)
    np.testing.assert_array_equal(calibrated(logits, plain), tempered(logits, 2.0))
    bent = Calibration(temperature=2.0, top_label=(0.8, 1.2, -0.3))
    np.testing.assert_array_equal(
        calibrated(logits, bent), with_top_label(tempered(logits, 2.0), (0.8, 1.2, -0.3))
    )


def test_candidate_set_is_sorted_and_never_empty() -> None:
    probabilities = np.array([0.2, 0.5, 0.3])
    assert candidate_set(probabilities, 0.75) == [1, 2]
    assert candidate_set(probabilities, 1.0) == [1, 2, 0]
    assert candidate_set(probabilities, 0.1) == [1]


def test_a_sure_answer_needs_no_review() -> None:
    result = review()
    assert not result.needed
    assert result.reasons == ()
    assert result.threshold == 0.5


@pytest.mark.parametrize(
    ("changes", "expected", "words"),
    [
        ({"in_scope": False}, "out_of_scope", "does not look like a dog"),
        ({"in_scope": False, "task": "artist"}, "out_of_scope", "does not look like a painting"),
        ({"probabilities": np.array([0.4, 0.25, 0.2])}, "low_confidence", "40 % sure"),
        ({"probabilities": np.array([0.52, 0.45, 0.03])}, "close_call", "Beagle and Boxer"),
        ({"answers": [answer("cnn", "Beagle"), answer("x", "Collie")]}, "variants_disagree", "Collie"),
        ({"size": (63, 500)}, "poor_image", "63 x 500"),
        ({"size": (2000, 400)}, "poor_image", "strip"),
    ],
)
def test_each_reason_is_given_alone(changes: dict[str, Any], expected: str, words: str) -> None:
    result = review(**changes)
    assert result.needed
    assert codes(result) == [expected]
    assert words in result.reasons[0].message


def test_the_gravest_reason_comes_first() -> None:
    result = review(in_scope=False, probabilities=np.array([0.3, 0.29, 0.2]))
    assert codes(result) == ["out_of_scope", "low_confidence", "close_call"]


def test_threshold_itself_passes() -> None:
    assert not review(probabilities=np.array([0.5, 0.3, 0.2])).needed


def test_one_class_has_no_close_call() -> None:
    assert not review(
        probabilities=np.array([1.0]), names=("Beagle",), answers=[answer("cnn", "Beagle")]
    ).needed


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
