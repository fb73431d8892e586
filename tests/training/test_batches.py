"""Which images an epoch shows in which order, and which process gets which of them."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from pawmatch.errors import TrainingError
from pawmatch.images import InputSpec
from pawmatch.training.augment import TrainingBatches, epoch_order, normalise, steps_per_epoch
from pawmatch.training.data import LabelledImages
from pawmatch.training.recipe import Recipe

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


def test_balancing_changes_nothing_where_counts_are_equal() -> None:
    targets = [0, 1, 2] * 10
    assert epoch_order(targets, balanced=True, seed=3) == epoch_order(targets, balanced=False, seed=3)


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


def test_images_reach_the_batch_unchanged_where_nothing_changes_them() -> None:
    for views, targets in TrainingBatches(images(8), RECIPE).epoch(0):
        assert views.dtype == torch.float32
        torch.testing.assert_close(views.mean(dim=(1, 2, 3)) * 255, targets.float())


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


def test_no_epoch_depends_on_those_before_it() -> None:
    batches = TrainingBatches(noise(20), LIVELY)
    for _ in batches.epoch(0):
        pass
    later, at_once = (next(source.epoch(1))[0] for source in (batches, TrainingBatches(noise(20), LIVELY)))
    assert torch.equal(later, at_once)


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


def test_normalise_equals_the_spec() -> None:
    spec = InputSpec(size=16)
    image = Image.new("RGB", (16, 16), (10, 100, 200))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    torch.testing.assert_close(normalise(pixels, spec)[0], spec.prepare(image))
