"""What trained models say of images, as serving computes it: logits and pooled features over all views."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pawmatch.models import ImageModel
from pawmatch.preprocess import InputSpec
from pawmatch.training.data import LabelledImages, view_batches

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Outputs:
    """Logits (N, classes) and average-pooled feature maps (N, C) of N images, averaged over their views."""

    logits: Floats
    pooled: Floats


def run_models(
    models: Mapping[str, ImageModel], data: LabelledImages, specs: Mapping[str, InputSpec], device: str
) -> dict[str, Outputs]:
    """Every variant's outputs for all images, as serving computes them, in the order of `models`.

    Variants that take the same input and share a feature extractor have it run once.
    """
    found: dict[str, Outputs] = {}
    for spec in dict.fromkeys(specs.values()):
        alike = {name: model for name, model in models.items() if specs[name] == spec}
        found.update(_run_alike(alike, data, spec, device))
    return {name: found[name] for name in models}


@torch.inference_mode()
def _run_alike(
    models: Mapping[str, ImageModel], data: LabelledImages, spec: InputSpec, device: str
) -> dict[str, Outputs]:
    """The outputs of variants that take the same input."""
    logits: dict[str, list[Tensor]] = {name: [] for name in models}
    pooled: dict[str, list[Tensor]] = {name: [] for name in models}
    for model in models.values():
        model.eval()
    for batch in view_batches(data, spec):
        maps: dict[int, Tensor] = {}
        for name, model in models.items():
            extractor = id(getattr(model, model.features_module))
            if extractor not in maps:
                maps[extractor] = model.forward_features(batch.to(device)).float()
            feature_map = maps[extractor]
            for rows, of in (
                (model.forward_head(feature_map).float(), logits),
                (feature_map.mean(dim=(2, 3)), pooled),
            ):
                of[name].append(rows.reshape(-1, len(spec.views), rows.shape[1]).mean(dim=1).cpu())
    return {
        name: Outputs(torch.cat(logits[name]).numpy(), torch.cat(pooled[name]).numpy()) for name in models
    }
