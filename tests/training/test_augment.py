"""Views for training: an image set into a scene, moved, cropped, shown as it is."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

from pawmatch.images import InputSpec
from pawmatch.training.augment import LUMA, Augment, padded
from pawmatch.training.recipe import Recipe

STILL = Recipe(
    "r",
    "breed",
    "hybrid",
    input={"size": 64, "interpolation": "bilinear"},
    crop_scale=(1.0, 1.0),
    flip=0.0,
    color_jitter=0.0,
)
BLUE = torch.tensor([0, 0, 200], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 50, 50)
NOISE = torch.from_numpy(np.random.default_rng(0).integers(1, 256, (64, 64, 3), dtype=np.uint8)).permute(
    2, 0, 1
)


def plain_colour(height: int, width: int, colour: tuple[int, int, int]) -> Tensor:
    return torch.tensor(colour, dtype=torch.uint8).view(3, 1, 1).expand(3, height, width)


def views(
    recipe: Recipe, *images: Tensor, size: int = 64, scenes: Tensor | None = None, seed: int = 0
) -> Tensor:
    block, sizes = padded(images)
    return Augment(recipe, size, scenes)(block, sizes, torch.Generator().manual_seed(seed))


def test_the_whole_image_lies_somewhere_in_the_scene() -> None:
    red = plain_colour(60, 60, (200, 0, 0))
    recipe = replace(STILL, zoom_out=1.0, zoom_out_factor=2.0)
    seen = views(recipe, *[red] * 40, size=120, scenes=BLUE)
    corners = set()
    for view in seen:
        # What is not red is blue, and a pixel on the edge is a mix of both.
        torch.testing.assert_close(view[0] + view[2], torch.full((120, 120), 200 / 255))
        area = float(view[0].sum() / 200 * 255)
        assert 60 * 60 - 1 <= area <= 120 * 120 + 1
        rows, columns = (view[0] > 0.5).nonzero(as_tuple=True)
        height, width = int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1
        assert abs(height - width) <= 1
        assert height * width == pytest.approx(area, rel=0.05)  # one block, and all of it
        corners.add((int(rows.min()), int(columns.min())))
    assert len(corners) > 30


def test_the_share_is_kept() -> None:
    red = plain_colour(16, 16, (200, 0, 0))
    seen = views(replace(STILL, zoom_out=0.25), *[red] * 2000, size=16, scenes=BLUE)
    changed = int((seen[:, 2].amax(dim=(1, 2)) > 0).sum())
    assert 420 < changed < 580


def test_without_scenes_its_own_edge_surrounds_it() -> None:
    framed = NOISE.clone()
    framed[:, :2], framed[:, -2:], framed[:, :, :2], framed[:, :, -2:] = (
        torch.tensor([10, 200, 30], dtype=torch.uint8).view(3, 1, 1) for _ in range(4)
    )
    seen = views(replace(STILL, zoom_out=1.0, zoom_out_factor=3.0), *[framed] * 20)
    frame = torch.tensor([10, 200, 30]) / 255
    for view in seen:
        corners = view[:, [0, 0, -1, -1], [0, -1, 0, -1]]
        assert float((corners - frame[:, None]).abs().amax()) < 0.5 / 255


def test_what_comes_into_view_repeats_the_nearest_pixel() -> None:
    """An image of one colour stays of one colour, however it is moved, wherever it lies in its block."""
    move = replace(STILL, rotation=45.0, shear=0.3, zoom=0.3, flip=0.5)
    green, larger = plain_colour(20, 30, (10, 200, 30)), plain_colour(90, 80, (0, 0, 0))
    for view in views(move, *[green] * 30, larger)[:30]:
        torch.testing.assert_close(view, plain_colour(64, 64, (10, 200, 30)) / 255)


def test_moves_stay_within_their_limits() -> None:
    """A white square on black that is turned, and scaled by a fifth at most: its area goes by the square."""
    square = torch.zeros(3, 60, 60, dtype=torch.uint8)
    square[:, 20:40, 20:40] = 255
    seen = views(replace(STILL, rotation=30.0, zoom=0.2), *[square] * 60, size=60)
    areas = seen.mean(dim=(1, 2, 3)) * 3600
    assert 400 / 1.2**2 * 0.98 < float(areas.min()) < 330
    assert 520 < float(areas.max()) < 400 / 0.8**2 * 1.02


def test_angles_and_slants_are_those_of_the_recipe() -> None:
    augment = Augment(replace(STILL, rotation=30.0, shear=0.2), 64)
    sizes, plain = torch.tensor([[40, 40]] * 500), torch.zeros(500, dtype=torch.bool)
    matrix, _ = augment.geometry(sizes, plain, torch.Generator().manual_seed(0))
    across, down = matrix[:, :, 0] / 20, matrix[:, :, 1] / 20
    torch.testing.assert_close(across.norm(dim=1), torch.ones(500))
    angles = torch.atan2(across[:, 1], across[:, 0]).rad2deg()
    assert 25 < float(angles.abs().amax()) <= 30.001
    assert (angles > 0).float().mean() == pytest.approx(0.5, abs=0.1)
    slants = (across * down).sum(dim=1)  # of a vertical line, against the turned horizontal one
    assert 0.15 < float(slants.abs().amax()) <= 0.2001
    assert torch.allclose(matrix[:, :, 2], torch.tensor(20.0))


def test_half_of_the_images_are_mirrored() -> None:
    seen = views(replace(STILL, flip=0.5), *[NOISE] * 400)
    same, mirrored = (
        (seen - wanted / 255).abs().amax(dim=(1, 2, 3)) < 1e-3 for wanted in (NOISE, NOISE.flip(2))
    )
    assert bool((same ^ mirrored).all())
    assert 160 < int(mirrored.sum()) < 240


def test_the_plain_share_is_what_evaluation_sees() -> None:
    """To within the rounding to grey levels, for images that need no scaling."""
    busy = replace(STILL, plain=1.0, rotation=30.0, zoom_out=1.0, color_jitter=0.5, crop_scale=(0.2, 0.9))
    spec = InputSpec(size=64, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    expected = spec.prepare(Image.fromarray(NOISE.permute(1, 2, 0).numpy()))
    torch.testing.assert_close(views(busy, NOISE, scenes=BLUE)[0], expected, atol=1e-4, rtol=0)
    share = views(replace(busy, plain=0.2), *[NOISE] * 500, scenes=BLUE)
    assert 70 < int(((share - expected).abs().amax(dim=(1, 2, 3)) < 1e-3).sum()) < 135


def test_the_plain_share_is_cut_to_the_square_where_evaluation_does() -> None:
    long = torch.cat([plain_colour(64, 20, (0, 0, 0)), NOISE, plain_colour(64, 20, (0, 0, 0))], dim=2)
    cropped = replace(STILL, plain=1.0, input={"size": 64, "resize": "crop"})
    torch.testing.assert_close(views(cropped, long)[0], NOISE / 255, atol=1e-4, rtol=0)


def test_smooth_images_are_scaled_as_evaluation_scales_them() -> None:
    ramp = torch.linspace(0, 255, 90).round().to(torch.uint8).expand(3, 70, 90)
    spec = InputSpec(size=64, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    expected = spec.prepare(Image.fromarray(ramp.permute(1, 2, 0).numpy()))
    torch.testing.assert_close(views(STILL, ramp)[0], expected, atol=2 / 255, rtol=0)


def test_a_whole_crop_is_the_whole_image() -> None:
    torch.testing.assert_close(views(STILL, NOISE)[0], NOISE / 255, atol=1e-4, rtol=0)


def test_crops_have_the_area_and_shape_of_the_recipe_and_stay_inside() -> None:
    augment = Augment(replace(STILL, crop_scale=(0.3, 0.7), crop_ratio=(0.8, 1.25)), 64)
    sizes, plain = torch.tensor([[200, 220]] * 500), torch.zeros(500, dtype=torch.bool)
    matrix, zoomed_out = augment.geometry(sizes, plain, torch.Generator().manual_seed(0))
    half_wide, half_tall = matrix[:, 0, 0], matrix[:, 1, 1]
    area, ratio = 4 * half_wide * half_tall / (200 * 220), half_wide / half_tall
    assert 0.299 < float(area.min()) < 0.32
    assert 0.68 < float(area.max()) < 0.701
    assert 0.799 < float(ratio.min()) < 0.82
    assert 1.22 < float(ratio.max()) < 1.2501
    x, y = matrix[:, 0, 2], matrix[:, 1, 2]
    assert bool(((x >= half_wide - 1e-3) & (x <= 220 - half_wide + 1e-3)).all())
    assert bool(((y >= half_tall - 1e-3) & (y <= 200 - half_tall + 1e-3)).all())
    assert not zoomed_out.any()


def test_shrunken_views_are_means_and_not_every_other_pixel() -> None:
    """Columns black and white by turns: a view of half the size is grey, where single samples alias."""
    stripes = torch.zeros(3, 64, 64, dtype=torch.uint8)
    stripes[:, :, ::2] = 255
    (view,) = views(STILL, stripes, size=32)
    torch.testing.assert_close(view, avg_pool2d(stripes.float() / 255, 2), atol=1e-4, rtol=0)


def test_what_one_image_needs_changes_no_other() -> None:
    alone = views(STILL, NOISE)[0]
    large = plain_colour(200, 200, (5, 5, 5))
    torch.testing.assert_close(views(STILL, NOISE, large)[0], alone, atol=1e-4, rtol=0)


def test_colours_change_by_the_share_of_the_recipe() -> None:
    recipe = replace(STILL, color_jitter=0.2)
    grey = plain_colour(8, 8, (100, 100, 100))
    levels = views(recipe, *[grey] * 300, size=16)[:, :, 0, 0] * 255
    assert float((levels.amax(dim=1) - levels.amin(dim=1)).amax()) < 1e-2  # grey stays grey
    assert 79.9 < float(levels.min()) < 82
    assert 118 < float(levels.max()) < 120.1
    # Contrast and saturation both change how far a colour is from grey, each by a fifth.
    red = plain_colour(8, 8, (120, 40, 40))
    luma = float((torch.tensor([120.0, 40, 40]) * torch.tensor(LUMA)).sum())
    seen = views(recipe, *[red] * 600, size=16)[:, :, 0, 0] * 255
    spread = (seen[:, 0] - seen[:, 1]) / (seen * torch.tensor(LUMA)).sum(dim=1) * luma / 80
    assert 0.8**2 - 1e-3 < float(spread.min()) < 0.72
    assert 1.32 < float(spread.max()) < 1.2**2 + 1e-3


@pytest.mark.parametrize("rand_augment", [0, 9])
def test_a_seed_gives_the_same_views_whatever_was_drawn_before(rand_augment: int) -> None:
    recipe = Recipe("r", "breed", "hybrid", rotation=20.0, zoom_out=0.5, rand_augment=rand_augment)
    first = views(recipe, *[NOISE] * 8, scenes=BLUE, seed=1)
    torch.rand(5)
    state = torch.get_rng_state()
    assert torch.equal(views(recipe, *[NOISE] * 8, scenes=BLUE, seed=1), first)
    assert torch.equal(torch.get_rng_state(), state)  # dropout draws what it would have drawn
    assert not torch.equal(views(recipe, *[NOISE] * 8, scenes=BLUE, seed=2), first)
    assert first.shape == (8, 3, 64, 64)
    assert 0 <= float(first.min()) < float(first.max()) <= 1


def test_images_of_any_size_share_one_block() -> None:
    block, sizes = padded([NOISE, plain_colour(80, 20, (7, 8, 9))])
    assert block.shape == (2, 3, 80, 64)
    assert block.dtype == torch.uint8
    assert sizes.tolist() == [[64, 64], [80, 20]]
    assert torch.equal(block[0, :, :64, :64], NOISE)
    assert int(block[1].sum()) == 80 * 20 * (7 + 8 + 9)
    # and none sees into the padding
    shown = views(STILL, NOISE, plain_colour(80, 20, (7, 8, 9)))
    torch.testing.assert_close(shown[1], plain_colour(64, 64, (7, 8, 9)) / 255)
    assert math.isclose(float(shown[0].mean()), float(NOISE.float().mean() / 255), rel_tol=1e-4)
