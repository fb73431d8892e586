"""Views for training: an image set into a scene, moved, cropped, shown as it is."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

from pawmatch.errors import TrainingError
from pawmatch.images import InputSpec
from pawmatch.training.augment import (
    LUMA,
    Augment,
    TrainingBatches,
    epoch_order,
    padded,
    steps_per_epoch,
)
from pawmatch.training.data import LabelledImages
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


def geometry(move: Recipe) -> tuple[Tensor, Tensor]:
    """Where 500 images of 40 x 40 pixels have a view's two axes, in half sides: across, down."""
    sizes, plain = torch.tensor([[40, 40]] * 500), torch.zeros(500, dtype=torch.bool)
    matrix, _ = Augment(move, 64).geometry(sizes, plain, torch.Generator().manual_seed(0))
    assert torch.allclose(matrix[:, :, 2], torch.tensor(20.0))
    return matrix[:, :, 0] / 20, matrix[:, :, 1] / 20


def test_angles_and_slants_are_those_of_the_recipe() -> None:
    across, down = geometry(replace(STILL, rotation=30.0, shear=20.0))
    for axis in (across, down):
        torch.testing.assert_close(axis.norm(dim=1), torch.ones(500))
    angles = torch.atan2(-down[:, 0], down[:, 1]).rad2deg()
    assert 25 < float(angles.abs().amax()) <= 30.001
    assert (angles > 0).float().mean() == pytest.approx(0.5, abs=0.1)
    slants = (across * down).sum(dim=1).asin().rad2deg()  # from a right angle
    assert 15 < float(slants.abs().amax()) <= 20.001


def test_a_shear_of_two_tenths_is_of_degrees_as_keras_reads_it() -> None:
    across, _ = geometry(replace(STILL, shear=0.2))
    tilted = across[:, 1].asin().rad2deg().abs()
    assert 0.15 < float(tilted.amax()) <= 0.2001


def test_width_and_height_are_zoomed_apart() -> None:
    across, down = geometry(replace(STILL, zoom=0.2))
    wide, tall = across[:, 0], down[:, 1]
    for scale in (wide, tall):
        assert 0.8 <= float(scale.amin()) < 0.82
        assert 1.18 < float(scale.amax()) <= 1.2
    assert abs(float(torch.corrcoef(torch.stack([wide, tall]))[0, 1])) < 0.15


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


def test_a_seed_gives_the_same_views_whatever_was_drawn_before() -> None:
    recipe = Recipe("r", "breed", "hybrid", rotation=20.0, zoom_out=0.5)
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


RECIPE = Recipe(
    "r",
    "breed",
    "hybrid",
    batch_size=4,
    input={"size": 16},
    crop_scale=(1.0, 1.0),
    color_jitter=0.0,
    flip=0.0,
)


def images(count: int) -> LabelledImages:
    """Images whose grey level is their number, each its own class."""
    pixels = tuple(np.full((16, 16, 3), number, dtype=np.uint8) for number in range(count))
    return LabelledImages(tuple(map(str, range(count))), pixels, tuple(range(count)), ())


def shown(count: int, rank: int, world: int) -> list[list[int]]:
    batches = TrainingBatches(images(count), RECIPE).epoch(0, rank=rank, world=world)
    return [targets.tolist() for _, targets in batches]


def test_each_image_once_in_another_order_each_epoch() -> None:
    first, second = (epoch_order(range(50), balanced=False, seed=seed) for seed in (0, 1))
    assert sorted(first) == sorted(second) == list(range(50))
    assert first != second
    assert first == epoch_order(range(50), balanced=False, seed=0)


def test_balancing_draws_rare_classes_as_often() -> None:
    targets = [0] * 900 + [1] * 100
    drawn = Counter(targets[index] for index in epoch_order(targets, balanced=True, seed=0))
    assert sum(drawn.values()) == 1000
    assert 430 < drawn[1] < 570


def test_processes_share_out_the_same_batches() -> None:
    alone, first, second = shown(13, 0, 1), shown(13, 0, 2), shown(13, 1, 2)
    assert [len(batch) for batch in alone] == [4, 4, 4] == [4] * steps_per_epoch(13, RECIPE)
    for whole, mine, other in zip(alone, first, second, strict=True):
        assert len(mine) == len(other) == 2
        assert set(mine) | set(other) == set(whole)


def test_a_single_short_batch_is_filled_up_evenly() -> None:
    assert [len(batch) for batch in shown(3, 0, 1)] == [3]
    first, second = shown(3, 0, 2), shown(3, 1, 2)
    assert [len(batch) for batch in (*first, *second)] == [2, 2]
    assert set(first[0]) | set(second[0]) == {0, 1, 2}


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(TrainingError, match="batch_size=6"):
        shown(13, 0, 3)


def noise(count: int) -> LabelledImages:
    """Images of unlike sizes."""
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 256, (20 + 3 * n, 40 - n, 3), dtype=np.uint8) for n in range(count)]
    return LabelledImages(("a", "b"), tuple(pixels), tuple(n % 2 for n in range(count)), ())


LIVELY = replace(RECIPE, batch_size=8, input={"size": 32}, crop_scale=(0.3, 1.0), flip=0.5, zoom_out=0.5)


def test_same_seed_and_epoch_give_the_same_batches() -> None:
    scenes = [np.full((9, 7, 3), 200, dtype=np.uint8)]

    def views(epoch: int, seed: int = 0) -> list[torch.Tensor]:
        batches = TrainingBatches(noise(20), replace(LIVELY, seed=seed), backgrounds=scenes)
        return [batch for batch, _ in batches.epoch(epoch)]

    first, again = views(0), views(0)
    assert [batch.shape for batch in first] == [(8, 3, 32, 32)] * 2
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    for other in (views(1), views(0, seed=1)):
        assert not torch.equal(first[0], other[0])


def test_the_views_of_every_image_come_once_and_in_order() -> None:
    level = replace(RECIPE, color_jitter=0.0)
    views = torch.cat(list(TrainingBatches(images(10), level).in_order(3, batch_size=4)))
    torch.testing.assert_close(views.mean(dim=(1, 2, 3)) * 255, torch.arange(10.0))
    lively = TrainingBatches(noise(10), LIVELY)
    once, twice, other = (torch.cat(list(lively.in_order(number))) for number in (0, 0, 1))
    assert torch.equal(once, twice)
    assert not torch.equal(once, other)


def test_images_grow_with_the_sizes_of_the_recipe() -> None:
    growing = TrainingBatches(noise(8), replace(LIVELY, epochs=4, sizes=((0.0, 16), (0.5, 24))))
    assert [next(growing.epoch(number))[0].shape[-1] for number in range(4)] == [16, 16, 24, 24]


def test_scenes_are_kept_only_where_images_are_set_into_them() -> None:
    scenes = [np.full((30, 50, 3), 200, dtype=np.uint8)]
    assert TrainingBatches(noise(4), RECIPE, backgrounds=scenes).backgrounds is None
    kept = TrainingBatches(noise(4), LIVELY, backgrounds=scenes)
    assert kept.backgrounds is not None
    assert kept.backgrounds.shape == (1, 3, 40, 40)
    assert bool((kept.backgrounds == 200).all())
    dark = replace(noise(8), images=(np.zeros((40, 40, 3), dtype=np.uint8),) * 8)
    recipe = replace(LIVELY, zoom_out=1.0, zoom_out_factor=3.0)
    (views,) = (batch for batch, _ in TrainingBatches(dark, recipe, backgrounds=scenes).epoch(0))
    assert float(views.max()) == pytest.approx(200 / 255)


def test_random_changes_come_from_the_seed_and_leave_plain_views() -> None:
    image = NOISE.float().div(255)
    recipe = replace(STILL, rand_augment=9)
    before = torch.random.get_rng_state()
    first, again, other = (views(recipe, *[NOISE] * 6, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len({tuple(view.flatten().tolist()) for view in first}) > 3
    assert (first >= 0).all()
    assert (first <= 1).all()
    torch.testing.assert_close(views(replace(recipe, plain=1.0), NOISE)[0], image, atol=1e-5, rtol=0)


def test_an_epoch_may_show_each_image_several_times() -> None:
    data = LabelledImages(("a", "b"), (np.zeros((8, 8, 3), np.uint8),) * 6, (0, 0, 0, 1, 1, 1))
    recipe = replace(STILL, repeats=4, batch_size=4)
    batches = TrainingBatches(data, recipe).order(0)
    assert [len(batch) for batch in batches] == [4] * steps_per_epoch(6, recipe) == [4] * 6
    shown = [row for batch in batches for row in batch]
    assert Counter(shown) == dict.fromkeys(range(6), 4)
    assert shown[:6] != shown[6:12]
