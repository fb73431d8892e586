"""Results made by hand, and a classifier that only pretends: what the handlers need, without torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pawmatch.errors import PawMatchError, UnknownLabel
from pawmatch.images import Prepared, open_image, read_image
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

LABELS = ("Border_Collie", "Akita", "Pug")
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


@dataclass
class PretendClassifier:
    """Answers the same to everything; `calls` records what was asked, `failure` is raised instead."""

    labels: tuple[str, ...] = LABELS
    names: tuple[str, ...] = NAMES
    variants: tuple[str, ...] = ("cnn", "cnn_transformer")
    notice: str | None = None
    card: str = "---\nlicense: cc0-1.0\n---\n# A card"
    info: ModelInfo = field(default_factory=lambda: ModelInfo("/srv/secret/breed/cnn", "cnn", "resnet18d", 3))
    calls: list[tuple[str, Any]] = field(default_factory=list)
    failure: Exception | None = None

    def prepare(self, image: Any) -> Prepared:
        loaded = read_image(image)
        return Prepared({}, loaded.width, loaded.height, loaded.warnings, 9.0)

    def examine(self, prepared: Sequence[Prepared]) -> list[Prepared]:
        if self.failure:
            raise self.failure
        return list(prepared)

    def conclude(self, examined: Prepared, top_k: int = 5) -> Prediction:
        self.calls.append(("predict", top_k))
        return replace(make_prediction(0.7, 0.2), model=self.info, warnings=examined.warnings)

    def predict(self, image: Any, top_k: int = 5) -> Prediction:
        return self.conclude(self.examine([self.prepare(image)])[0], top_k)

    def predict_batch(self, images: Iterable[Any], top_k: int = 5) -> Iterator[Prediction | PawMatchError]:
        for image in images:
            try:
                yield self.predict(image, top_k)
            except PawMatchError as exc:
                yield exc

    def explain(self, image: Any, label: str | None = None, *, top_k: int = 5) -> Explanation:
        (examined,) = self.examine([self.prepare(image)])
        return self.explain_examined(examined, open_image(image), label, top_k=top_k)

    def explain_examined(
        self, examined: Prepared, photo: Image.Image, label: str | None = None, *, top_k: int = 5
    ) -> Explanation:
        explanation = replace(make_explanation(self.conclude(examined, top_k)), photo=photo)
        self.calls.append(("explain", label))
        if label is None:
            return explanation
        if label not in self.labels:
            raise UnknownLabel(f"{label!r} is not among the 3 classes.")
        return replace(explanation, label=label, name=label.replace("_", " "))


def as_upload(path: Path) -> dict[str, Any]:
    """A file as Gradio hands it over."""
    return {"path": str(path), "orig_name": path.name, "meta": {"_type": "gradio.FileData"}}
