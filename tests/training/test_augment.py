"""Views for training: zooming out into a scene, moving, the plain image."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from pawmatch.preprocess import InputSpec
from pawmatch.training.augment import Affine, ZoomOut, training_view
from pawmatch.training.recipe import Recipe

RED = Image.new("RGB", (40, 30), (200, 0, 0))
BLUE = np.zeros((50, 50, 3), dtype=np.uint8) + np.array([0, 0, 200], dtype=np.uint8)
NOISE = np.random.default_rng(0).integers(1, 256, (40, 60, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def seeded() -> None:
    random.seed(0)
    torch.manual_seed(0)


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


def test_moving_nothing_changes_nothing() -> None:
    image = Image.fromarray(NOISE)
    assert (np.asarray(Affine(0, 0, 0)(image)) == NOISE).all()


def test_what_comes_into_view_repeats_the_nearest_pixel() -> None:
    """An image with a one-colour rim keeps that colour in its corners, however it is moved."""
    framed = NOISE.copy()
    framed[:3] = framed[-3:] = framed[:, :3] = framed[:, -3:] = (10, 200, 30)
    move = Affine(30, 0.2, 0.2)
    seen = set()
    for _ in range(20):
        moved = np.asarray(move(Image.fromarray(framed)))
        assert moved.shape == framed.shape
        corners = moved[[0, 0, -1, -1], [0, -1, 0, -1]]
        # zoomed in, a corner shows what was inside
        seen |= {tuple(corner) for corner in corners.tolist()}
        assert not (moved.reshape(-1, 3) == 0).all(axis=1).any()
    assert (10, 200, 30) in seen


def test_affine_moves_within_its_limits() -> None:
    """A white square on black, zoomed at most by a fifth: its area stays within 0.64 to 1.44 of itself."""
    square = np.zeros((60, 60, 3), dtype=np.uint8)
    square[20:40, 20:40] = 255
    areas = [np.asarray(Affine(30, 0.0, 0.2)(Image.fromarray(square))).mean() / 255 * 3600 for _ in range(40)]
    assert 0.6 * 400 < min(areas) < 0.85 * 400
    assert 1.2 * 400 < max(areas) < 1.5 * 400


def test_the_plain_share_is_what_evaluation_sees() -> None:
    recipe = Recipe("r", "artist", "chae", input={"size": 32}, plain=1.0)
    spec = InputSpec(size=32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    image = Image.fromarray(NOISE)
    plain = training_view(recipe, 32)(image)
    torch.testing.assert_close(plain / 255, spec.prepare(image))
    view = training_view(replace(recipe, plain=0.2), 32)
    same = sum(torch.equal(view(image), plain) for _ in range(500))
    assert 70 < same < 135


def test_from_a_whole_crop_on_the_whole_image_is_shown() -> None:
    recipe = Recipe(
        "r", "artist", "chae", crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0.0, color_jitter=0.0
    )
    image = Image.fromarray(NOISE)
    whole = training_view(recipe, 48)(image)
    plain = training_view(replace(recipe, plain=1.0), 48)(image)
    assert torch.equal(whole, plain)
