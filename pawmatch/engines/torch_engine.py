"""The torch engine: no gradient, channels-last, bfloat16 where that was found to be safe."""

from __future__ import annotations

import torch
from torch import Tensor

from pawmatch.models import ImageModel
from pawmatch.settings import on_lent_gpu


class TorchEngine:
    """Runs `model.forward_features` on the model's device.

    `precision` "bfloat16" computes under autocast. `compiled` has torch generate code for the model at the
    first call, which takes a minute; on ZeroGPU, where that is not possible, it is left out.
    """

    name = "torch"

    def __init__(
        self,
        model: ImageModel,
        device: str,
        *,
        precision: str = "float32",
        compiled: bool = False,
    ) -> None:
        self.device = torch.device(device)
        self.precision = precision
        self.model = model.to(memory_format=torch.channels_last)
        self._run = self.model.forward_features
        if compiled and not on_lent_gpu():
            self.name = "torch-compile"
            self._run = torch.compile(self._run)

    @torch.no_grad()  # not inference mode: the head's gradient must be able to start at this map
    def features(self, images: Tensor) -> Tensor:
        """Prepared images (N, 3, H, W) -> float32 feature map (N, C, h, w), no gradient."""
        images = images.to(self.device, memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            feature_map: Tensor = self._run(images)
        return feature_map.float()
