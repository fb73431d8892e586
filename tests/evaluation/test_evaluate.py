"""evaluate: from a folder to an Evaluation, from Python."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pawmatch import load
from pawmatch.checkpoint import load_checkpoint
from pawmatch.classifier import Classifier
from pawmatch.errors import BadOption, NotACheckpoint, UnknownVariant
from pawmatch.evaluation.evaluate import evaluate
from pawmatch.results import Prediction


@pytest.fixture(scope="module")
def classifier(tiny_checkpoints: Callable[..., Path]) -> Classifier:
    return load("breed", tiny_checkpoints("breed"))


def test_figures_are_those_of_the_answers_served(
    classifier: Classifier, kennel: Path, few_resamples: None
) -> None:
    evaluation = evaluate(classifier, kennel)
    files = sorted(kennel.rglob("*.png"))
    truth = ["Border_Collie" if path.parent.name == "border collie" else path.parent.name for path in files]
    served = [entry for entry in classifier.predict_batch(files) if isinstance(entry, Prediction)]
    right = np.array([one.top.label == label for one, label in zip(served, truth, strict=True)])
    flagged = np.array([one.review.needed for one in served])
    assert evaluation.review.accuracy.value == pytest.approx(right.mean())
    assert evaluation.review.flagged.value == pytest.approx(flagged.mean())
    for code, share in evaluation.review.reasons.items():
        with_code = [code in {reason.code for reason in one.review.reasons} for one in served]
        assert share.value == pytest.approx(np.mean(with_code))
    for variant, report in evaluation.variants.items():
        answers = [next(a for a in one.variants if a.variant == variant).label for one in served]
        assert report.top1.value == pytest.approx(np.mean(np.array(answers) == truth))
        assert report.set_size.value >= 1
    main = evaluation.variants[evaluation.main]
    assert main.set_size.value == pytest.approx(np.mean([len(one.candidates_90) for one in served]))


def test_loops_are_followed_by_name(
    classifier: Classifier, kennel: Path, dog: Path, few_resamples: None
) -> None:
    seen = {}

    def follow(things: Sequence[Any], what: str) -> Iterable[Any]:
        seen[what] = len(things)
        return things

    evaluation = evaluate(classifier, kennel, variants=["cnn"], outside=[dog], faithfulness=2, follow=follow)
    assert seen == {"images": 9, "outside images": 1, "heatmaps": 2}
    assert list(evaluation.variants) == list(evaluation.faithfulness) == ["cnn"]
    assert evaluation.faithfulness["cnn"].images == 2


def test_what_cannot_be_asked_is_refused(classifier: Classifier, kennel: Path, dog: Path) -> None:
    with pytest.raises(UnknownVariant, match="'rnn' is not in"):
        evaluate(classifier, kennel, variants=["rnn"])
    with pytest.raises(BadOption, match="'both' is unknown; use own or halves"):
        evaluate(classifier, kennel, calibration="both")
    with pytest.raises(BadOption, match="9 images are too few"):
        evaluate(classifier, kennel, calibration="halves")
    dog.write_bytes(b"no picture")
    with pytest.raises(BadOption, match="No image of the outside folder"):
        evaluate(classifier, kennel, outside=[dog])


def test_a_model_of_no_numbers_is_refused(tiny_checkpoints: Callable[..., Path], kennel: Path) -> None:
    checkpoint = load_checkpoint(tiny_checkpoints("breed") / "cnn")
    checkpoint.model.get_parameter("classifier.2.bias").fill_(float("nan"))
    broken = Classifier("breed", [replace(checkpoint, source="broken")])
    with pytest.raises(NotACheckpoint, match="Variant cnn gives values that are no numbers"):
        evaluate(broken, kennel)
