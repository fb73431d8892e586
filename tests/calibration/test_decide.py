"""From what is known of an image to a verdict and a review decision."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pawmatch.calibration import Calibration, LabelGroup, OutsideRule, ScopeGate, UnknownRule
from pawmatch.calibration.apply import softmax
from pawmatch.calibration.decide import (
    MIN_AGREED,
    Decision,
    Known,
    Observed,
    close_calls,
    decide,
    judge,
    know,
    poor_image,
)
from pawmatch.labels import find_task

LABELS = ("Beagle", "Boxer", "Collie", "Walker_Hound")
CALIBRATION = Calibration(
    review_threshold=0.5,
    close_call_margin=0.1,
    conformal_quantile=0.85,
    outside=OutsideRule((1, 2), 0.4, "numbers"),
    unknown=UnknownRule((1.0, 0.0, 0.0), 0.0, (0.0,) * 4, -1.0, 1.0, "numbers"),
    groups=(LabelGroup("", (0, 1, 3)), LabelGroup("scent hound", (0, 3))),
    group_threshold=0.75,
)
SPOTS = np.random.default_rng(0).integers(0, 256, (56, 56, 3), dtype=np.uint8)
NOISE: NDArray[np.uint8] = np.asarray(cv2.resize(SPOTS, (224, 224)), dtype=np.uint8)
SHADE = np.broadcast_to(np.arange(224, dtype=np.uint8)[:, None, None], (224, 224, 3)).copy()
SURE = (0.8, 0.1, 0.06, 0.04)


def decided(
    probabilities: tuple[float, ...] = SURE,
    choices: tuple[int, ...] = (0, 0),
    calibration: Calibration = CALIBRATION,
    task: str = "breed",
    size: tuple[int, int] = (640, 480),
    pixels: NDArray[np.uint8] | None = None,
    looks_like: str = "",
    **known: float,
) -> Decision:
    rows: dict[str, Any] = {key: np.array([value]) for key, value in known.items()}
    known_rows = Known(np.array([probabilities]), np.array(choices)[:, None], **rows)
    return decide(
        calibration, find_task(task), LABELS, known_rows, size=size, pixels=pixels, looks_like=looks_like
    )


def codes(decision: Decision) -> list[str]:
    return [reason.code for reason in decision.review.reasons]


def test_a_sure_answer_needs_no_review() -> None:
    found = decided(margin=0.1, mass=0.4, score=1.0)
    assert (found.verdict.code, found.verdict.text) == ("answer", "Beagle")
    assert not found.review.needed
    assert found.review.reasons == ()
    assert found.review.threshold == 0.5
    assert (found.candidates, found.group) == ((0,), None)


@pytest.mark.parametrize(
    ("changes", "verdict", "reason", "words"),
    [
        ({"margin": -0.1}, "outside", "out_of_scope", "does not look like a dog"),
        ({"margin": -0.1, "task": "artist"}, "outside", "out_of_scope", "does not look like a painting"),
        ({"mass": 0.39}, "outside", "out_of_scope", "does not look like a dog"),
        ({"score": -1.1}, "unknown", "unknown_class", "a breed that the model does not know"),
        ({"score": 0.9}, "answer", "unknown_class", "a breed that the model does not know"),
        ({"probabilities": (0.4, 0.14, 0.26, 0.2)}, "answer", "low_confidence", "40 % sure"),
        ({"probabilities": (0.54, 0.0, 0.46, 0.0)}, "answer", "close_call", "Beagle and Collie"),
        ({"choices": (0, 2)}, "answer", "variants_disagree", "another says Collie"),
        ({"size": (63, 500)}, "poor_image", "poor_image", "63 x 500"),
        ({"size": (2000, 400)}, "poor_image", "poor_image", "strip"),
        ({"pixels": 120 + NOISE // 64}, "poor_image", "poor_image", "almost of one color"),
        ({"pixels": SHADE}, "poor_image", "poor_image", "out of focus"),
    ],
)
def test_each_reason_alone(changes: dict[str, Any], verdict: str, reason: str, words: str) -> None:
    found = decided(**changes)
    assert found.verdict.code == verdict
    assert found.review.needed
    assert codes(found) == [reason]
    assert words in found.review.reasons[0].message


def test_the_gravest_decides_and_comes_first() -> None:
    everything: dict[str, Any] = {
        "probabilities": (0.3, 0.29, 0.2, 0.21),
        "choices": (0, 1),
        "mass": 0.0,
        "score": -9.0,
    }
    small = decided(**everything, size=(10, 10))
    assert small.verdict.code == "poor_image"
    assert codes(small)[:3] == ["poor_image", "out_of_scope", "low_confidence"]
    assert codes(small)[3:] == ["close_call", "variants_disagree"]
    found = decided(**everything, looks_like="tabby")
    assert found.verdict.code == "outside"
    assert found.verdict.text == "No dog here: this looks like a tabby"
    assert decided(**{**everything, "mass": 1.0}).verdict.code == "unknown"


def test_doubts_of_other_variants_count_where_the_main_one_is_unsure() -> None:
    unsure, sure = (MIN_AGREED - 0.01, 0.11, 0.0, 0.0), (MIN_AGREED, 0.1, 0.0, 0.0)
    assert codes(decided(unsure, choices=(0, 1))) == ["variants_disagree"]
    assert codes(decided(sure, choices=(0, 1))) == []


def test_thresholds_themselves_pass() -> None:
    assert not decided((0.5, 0.3, 0.2, 0.0), score=1.0, mass=0.4, margin=0.0).review.needed


@pytest.mark.parametrize(
    ("probabilities", "name", "labels", "confidence"),
    [
        ((0.4, 0.1, 0.1, 0.4), "scent hound", ("Beagle", "Walker_Hound"), 0.8),
        ((0.3, 0.1, 0.1, 0.5 - 0.02), "scent hound", ("Walker_Hound", "Beagle"), 0.78),
        ((0.3, 0.3, 0.1, 0.3), "", ("Beagle", "Boxer", "Walker_Hound"), 0.9),
    ],
)
def test_the_smallest_group_of_all_candidates_takes_the_place_of_a_flagged_answer(
    probabilities: tuple[float, ...], name: str, labels: tuple[str, ...], confidence: float
) -> None:
    found = decided(probabilities)
    assert found.verdict.code == "group"
    assert found.group is not None
    assert (found.group.name, found.group.labels) == (name, labels)
    assert found.group.confidence == pytest.approx(confidence)
    assert found.review.needed
    assert found.verdict.text.startswith("A scent hound: " if name else "Beagle, Boxer or Treeing")


@pytest.mark.parametrize(
    "changes",
    [
        {"probabilities": (0.4, 0.0, 0.3, 0.3)},  # the collie is in no group
        {"probabilities": (0.36, 0.14, 0.14, 0.36)},  # 72 % for the group
        {"probabilities": (0.8, 0.0, 0.0, 0.2)},  # not flagged
        {"probabilities": (0.45, 0.14, 0.14, 0.14)},  # one candidate
        {"probabilities": (0.4, 0.1, 0.1, 0.4), "score": -2.0},
        {"probabilities": (0.4, 0.1, 0.1, 0.4), "mass": 0.0},
        {"probabilities": (0.4, 0.1, 0.1, 0.4), "size": (9, 9)},
    ],
)
def test_no_group_elsewhere(changes: dict[str, Any]) -> None:
    found = decided(**changes)
    assert found.verdict.code != "group"
    assert found.group is None


def test_one_class_has_no_close_call() -> None:
    one = replace(CALIBRATION, unknown=None, groups=())
    found = decide(
        one, find_task("breed"), ["Beagle"], Known(np.ones((1, 1)), np.zeros((1, 1), int)), size=(99, 99)
    )
    assert not found.review.needed


def test_close_calls() -> None:
    rows = np.array([[0.5, 0.45, 0.05], [0.6, 0.3, 0.1]])
    assert close_calls(rows, 0.1).tolist() == [True, False]
    assert close_calls(np.ones((2, 1)), 0.1).tolist() == [False, False]


def test_a_picture_of_enough_is_not_poor() -> None:
    assert poor_image((64, 256), NOISE) is None
    assert poor_image((64, 64), np.asarray(cv2.GaussianBlur(NOISE, (0, 0), 1), dtype=np.uint8)) is None
    assert poor_image((64, 64)) is None


def test_what_is_known_comes_from_the_calibration_s_rules() -> None:
    """Rules without what they need, and data without a rule, say nothing."""
    rng = np.random.default_rng(0)
    imagenet = rng.dirichlet(np.ones(1000), 3).astype(np.float32)
    logits, pooled = rng.normal(size=(3, 4)), rng.normal(size=(3, 2))
    observed = Observed(logits, np.zeros((2, 3), int), pooled, imagenet)
    gate = ScopeGate((1.0, 0.0), 0.0, 0.0, "numbers")
    full = know(replace(CALIBRATION, scope_gates=(gate,)), observed, (1,))
    assert full.margin is not None
    assert full.mass is not None
    assert full.score is not None
    np.testing.assert_allclose(full.probabilities, softmax(logits))
    np.testing.assert_allclose(full.margin, pooled[:, 0])
    np.testing.assert_allclose(full.mass, imagenet[:, [1, 2]].sum(axis=1), rtol=1e-6)
    bare = know(Calibration(), observed, (1,))
    assert (bare.margin, bare.mass, bare.score) == (None, None, None)
    assert know(CALIBRATION, replace(observed, imagenet=None)).mass is None
    some = observed.rows(np.array([True, False, True]))
    assert (len(some.logits), some.choices.shape) == (2, (2, 2))


def test_many_are_judged_as_one() -> None:
    rng = np.random.default_rng(1)
    probabilities = rng.dirichlet(np.full(4, 0.7), 200)
    known = Known(probabilities, rng.integers(0, 4, (2, 200)), None, rng.random(200), rng.normal(0, 2, 200))
    together = judge(CALIBRATION, known)
    assert known.mass is not None
    assert known.score is not None
    for row in range(200):
        one = decided(
            tuple(probabilities[row]),
            tuple(known.choices[:, row]),
            mass=known.mass[row],
            score=known.score[row],
        )
        assert one.review.needed == together.flagged[row]
        assert (one.verdict.code == "outside") == together.outside[row]
        assert (one.verdict.code == "unknown") == together.unknown[row]
        assert (one.verdict.code == "group") == (together.group[row] >= 0)
    assert {"outside", "unknown"} <= {
        name for name in ("outside", "unknown") if getattr(together, name).any()
    }
    assert (together.group >= 0).any()
