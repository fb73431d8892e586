"""Collecting answers: the same as serving gives, with what cannot be read left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pawmatch import load
from pawmatch.calibration import ScopeGate
from pawmatch.checkpoint import load_checkpoint
from pawmatch.classifier import Classifier
from pawmatch.evaluation.evaluate import collect
from pawmatch.results import Prediction


def test_answers_are_those_of_serving(tiny_checkpoints: Callable[..., Path], kennel: Path) -> None:
    classifier = load("breed", tiny_checkpoints("breed"))
    files = sorted(kennel.rglob("*.png"))
    files[4].write_bytes(b"no picture")
    answers = collect(classifier, files)
    assert answers.rows.tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    assert [(Path(u.file), u.code) for u in answers.unreadable] == [(files[4], "UnsupportedFormat")]
    served = [entry for entry in classifier.predict_batch(files) if isinstance(entry, Prediction)]
    assert [classifier.labels[index] for index in answers.chosen] == [one.top.label for one in served]
    for row, prediction in enumerate(served):
        assert answers.reasons[row] == tuple(reason.code for reason in prediction.review.reasons)
        for answer in prediction.variants:
            probabilities = classifier.probabilities(answer.variant, answers.logits[answer.variant][row])
            assert probabilities.max() == pytest.approx(answer.confidence)
    assert answers.scope == {}


def test_scope_scores_decide_as_serving_does(tiny_checkpoints: Callable[..., Path], kennel: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoints("breed") / "cnn")
    files = sorted(kennel.rglob("*.png"))
    gate = ScopeGate((1.0,) * 16, 0.0, 0.0, "made up")

    def with_threshold(threshold: float) -> Classifier:
        calibration = replace(
            checkpoint.config.calibration, scope_gates=(replace(gate, threshold=threshold),)
        )
        return Classifier(
            "breed", [replace(checkpoint, config=replace(checkpoint.config, calibration=calibration))]
        )

    margins = collect(with_threshold(0.0), files).scope["cnn"]
    answers = collect(with_threshold(float(np.median(margins))), files)
    flagged = ["out_of_scope" in codes for codes in answers.reasons]
    assert flagged == (answers.scope["cnn"] < 0).tolist() == (margins < np.median(margins)).tolist()
    assert 0 < sum(flagged) < len(files)


def test_nothing_gives_nothing(tiny_checkpoints: Callable[..., Path]) -> None:
    answers = collect(load("breed", tiny_checkpoints("breed")), [])
    assert len(answers) == 0
    assert answers.logits["cnn"].shape == (0, 5)
