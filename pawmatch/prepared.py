"""Prepared: one image as the models of a task take it. Made once, whatever the number of models."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pawmatch.images import ImageSource, read_image
from pawmatch.preprocess import InputSpec


@dataclass(frozen=True)
class Prepared:
    """What the models see of one image, and what is known about how it came to be.

    `pixels` has for each input rule the image's views, uint8 (V, size, size, 3): small, whatever the size of
    the photo, so that it can wait in a queue or come from another process. `canvases` has the image itself,
    shrunk, for each rule by which a closer look may follow. `width` and `height` are those
    of the whole upright picture; `decode_ms` is what it took to read, decode and shrink it.
    """

    pixels: Mapping[InputSpec, NDArray[np.uint8]]
    canvases: Mapping[InputSpec, NDArray[np.uint8]]
    width: int
    height: int
    warnings: tuple[str, ...]
    decode_ms: float


def prepare(source: ImageSource, specs: Sequence[InputSpec]) -> Prepared:
    """Read an image and make of it what each of the input rules asks for. Raises a leaf of ImageError.

    A large JPEG photo is decoded no larger than the rules need, which is several times faster.
    """
    started = time.perf_counter()
    loaded = read_image(source, min_side=max(spec.least_side for spec in specs))
    pixels = {spec: spec.pixels(loaded.image) for spec in dict.fromkeys(specs)}
    canvases = {spec: spec.canvas(loaded.image) for spec in pixels if spec.has_focus}
    decode_ms = 1000 * (time.perf_counter() - started)
    return Prepared(pixels, canvases, loaded.width, loaded.height, loaded.warnings, decode_ms)
