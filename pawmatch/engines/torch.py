"""What prediction needs of an engine, and the torch engine: no gradient, channels-last, or in bfloat16."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from pawmatch.images.pool import usable_cores
from pawmatch.models import ImageModel
from pawmatch.settings import on_lent_gpu

# What a CPU runs at once: four images of 260 pixels a side, five of 224. OpenVINO keeps the memory of the
# largest batch that it ever ran: 1 MB for these, 150 MB for a megapixel, which takes as long for each image.
MAX_PIXELS = 300_000


class Engine(Protocol):
    """Runs a model's `forward_features`.

    `name` is what users call the engine, `precision` that of its arithmetic: "float32" or "bfloat16".
    """

    name: str
    precision: str

    def features(self, images: Tensor) -> Tensor:
        """Prepared images (N, 3, H, W) on the CPU -> float32 feature map (N, C, h, w), no gradient.

        Safe to call from several threads.
        """
        ...


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
        at_once = max(1, MAX_PIXELS // images[:1, :1].numel()) if self.device.type == "cpu" else len(images)
        return torch.cat([self._features(part) for part in torch.split(images, at_once)])

    def _features(self, images: Tensor) -> Tensor:
        images = images.to(self.device, memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            feature_map: Tensor = self._run(images)
        return feature_map.float()


def limit_torch_threads() -> None:
    """Have torch use no more threads than there are cores to run them; fewer, if so chosen, stay fewer."""
    cores = usable_cores()
    if torch.get_num_threads() > cores:
        torch.set_num_threads(cores)


def has_bfloat16(device: str) -> bool:
    """Whether the device has units that multiply matrices in bfloat16; elsewhere it is hardly faster."""
    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Not there in every version that we allow, that of ZeroGPU among them.
    found: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(found.get("amx_bf16"))
