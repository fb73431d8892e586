"""A folder of labelled pictures, and an evaluation made of numbers alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pawmatch import metrics
from pawmatch.calibration import Calibration
from pawmatch.evaluation.evaluate import Answers, judge, measure_review, measure_variant
from pawmatch.evaluation.report import Evaluation
from pawmatch.labels import VARIANT_NAMES


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals from 20 resamples: their ends are rough, and nothing else changes."""
    monkeypatch.setattr(metrics, "RESAMPLES", 20)


@pytest.fixture
def kennel(photo: Image.Image, tmp_path: Path) -> Path:
    """Labelled pictures of three of the tiny model's five breeds, three each."""
    folder = tmp_path / "kennel"
    for turn, name in enumerate(("Beagle", "border collie", "Boxer")):
        (folder / name).mkdir(parents=True)
        for number in range(3):
            photo.rotate(40 * turn + 7 * number).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture
def made_up(few_resamples: None) -> Callable[..., Evaluation]:
    """Call for an evaluation of random answers; `skill` makes them better, `variants` picks some."""

    def make(
        skill: float = 1.5, variants: tuple[str, ...] = tuple(VARIANT_NAMES), count: int = 60
    ) -> Evaluation:
        rng = np.random.default_rng(0)
        labels = ("Beagle", "Border_Collie", "Boxer", "Collie", "Maltese_Dog")
        targets = np.arange(count) % len(labels)
        calibration = Calibration(temperature=0.8, review_threshold=0.6, conformal_quantile=0.9)
        own = made_up_answers(rng, targets, skill, len(labels), shift=1.0)
        outside = made_up_answers(rng, targets, 0.0, len(labels), shift=-1.0)
        return Evaluation(
            task="breed",
            source="nowhere",
            main="cnn_transformer_mfe",
            folder="kennel",
            calibration="halves",
            images=count,
            classes_with_images=len(labels),
            classes=len(labels),
            unreadable=(),
            outside_images=count,
            unknown=None,
            review=measure_review(own, targets, outside),
            variants={
                v: measure_variant(v, calibration, labels, own, targets, judge(calibration, own, v), outside)
                for v in variants
            },
            faithfulness={},
        )

    return make


def made_up_answers(
    rng: np.random.Generator, targets: np.ndarray, skill: float, classes: int, shift: float
) -> Answers:
    """Answers for images of classes `targets`; every third is flagged."""
    logits = rng.normal(size=(len(VARIANT_NAMES), len(targets), classes)).astype(np.float32)
    logits[:, np.arange(len(targets)), targets] += skill
    return Answers(
        rows=np.arange(len(targets)),
        logits=dict(zip(VARIANT_NAMES, logits, strict=True)),
        scope={variant: rng.normal(shift, 1, len(targets)) for variant in VARIANT_NAMES},
        chosen=logits[-1].argmax(axis=1),
        verdicts=np.array(["answer"] * len(targets)),
        score=None,
        doubted=np.zeros(len(targets), dtype=bool),
        reasons=dict.fromkeys(("close_call", "out_of_scope"), np.arange(len(targets)) % 3 == 0),
        unreadable=(),
    )
