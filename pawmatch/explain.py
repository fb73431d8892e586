"""Heatmaps: Grad-CAM of the head alone, and its overlay on the photo.

The gradient runs from a logit back to the feature map and no further: that is all that Grad-CAM needs
(Selvaraju et al. 2017, arXiv 1610.02391), and it costs a fraction of a full backward pass. It is multiplied
with the map position by position, as HiResCAM does (Draelos and Carin 2020, arXiv 2011.08891). Under an
average pool the gradient is the same at every position, and this is Grad-CAM; where positions attend to each
other it is not, and Grad-CAM, which averages it first, finds nothing at all in two photos of five.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pawmatch.errors import BadOption
from pawmatch.images import ImageSource, hold_file, read_image
from pawmatch.labels import find_label
from pawmatch.models import ImageModel
from pawmatch.predict import Classifier, Examined
from pawmatch.results import Explanation, Heatmap

# "jet" is what users of heatmaps know: red is high. The other two read alike for colour-blind eyes
# and in grey print.
COLORMAPS = {
    "jet": cv2.COLORMAP_JET,
    "cividis": cv2.COLORMAP_CIVIDIS,
    "viridis": cv2.COLORMAP_VIRIDIS,
}
# Share of the strength that the coldest colour gets: the photo stays legible where nothing was found.
COLD_SHARE = 0.35


class Cam(NamedTuple):
    """A class activation map on the feature map's own grid, scaled to [0, 1], and its raw maximum."""

    values: NDArray[np.float32]
    raw_max: float


def grad_cam(model: ImageModel, feature_map: Tensor, index: int) -> Cam:
    """Grad-CAM of class `index` for one feature map (1, C, h, w).

    The model must be in evaluation mode. Its parameters get no gradient, and nothing is stored on it, so
    threads may share it. The lowest value becomes 0, the highest 1; a map without a positive value is zero.
    """
    with torch.enable_grad():
        feature_map = feature_map.detach().requires_grad_(True)
        logit = model.forward_head(feature_map)[0, index]
        (gradient,) = torch.autograd.grad(logit, feature_map)
    raw = (gradient * feature_map.detach()).sum(dim=1)[0].relu()
    span = raw.max() - raw.min()
    values = (raw - raw.min()) / span if span > 0 else torch.zeros_like(raw)
    return Cam(values.float().cpu().numpy(), float(raw.max()))


def overlay(
    image: Image.Image, heatmap: Heatmap, *, colormap: str = "jet", strength: float = 0.6
) -> Image.Image:
    """The photo with the heatmap laid over it, at the photo's own size.

    `strength` in [0, 1] is the opacity of the hottest spot. Where the map found nothing at all
    (`raw_max` is 0) the photo is returned unchanged. Raises BadOption for an unknown colour map or a
    strength out of range.
    """
    _check_strength(strength)
    table = _color_table(colormap)
    if heatmap.raw_max <= 0:
        return image.copy()
    # Bilinear resizing and the opacity are linear, so the opacity is worked out on the coarse map. OpenCV
    # then mixes bytes, several times faster than the same in arrays of fractions.
    pixels = np.array(image, dtype=np.uint8)
    left, top, right, bottom = (round(edge) for edge in heatmap.box)
    part = pixels[top:bottom, left:right]
    size = (right - left, bottom - top)
    opacity = cv2.resize(strength * (COLD_SHARE + (1 - COLD_SHARE) * heatmap.cam), size)
    levels = (cv2.resize(heatmap.cam, size) * 255).astype(np.uint8)
    colors = cv2.applyColorMap(levels, table.reshape(-1, 1, 3))
    part[...] = cv2.blendLinear(np.ascontiguousarray(part), colors, 1 - opacity, opacity)
    return Image.fromarray(pixels)


class Overlays(Mapping[str, Image.Image]):
    """The photo with each variant's heatmap laid over it, drawn when it is asked for and then kept.

    An overlay of a large photo costs more than the forward pass of a small model, and many who explain
    want one of the three, or the map's values alone.
    """

    def __init__(
        self, photo: Image.Image, heatmaps: Mapping[str, Heatmap], *, colormap: str, strength: float
    ) -> None:
        _check_strength(strength)
        _color_table(colormap)
        self._draw = partial(overlay, photo, colormap=colormap, strength=strength)
        self._heatmaps = heatmaps
        self._drawn: dict[str, Image.Image] = {}

    def __getitem__(self, variant: str) -> Image.Image:
        if variant not in self._drawn:
            self._drawn[variant] = self._draw(self._heatmaps[variant])
        return self._drawn[variant]

    def __iter__(self) -> Iterator[str]:
        return iter(self._heatmaps)

    def __len__(self) -> int:
        return len(self._heatmaps)


def colormap_stops(colormap: str, count: int = 9) -> list[str]:
    """`count` colours from low to high as "#rrggbb", for a legend."""
    table = _color_table(colormap)
    rows = np.linspace(0, 255, count).round().astype(int)
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in table[rows].tolist()]


def _check_strength(strength: float) -> None:
    if not 0 <= strength <= 1:
        raise BadOption(f"Strength {strength} is outside 0 to 1.")


def _color_table(colormap: str) -> NDArray[np.uint8]:
    """RGB (256, 3) of a colour map."""
    if colormap not in COLORMAPS:
        raise BadOption(f"Colour map {colormap!r} is unknown; use one of {', '.join(COLORMAPS)}.")
    ramp = np.arange(256, dtype=np.uint8).reshape(-1, 1)
    bgr = cv2.applyColorMap(ramp, COLORMAPS[colormap])[:, 0]
    return np.ascontiguousarray(bgr[:, ::-1])


class ExplainingClassifier(Classifier):
    """A Classifier that can also show where each variant found its evidence."""

    def explain(
        self,
        image: ImageSource,
        label: str | None = None,
        *,
        top_k: int = 5,
        colormap: str = "jet",
        strength: float = 0.6,
    ) -> Explanation:
        """Classify one image and map the evidence for one label, by default the main variant's first choice.

        `label` may be a label or a display name. Raises ImageError, UnknownLabel and BadOption.
        """
        self._check_top_k(top_k)
        if label is not None:
            find_label(self.labels, label)
        held = hold_file(image)
        # Decoded twice, so that the answer is the one that predict gives, to the last digit.
        examined = self.examine([self.prepare(held)])[0]
        photo = read_image(held).image
        return self.explain_examined(
            examined, photo, label, top_k=top_k, colormap=colormap, strength=strength
        )

    def explain_examined(
        self,
        examined: Examined,
        photo: Image.Image,
        label: str | None = None,
        *,
        top_k: int = 5,
        colormap: str = "jet",
        strength: float = 0.6,
    ) -> Explanation:
        """As explain, for an image that has been examined; `photo` is the same image as open_image gives it.

        Raises UnknownLabel and BadOption.
        """
        prediction = self.conclude(examined, top_k)
        wanted = prediction.top.label if label is None else find_label(self.labels, label)
        index = self.labels.index(wanted)
        started = time.perf_counter()
        heatmaps = {variant: self._heatmap(variant, examined, index, photo.size) for variant in self.members}
        explain_ms = round(1000 * (time.perf_counter() - started), 1)
        return Explanation(
            prediction=replace(prediction, timing_ms={**prediction.timing_ms, "explain": explain_ms}),
            label=self.labels[index],
            name=self.names[index],
            photo=photo,
            heatmaps=heatmaps,
            overlays=Overlays(photo, heatmaps, colormap=colormap, strength=strength),
        )

    def _heatmap(self, variant: str, examined: Examined, index: int, size: tuple[int, int]) -> Heatmap:
        member = self.members[variant]
        cam = grad_cam(member.model, examined.feature_maps[variant], index)
        return Heatmap(
            variant=variant,
            label=self.labels[index],
            cam=cam.values,
            raw_max=cam.raw_max,
            confidence=float(self.probabilities(variant, examined.logits[variant])[index]),
            box=member.spec.box(*size),
            size=size,
        )
