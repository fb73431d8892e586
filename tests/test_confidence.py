"""From logits to a review decision."""

from typing import Any

import numpy as np
import pytest

from pawmatch.calibration import Calibration, ScopeGate
from pawmatch.confidence import candidate_set, decide_review, scope_margin, scope_score, tempered
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
