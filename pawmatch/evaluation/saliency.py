"""Maps of importance over an image: a heatmap's own, and those that it has to beat."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Map = NDArray[np.float32]

BLOB_WIDTH = 0.25  # standard deviation of the centred blob as a share of the side


def enlarge(cam: Map, side: int) -> Map:
    """A coarse map (h, w) drawn over a square image (side, side), as heatmaps are drawn."""
    enlarged: Map = cv2.resize(cam, (side, side), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    return enlarged


def random_map(rng: np.random.Generator, grid: tuple[int, ...], side: int) -> Map:
    """A random map as coarse as a heatmap of `grid` (h, w): noise of single pixels would be no rival."""
    return enlarge(rng.random(grid, dtype=np.float32), side)


def centre_map(side: int) -> Map:
    """A round blob in the middle (side, side): where photographers put what matters."""
    offset = (np.arange(side) - (side - 1) / 2) / (BLOB_WIDTH * side)
    bell = np.exp(-(offset**2) / 2)
    return np.outer(bell, bell).astype(np.float32)


def ranked(saliency: Map, tie_break: Map) -> Map:
    """The pixels' order of importance: 0 for the least, near 1 for the most, no two alike (side, side).

    Heatmaps are flat zero over wide areas. In the image's own order these would be taken row by row,
    in random order as a noise that disturbs any network; `tie_break`, a smooth map, settles it.
    """
    order = np.lexsort((tie_break.ravel(), saliency.ravel()))
    ranks = np.empty(saliency.size, dtype=np.float32)
    ranks[order] = np.arange(saliency.size, dtype=np.float32) / saliency.size
    return ranks.reshape(saliency.shape)
