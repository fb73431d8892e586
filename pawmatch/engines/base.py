"""What prediction needs of an engine."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


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
