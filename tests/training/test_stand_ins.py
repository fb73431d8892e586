"""Stand-ins that scope gates learn from."""

import random

import numpy as np

from pawmatch.calibration.scope import STAND_IN_FLAGGED
from pawmatch.training.data import LabelledImages
from pawmatch.training.export import corner, shuffle_tiles, stand_in_images

NUMBERED = np.arange(24 * 36, dtype=np.int64).reshape(24, 36, 1).repeat(3, axis=2) % 251


def test_tiles_hold_the_same_pixels_elsewhere() -> None:
    image = NUMBERED.astype(np.uint8)
    mixed = shuffle_tiles(image, 3, random.Random(0))
    assert mixed.shape == image.shape
    assert not np.array_equal(mixed, image)
    assert np.array_equal(np.sort(mixed.ravel()), np.sort(image.ravel()))
    tile = image[:8, :12]
    assert any(
        np.array_equal(mixed[top : top + 8, left : left + 12], tile)
        for top in (0, 8, 16)
        for left in (0, 12, 24)
    )


def test_corners_touch_two_edges_and_are_never_empty() -> None:
    image = NUMBERED.astype(np.uint8)
    for seed in range(8):
        part = corner(image, 0.5, random.Random(seed))
        assert part.shape == (12, 18, 3)
        assert any(
            np.array_equal(part, image[r, c])
            for r in (slice(12), slice(12, 24))
            for c in (slice(18), slice(18, 36))
        )
    assert corner(image, 0.01, random.Random(0)).shape == (8, 8, 3)


def test_stand_ins_are_repeatable_and_one_of_each_kind_for_an_image() -> None:
    image = NUMBERED.astype(np.uint8)
    data = LabelledImages(("a", "b"), (image, image[:, ::-1]), (0, 1), ())
    first, again = stand_in_images(data), stand_in_images(data)
    assert set(first) == set(STAND_IN_FLAGGED)
    for kind, made in first.items():
        assert made.targets == data.targets
        assert all(np.array_equal(a, b) for a, b in zip(made.images, again[kind].images, strict=True))
        assert not any(np.array_equal(a, b) for a, b in zip(made.images, data.images, strict=True))
