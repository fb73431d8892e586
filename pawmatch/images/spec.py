"""InputSpec: the one rule by which an upright RGB image becomes a model's input tensors.

torch is imported where tensors are made, not above: a process that only reads images does without it, and
so starts in a fraction of the time and keeps some 30 MB instead of 500.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pawmatch.errors import BadOption
from pawmatch.images.reading import ImageSource, read_image
from pawmatch.strict import Refused, decode, encode

if TYPE_CHECKING:
    from torch import Tensor

RESIZE_RULES = ("squash", "crop")
INTERPOLATIONS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
LARGEST_INPUT = 2048
MIN_STD, MAX_MEAN = 0.001, 10.0  # of pixel values from 0 to 1
# Looks at one image whose logits are averaged. "plain" is what `resize` says; the others are parts or
# reflections of it. "focus" is closer to the subject where it is small, and the whole image where the plain
# view cuts it off; it is known only once the plain view has been looked at.
VIEWS = ("plain", "mirror", "square", "middle", "focus")
FOCUS = "focus"
MIDDLE = 0.7  # share of width and height that the middle shows


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

    A model looks at an image once for each of `views`, and its logits are averaged: "plain", always first,
    "mirror" (left and right swapped), "square" (the centred square of the short side) and "middle" (70 % of
    width and height, which a small subject in a whole photo fills better). "focus" is a square around a
    small subject, or the whole image where the square cuts the subject off; see pawmatch.subjects. It is
    taken only where the first variant's likeliest class has a softmax below `focus_below` in the plain view,
    so that most answers need one pass of the backbone.
    """

    size: int = 224
    resize: str = "squash"
    crop_pct: float = 1.0
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    views: tuple[str, ...] = ("plain",)
    focus_below: float = 1.0

    def __post_init__(self) -> None:
        if not 16 <= self.size <= LARGEST_INPUT:
            raise BadOption(f"Input size {str(self.size)[:20]} is outside 16 to {LARGEST_INPUT} pixels.")
        if self.resize not in RESIZE_RULES:
            raise BadOption(f"Resize rule {self.resize!r} is unknown; use one of {', '.join(RESIZE_RULES)}.")
        if self.interpolation not in INTERPOLATIONS:
            known = ", ".join(INTERPOLATIONS)
            raise BadOption(f"Interpolation {self.interpolation!r} is unknown; use one of {known}.")
        if not 0.1 <= self.crop_pct <= 1:
            raise BadOption(f"crop_pct {self.crop_pct} is outside 0.1 to 1.")
        if len(self.mean) != 3 or not all(abs(value) <= MAX_MEAN for value in self.mean):
            raise BadOption(f"mean needs three numbers up to {MAX_MEAN}.")
        if len(self.std) != 3 or not all(MIN_STD <= value <= MAX_MEAN for value in self.std):
            raise BadOption(f"std needs three numbers from {MIN_STD} to {MAX_MEAN}.")
        if self.views[:1] != ("plain",) or len(set(self.views)) < len(self.views):
            raise BadOption(f"views must begin with plain and name each view once, not {list(self.views)}.")
        if not 0 < self.focus_below <= 1:
            raise BadOption(f"focus_below {self.focus_below} is outside 0 to 1.")
        if unknown := sorted(set(self.views) - set(VIEWS)):
            raise BadOption(f"View {unknown[0]!r} is unknown; use some of {', '.join(VIEWS)}.")

    def box(self, width: int, height: int, view: str = "plain") -> Box:
        """The part of a width x height image that the model sees in one view, at least one pixel each way."""
        if view == "middle":
            across, down = MIDDLE * width, MIDDLE * height
        elif view == "square" or (self.resize == "crop" and view in ("plain", "mirror")):
            across = down = min(width, height) * (1.0 if view == "square" else self.crop_pct)
        else:
            return Box(0, 0, width, height)
        (left, right), (top, bottom) = _centered(width, across), _centered(height, down)
        return Box(left, top, right, bottom)

    @property
    def fixed_views(self) -> tuple[str, ...]:
        """The views that do not depend on what is seen."""
        return tuple(view for view in self.views if view != FOCUS)

    @property
    def has_focus(self) -> bool:
        """Whether a closer look may follow the plain one."""
        return FOCUS in self.views

    @property
    def least_side(self) -> int:
        """How long the shorter side of an image must be for no view to suffer if it was shrunk before.

        Twice what the closest view needs, so that the last step still has two pixels for each that it makes.
        """
        boxes = [self.box(4096, 4096, view) for view in self.fixed_views]
        return round(2 * self.size * 4096 / min(box.right - box.left for box in boxes))

    def canvas(self, image: Image.Image) -> NDArray[np.uint8]:
        """An image as far shrunk as a closer look allows: its shorter side twice the model's, (H, W, 3)."""
        scale = min(1.0, 2 * self.size / min(image.size))
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        return np.asarray(image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0), dtype=np.uint8)

    def closer(self, canvas: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
        """A part of a canvas (H, W, 3) as the model sees it; `box` is in shares of its width and height."""
        height, width = canvas.shape[:2]
        part = (box.left * width, box.top * height, box.right * width, box.bottom * height)
        return self._resized(Image.fromarray(canvas), part)

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """Upright RGB image -> its fixed views as the model sees them, (V, size, size, 3), plain first."""
        views: dict[str, NDArray[np.uint8]] = {}
        for view in self.fixed_views:
            mirror = view == "mirror"
            views[view] = (
                views["plain"][:, ::-1] if mirror else self._resized(image, self.box(*image.size, view))
            )
        return np.stack(list(views.values()))

    def _resized(self, image: Image.Image, box: tuple[float, float, float, float]) -> NDArray[np.uint8]:
        # reducing_gap shrinks by whole factors first: large photos cost a fraction, and the result
        # differs by less than one gray level.
        method = INTERPOLATIONS[self.interpolation]
        small = image.resize((self.size, self.size), method, box=box, reducing_gap=3.0)
        return np.asarray(small, dtype=np.uint8)

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 pixels (N, H, W, 3) -> float32 (N, 3, H, W) with this mean and deviation, channels last."""
        import torch

        mean = torch.tensor(self.mean, device=pixels.device)
        std = torch.tensor(self.std, device=pixels.device)
        return pixels.to(torch.float32).div_(255).sub_(mean).div_(std).permute(0, 3, 1, 2)

    def prepare(self, image: Image.Image) -> Tensor:
        """Upright RGB image -> normalised float32 tensor (3, size, size) of the plain view."""
        import torch

        return self.normalise(torch.from_numpy(self._resized(image, self.box(*image.size)).copy())[None])[0]

    def to_dict(self) -> dict[str, Any]:
        """The spec as JSON values."""
        values: dict[str, Any] = encode(self)
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> InputSpec:
        """The spec from JSON values; raises BadOption for an unknown key or a value out of range."""
        try:
            return decode(cls, values, optional=None)
        except Refused as exc:
            raise BadOption(exc.sentence("The input description")) from exc


def _centered(whole: float, part: float) -> tuple[float, float]:
    """The edges of the middle part of a side; of one whole pixel where the part is no larger."""
    start = (whole - part) / 2 if part > 1 else (whole - 1) // 2
    return start, start + max(1, part)


@dataclass(frozen=True)
class Prepared:
    """What the models see of one image, and what is known about how it came to be.

    `pixels` has for each input rule the image's views, uint8 (V, size, size, 3): small, whatever the size of
    the photo, so that it can wait in a queue or come from another process. `canvases` has the image itself,
    shrunk, for each rule by which a closer look may follow. `width` and `height` are those
    of the whole upright picture; `decode_ms` is what it took to read, decode and shrink it. `photo` is the
    picture as it was decoded, for who asked for it.
    """

    pixels: Mapping[InputSpec, NDArray[np.uint8]]
    width: int
    height: int
    warnings: tuple[str, ...]
    decode_ms: float
    canvases: Mapping[InputSpec, NDArray[np.uint8]] = field(default_factory=dict)
    photo: Image.Image | None = None


def prepare(source: ImageSource, specs: Sequence[InputSpec], *, keep_photo: bool = False) -> Prepared:
    """Read an image and make of it what each of the input rules asks for. Raises a leaf of ImageError.

    A large JPEG photo is decoded no larger than the rules need, which is several times faster; `keep_photo`
    keeps what was decoded.
    """
    started = time.perf_counter()
    loaded = read_image(source, min_side=max(spec.least_side for spec in specs))
    pixels = {spec: spec.pixels(loaded.image) for spec in dict.fromkeys(specs)}
    canvases = {spec: spec.canvas(loaded.image) for spec in pixels if spec.has_focus}
    decode_ms = 1000 * (time.perf_counter() - started)
    photo = loaded.image if keep_photo else None
    return Prepared(pixels, loaded.width, loaded.height, loaded.warnings, decode_ms, canvases, photo)
