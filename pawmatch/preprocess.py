"""InputSpec: the one rule by which an upright RGB image becomes a model's input tensor."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pawmatch.errors import BadOption

RESIZE_RULES = ("squash", "crop")
INTERPOLATIONS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
LARGEST_INPUT = 2048


class Box(NamedTuple):
    """The part of an image that a model sees, in pixels: left, top, right, bottom."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class InputSpec:
    """Size, resize rule and normalisation of a model's input.

    `resize` is "squash" (the whole image to a square, whatever its shape) or "crop" (the centred square
    of `crop_pct` times the short side). Two models whose specs are equal can share one prepared batch.
    """

    size: int = 224
    resize: str = "squash"
    crop_pct: float = 1.0
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if not 16 <= self.size <= LARGEST_INPUT:
            raise BadOption(f"Input size {self.size} is outside 16 to {LARGEST_INPUT} pixels.")
        if self.resize not in RESIZE_RULES:
            raise BadOption(f"Resize rule {self.resize!r} is unknown; use one of {', '.join(RESIZE_RULES)}.")
        if self.interpolation not in INTERPOLATIONS:
            known = ", ".join(INTERPOLATIONS)
            raise BadOption(f"Interpolation {self.interpolation!r} is unknown; use one of {known}.")
        if not 0.1 <= self.crop_pct <= 1:
            raise BadOption(f"crop_pct {self.crop_pct} is outside 0.1 to 1.")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise BadOption("mean and std need three numbers each, and std must be positive.")

    def box(self, width: int, height: int) -> Box:
        """The part of a width x height image that the model sees."""
        if self.resize == "squash":
            return Box(0, 0, width, height)
        side = min(width, height) * self.crop_pct
        left, top = (width - side) / 2, (height - side) / 2
        return Box(left, top, left + side, top + side)

    def prepare(self, image: Image.Image) -> Tensor:
        """Upright RGB image -> normalised float32 tensor (3, size, size)."""
        box = self.box(image.width, image.height)
        # reducing_gap shrinks by whole factors first: large photos cost a fraction, and the result
        # differs by less than one grey level.
        small = image.resize(
            (self.size, self.size), INTERPOLATIONS[self.interpolation], box=box, reducing_gap=3.0
        )
        pixels = torch.from_numpy(np.array(small, dtype=np.uint8))  # (size, size, 3)
        tensor = pixels.permute(2, 0, 1).to(torch.float32).div_(255)
        mean = torch.tensor(self.mean).view(3, 1, 1)
        std = torch.tensor(self.std).view(3, 1, 1)
        return tensor.sub_(mean).div_(std)

    def to_dict(self) -> dict[str, Any]:
        """The spec as JSON values."""
        values = asdict(self)
        return {**values, "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> InputSpec:
        """The spec from JSON values; raises BadOption for an unknown key or a value out of range."""
        try:
            values = {**values}
            for key in ("mean", "std"):
                if key in values:
                    values[key] = tuple(float(number) for number in values[key])
            return cls(**values)
        except (TypeError, ValueError) as exc:
            raise BadOption(f"The input description is malformed: {exc}.") from exc
