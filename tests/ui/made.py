"""Results made by hand, for what says or draws them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from PIL import Image

from pawmatch.results import (
    Candidate,
    Explanation,
    Heatmap,
    ModelInfo,
    Prediction,
    Review,
    ReviewReason,
    VariantAnswer,
    Verdict,
)

NAMES = ("Border Collie", "Akita", "Pug")


def make_prediction(
    *confidences: float,
    task: str = "breed",
    reasons: Iterable[ReviewReason] = (),
    names: Iterable[str] = NAMES,
) -> Prediction:
    """A prediction with these confidences, of a model with ten classes."""
    found = tuple(
        Candidate(name.replace(" ", "_"), name, confidence)
        for name, confidence in zip(names, confidences, strict=False)
    )
    return Prediction(
        task=task,
        model=ModelInfo("weights/breed/cnn", "cnn", "resnet18d", 10),
        verdict=Verdict("answer", found[0].name),
        predictions=found,
        review=Review(bool(list(reasons)), tuple(reasons), 0.42),
        candidates_90=tuple(candidate.name for candidate in found[:2]),
        variants=(
            VariantAnswer("cnn", "Akita", "Akita", 0.56),
            VariantAnswer("cnn_transformer", found[0].label, found[0].name, 0.6),
        ),
        timing_ms={"decode": 9.0, "features": 41.2},
    )


def make_explanation(prediction: Prediction, raw_max: float = 1.0) -> Explanation:
    """An explanation of the first choice by two of the three variants, hottest at the top right."""
    cam = np.zeros((3, 3), dtype=np.float32)
    cam[0, 2] = 1.0
    top = prediction.top
    heatmaps = {
        answer.variant: Heatmap(answer.variant, top.label, cam, raw_max, 0.3, (0, 0, 80, 60), (80, 60))
        for answer in prediction.variants
    }
    overlays = {variant: Image.new("RGB", (80, 60)) for variant in heatmaps}
    return Explanation(prediction, top.label, top.name, Image.new("RGB", (80, 60)), heatmaps, overlays)
