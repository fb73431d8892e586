"""Engines run the costly `forward_features`; the head, and so the heatmap, always runs in torch."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from pawmatch.engines.torch_engine import TorchEngine
from pawmatch.errors import BadOption
from pawmatch.models import ImageModel

ENGINES = ("auto", "torch")


class Engine(Protocol):
    """What prediction needs of an engine."""

    name: str

    def features(self, images: Tensor) -> Tensor:
        """Prepared images (N, 3, H, W) on the CPU -> float32 feature map (N, C, h, w), no gradient."""
        ...


def create_engine(name: str, model: ImageModel, device: str) -> Engine:
    """The engine `name` for a model that is already on `device`; "auto" picks one.

    Raises BadOption for an engine that does not exist.
    """
    if name not in ENGINES:
        raise BadOption(f"Engine {name!r} is unknown; use one of {', '.join(ENGINES)}.")
    return TorchEngine(model, device)


def resolve_device(name: str) -> str:
    """The torch device for `name`; "auto" takes a CUDA device where there is one.

    Raises BadOption for a device that this machine does not have.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as exc:
        raise BadOption(f"Device {name!r} is unknown; use auto, cpu or cuda.") from exc
    if device.type == "cuda" and not torch.cuda.is_available():
        raise BadOption("Device 'cuda' was asked for, and no CUDA device is here; use auto or cpu.")
    return name
