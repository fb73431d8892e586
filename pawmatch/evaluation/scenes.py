"""Scenes in which the subject's place is known: a picture of it, pasted into another one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pawmatch.results import Heatmap

SIDE = 448  # pixels of a scene, twice the usual input: nothing is lost before the model's own resizing
SUBJECT = (0.4, 0.65)  # the subject's longer side as a share of the scene's, from and to


@dataclass(frozen=True)
class Scene:
    """A square picture and the part of it that holds the subject: left, top, right, bottom in pixels."""

    image: Image.Image
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class Pointing:
    """How a heatmap lies on a scene: shares of its heat and of the visible area inside the box.

    `peak` says whether the hottest pixel lies in the box, as in the pointing game (Zhang et al. 2016).
    """

    heat: float
    area: float
    peak: bool


def compose(subject: Image.Image, background: Image.Image, rng: np.random.Generator) -> Scene:
    """The subject at a random place and size on the background, which is cut to a square."""
    scene = ImageOps.fit(background, (SIDE, SIDE), Image.Resampling.BICUBIC)
    scale = SIDE * rng.uniform(*SUBJECT) / max(subject.size)
    width, height = (max(1, round(length * scale)) for length in subject.size)
    left, top = (int(rng.integers(0, SIDE - length + 1)) for length in (width, height))
    scene.paste(subject.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0), (left, top))
    return Scene(scene, (left, top, left + width, top + height))


def pointing(heatmap: Heatmap, box: tuple[int, int, int, int]) -> Pointing | None:
    """Compare a scene's heatmap with the subject's box; None where the map found nothing at all."""
    if heatmap.raw_max <= 0:
        return None
    values = heatmap.values
    inside, seen = _mask(values.shape, box), _mask(values.shape, heatmap.box)
    top, left = np.unravel_index(int(values.argmax()), values.shape)
    return Pointing(
        heat=float(values[inside].sum() / values.sum()),
        area=float((inside & seen).sum() / seen.sum()),
        peak=bool(inside[top, left]),
    )


def _mask(shape: tuple[int, ...], box: tuple[float, float, float, float]) -> NDArray[np.bool_]:
    left, top, right, bottom = (round(edge) for edge in box)
    mask = np.zeros(shape, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask
