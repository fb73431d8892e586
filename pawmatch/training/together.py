"""Variants trained together on one shared feature extractor: one backbone pass serves all heads."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pawmatch.models import ImageModel


class Together(nn.Module):
    """Several variants whose `forward_features` is one and the same module.

    They see the same batches under the same schedule, and differ in their heads alone.
    """

    def __init__(self, models: Mapping[str, ImageModel]) -> None:
        super().__init__()
        first = next(iter(models.values()))
        for model in models.values():
            setattr(model, model.features_module, getattr(first, first.features_module))
        self.models = nn.ModuleDict(models)

    def variants(self) -> dict[str, ImageModel]:
        """The variants by name; they share the feature extractor's tensors."""
        return {name: model for name, model in self.models.items() if isinstance(model, ImageModel)}

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> logits (V, N, classes), one row of the first axis per variant."""
        models = list(self.variants().values())
        feature_map = models[0].forward_features(images)
        return torch.stack([model.forward_head(feature_map) for model in models])
