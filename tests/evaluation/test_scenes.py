"""Composed scenes and where a heatmap lies on them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pawmatch.evaluation.faithfulness import SIDE, SUBJECT, compose, pointing
from pawmatch.results import Heatmap


def heatmap(cam: np.ndarray, size: tuple[int, int], box: tuple[float, float, float, float]) -> Heatmap:
    return Heatmap("cnn", "Beagle", cam.astype(np.float32), float(cam.max()), 0.5, box, size)


@pytest.mark.parametrize("size", [(60, 90), (200, 50), (30, 30)])
def test_the_subject_is_where_the_box_says(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    boxes = set()
    for _ in range(5):
        scene = compose(Image.new("RGB", size, "red"), Image.new("RGB", (300, 200), "blue"), rng)
        left, top, right, bottom = scene.box
        red = np.asarray(scene.image)[..., 0] > 128
        assert scene.image.size == (SIDE, SIDE)
        assert red[top:bottom, left:right].all()
        assert red.sum() == (right - left) * (bottom - top)
        assert SUBJECT[0] - 0.01 <= max(right - left, bottom - top) / SIDE <= SUBJECT[1] + 0.01
        assert (right - left) / (bottom - top) == pytest.approx(size[0] / size[1], rel=0.05)
        boxes.add(scene.box)
    assert len(boxes) == 5


def test_heat_and_area_of_known_maps() -> None:
    whole = (0.0, 0.0, 64.0, 64.0)
    even = pointing(heatmap(np.ones((4, 4)), (64, 64), whole), (0, 0, 32, 64))
    assert even is not None
    assert (even.heat, even.area) == (0.5, 0.5)
    corner = np.zeros((4, 4))
    corner[0, 0] = 1
    inside = pointing(heatmap(corner, (64, 64), whole), (0, 0, 32, 32))
    outside = pointing(heatmap(corner, (64, 64), whole), (32, 32, 64, 64))
    assert inside is not None
    assert outside is not None
    assert (inside.heat, inside.peak) == (1, True)
    assert (outside.heat, outside.peak) == (0, False)
    assert pointing(heatmap(np.zeros((4, 4)), (64, 64), whole), (0, 0, 32, 32)) is None


def test_what_a_model_does_not_see_counts_as_no_area() -> None:
    centre = (16.0, 0.0, 48.0, 64.0)  # the sides are cut off
    found = pointing(heatmap(np.ones((4, 4)), (64, 64), centre), (0, 0, 32, 64))
    assert found is not None
    assert (found.heat, found.area) == (0.5, 0.5)
