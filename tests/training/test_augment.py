"""Zooming out: the subject set into a larger scene."""

import random

import numpy as np
import pytest
from PIL import Image

from pawmatch.training.augment import ZoomOut

RED = Image.new("RGB", (40, 30), (200, 0, 0))
BLUE = np.zeros((50, 50, 3), dtype=np.uint8) + np.array([0, 0, 200], dtype=np.uint8)


@pytest.fixture(autouse=True)
def seeded() -> None:
    random.seed(0)


def test_the_whole_image_lies_somewhere_in_the_scene() -> None:
    corners = set()
    for _ in range(20):
        scene = ZoomOut(1.0, 2.0, [BLUE])(RED)
        assert 40 <= scene.width <= 80
        assert 30 <= scene.height <= 60
        red = np.asarray(scene)[..., 0] == 200
        assert red.sum() == 40 * 30
        assert (np.asarray(scene)[~red] == [0, 0, 200]).all()
        rows, columns = np.nonzero(red)
        corners.add((rows.min(), columns.min()))
    assert len(corners) > 10


def test_the_share_is_kept() -> None:
    changed = sum(ZoomOut(0.25, 2.0, [BLUE])(RED) is not RED for _ in range(2000))
    assert 420 < changed < 580


def test_without_backgrounds_its_own_colours_surround_it() -> None:
    scene = ZoomOut(1.0, 2.0)(RED)
    assert (np.asarray(scene) == [200, 0, 0]).all()
