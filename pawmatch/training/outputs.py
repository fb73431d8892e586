"""What models say of images, by the very code that answers: logits, pooled features, ImageNet's view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pawmatch.checkpoint import Checkpoint, CheckpointConfig
from pawmatch.errors import PawMatchError
from pawmatch.models import ImageModel
from pawmatch.predict import Classifier
from pawmatch.training.data import LabelledImages

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Outputs:
    """Logits (N, classes) and average-pooled feature maps (N, C) of N images, averaged over their views.

    `imagenet` (N, 1000) are the probabilities of the backbone's own head, where it has one.
    """

    logits: Floats
    pooled: Floats
    imagenet: Floats | None


def run_models(
    models: Mapping[str, ImageModel],
    data: LabelledImages,
    configs: Mapping[str, CheckpointConfig],
    device: str,
    engine: str = "torch",
) -> dict[str, Outputs]:
    """Every variant's outputs for all images, in the order of `models`; the models are put to evaluation."""
    checkpoints = [
        Checkpoint(configs[name], model.eval().requires_grad_(False), "training")
        for name, model in models.items()
    ]
    task = checkpoints[0].config.task.name
    classifier = Classifier(task, checkpoints, engine=engine, device=device)
    logits: dict[str, list[Floats]] = {name: [] for name in models}
    pooled: dict[str, list[Floats]] = {name: [] for name in models}
    imagenet: list[Floats] = []
    for entry in classifier.examine_batch(Image.fromarray(image) for image in data.images):
        if isinstance(entry, PawMatchError):  # decoded before, so that it is no image's fault
            raise entry
        for name in models:
            logits[name].append(entry.logits[name])
            pooled[name].append(entry.pooled[name])
        if entry.imagenet is not None:
            imagenet.append(entry.imagenet)
    seen = np.stack(imagenet) if imagenet else None
    return {name: Outputs(np.stack(logits[name]), np.stack(pooled[name]), seen) for name in models}
