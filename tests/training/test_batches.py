"""Which images an epoch shows in which order, and which process gets which of them."""

from collections import Counter

import numpy as np
import pytest
import torch

from pawmatch.errors import TrainingError
from pawmatch.training.batches import epoch_order, steps_per_epoch, train_loader
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
    loader = train_loader(images(count), RECIPE, epoch=0, workers=0, rank=rank, world=world)
    return [targets.tolist() for _, targets in loader]


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
    assert [len(batch) for batch in alone] == [4, 4, 4] == [4] * steps_per_epoch(images(13), RECIPE)
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
    for batch, targets in train_loader(images(8), RECIPE, epoch=0, workers=0):
        assert batch.dtype == torch.uint8
        assert batch[:, 0, 0, 0].tolist() == targets.tolist()
