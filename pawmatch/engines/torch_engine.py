"""The plain torch engine: no gradient, channels-last where that is faster."""

from __future__ import annotations

import torch
from torch import Tensor

from pawmatch.models import ImageModel


class TorchEngine:
    """Runs `model.forward_features` in float32 on the model's device."""

    name = "torch"

    def __init__(self, model: ImageModel, device: str) -> None:
        self.device = device
        self.model = model.to(memory_format=torch.channels_last)

    @torch.no_grad()  # not inference mode: the head's gradient must be able to start at this map
    def features(self, images: Tensor) -> Tensor:
        """Prepared images (N, 3, H, W) -> float32 feature map (N, C, h, w), no gradient."""
        images = images.to(self.device, memory_format=torch.channels_last)
        return self.model.forward_features(images)
