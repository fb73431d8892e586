"""Deletion and insertion on images whose evidence has a known place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pawmatch.evaluation.faithfulness import area_under, deleted, inserted, random_map, ranked

SIDE, STEPS = 32, 8


@pytest.fixture
def image() -> Tensor:
    return torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def test_pixels_go_and_come_in_equal_portions(image: Tensor) -> None:
    rng = np.random.default_rng(0)
    ranks = ranked(random_map(rng, (4, 4), SIDE), random_map(rng, (4, 4), SIDE))
    gone, come = deleted(image, ranks, STEPS), inserted(image, ranks, STEPS)
    assert gone.shape == come.shape == (STEPS + 1, 3, SIDE, SIDE)
    for step in range(STEPS + 1):
        changed = (gone[step] != image).any(dim=0)
        assert changed.sum() == SIDE * SIDE * step // STEPS
        assert torch.equal(gone[step][:, ~changed], image[:, ~changed])
        # The most important ones go first.
        assert (ranks[changed.numpy()] >= 1 - step / STEPS).all()
    assert torch.equal(come[-1], image)
    assert gone[-1].std(dim=(1, 2)).max() == 0
    assert 0 < come[0].std() < image.std() / 2


def test_an_image_is_left_as_it_was(image: Tensor) -> None:
    before = image.clone()
    ranks = np.arange(SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE) / np.float32(SIDE**2)
    deleted(image, ranks, STEPS)
    inserted(image, ranks, STEPS)
    assert torch.equal(image, before)


def test_area_of_known_curves() -> None:
    assert area_under(np.array([1.0, 1, 1])) == 1
    assert area_under(np.array([1.0, 0.0])) == 0.5
    assert area_under(np.array([1.0, 0, 0, 0, 0])) == 0.125


def test_a_perfect_map_beats_random_ones(image: Tensor) -> None:
    # A "model" that is sure of its answer as long as one corner is bright.
    def probability(images: Tensor) -> np.ndarray:
        return torch.sigmoid(4 * images[:, :, :8, :8].mean(dim=(1, 2, 3)) - 4).double().numpy()

    image[:, :8, :8] += 3
    corner = np.zeros((SIDE, SIDE), dtype=np.float32)
    corner[:8, :8] = 1
    rng = np.random.default_rng(0)
    tie_break = random_map(rng, (4, 4), SIDE)
    perfect = ranked(corner, tie_break)
    for _ in range(10):
        chance = ranked(random_map(rng, (4, 4), SIDE), tie_break)
        assert area_under(probability(deleted(image, perfect, STEPS))) < area_under(
            probability(deleted(image, chance, STEPS))
        )
        assert area_under(probability(inserted(image, perfect, STEPS))) > area_under(
            probability(inserted(image, chance, STEPS))
        )
