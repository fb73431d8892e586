"""Stand-ins for images from elsewhere, made of training images: cut into tiles and shuffled, or corners."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pawmatch.training.data import LabelledImages

PIECES = (2, 3, 4)  # rows and columns into which a scrambled image is cut
CORNER = (0.15, 0.3)  # share of width and height that a corner shows


def stand_in_images(data: LabelledImages, seed: int = 0) -> dict[str, LabelledImages]:
    """For each kind of stand-in one image made of each image: cut into tiles in another order, or a corner.

    Other animals and objects share the tiles' textures, and not their arrangement; a corner rarely shows
    more than what is around the subject.
    """
    rng = random.Random(seed)
    tiles = tuple(shuffle_tiles(image, rng.choice(PIECES), rng) for image in data.images)
    corners = tuple(corner(image, rng.uniform(*CORNER), rng) for image in data.images)
    return {"corners of": replace(data, images=corners), "scrambled": replace(data, images=tiles)}


def shuffle_tiles(image: NDArray[np.uint8], count: int, rng: random.Random) -> NDArray[np.uint8]:
    """Cut an image (H, W, 3) into count x count equal tiles and put them back in random order."""
    height, width = image.shape[0] // count, image.shape[1] // count
    places = [(row * height, column * width) for row in range(count) for column in range(count)]
    tiles = [image[top : top + height, left : left + width] for top, left in places]
    rng.shuffle(tiles)
    mixed = np.empty((height * count, width * count, 3), dtype=np.uint8)
    for (top, left), tile in zip(places, tiles, strict=True):
        mixed[top : top + height, left : left + width] = tile
    return mixed


def corner(image: NDArray[np.uint8], share: float, rng: random.Random) -> NDArray[np.uint8]:
    """One of the four corners of an image (H, W, 3), `share` of its height and width."""
    height, width = (max(8, round(share * side)) for side in image.shape[:2])
    rows = slice(None, height) if rng.random() < 0.5 else slice(-height, None)
    columns = slice(None, width) if rng.random() < 0.5 else slice(-width, None)
    return image[rows, columns]
