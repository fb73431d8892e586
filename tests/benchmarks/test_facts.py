"""Simulated users of the benchmark: how often they are right, and that their answers help."""

from __future__ import annotations

import numpy as np

from benchmarks.facts import Photos, answers, simulate
from pawmatch.calibration import Calibration
from pawmatch.calibration.decide import Known
from pawmatch.calibration.facts import Attribute, answer_likelihood
from pawmatch.results import Choice

USUAL = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]], dtype=bool)
CHOICES = tuple(Choice(str(number), str(number)) for number in range(3))
ATTRIBUTE = Attribute("wings", "Wings", "Which wings?", CHOICES, answer_likelihood(USUAL, 0.2))


def test_users_say_a_usual_value_four_times_of_five_and_nothing_of_what_is_not_known() -> None:
    targets = np.repeat(np.arange(4), 4000)
    said = answers(ATTRIBUTE, targets, np.random.default_rng(0)).reshape(4, 4000)
    assert (said[3] == -1).all()
    for row, usual in zip(said[:3], USUAL.T[:3], strict=True):
        shares = np.bincount(row, minlength=3) / 4000
        expected = np.where(usual, 0.8 / usual.sum(), 0.2 / (~usual).sum())
        np.testing.assert_allclose(shares, expected, atol=0.03)


def test_only_unsure_photos_are_asked_about_and_answers_help() -> None:
    targets = np.repeat([0, 2], 500)
    probabilities = np.tile([0.48, 0.02, 0.47, 0.03], (1000, 1))
    probabilities[0] = 0.97, 0.01, 0.01, 0.01
    known = Known(probabilities, probabilities.argmax(axis=1)[None])
    photos = Photos(known, targets, np.arange(1000) == 1)
    first, *later = simulate(Calibration(), [ATTRIBUTE], photos, seed=0)
    assert np.array_equal(first, probabilities)
    right = [(one.argmax(axis=1) == targets).mean() for one in (first, later[0])]
    assert right[0] == 0.5
    assert 0.75 < right[1] < 0.85
    for one in later:
        assert np.array_equal(one[:2], probabilities[:2])  # sure, and poor
        assert np.array_equal(one, later[0])  # there is but one question
