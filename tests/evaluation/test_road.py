"""ROAD: the same as the library's own combined score, computed in one batch."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from pytorch_grad_cam.metrics.road import ROADCombined
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from pawmatch.evaluation.faithfulness import PERCENTILES, random_map, ranked, road_images, road_score

SIDE = 20


@pytest.fixture
def ranks() -> np.ndarray:
    rng = np.random.default_rng(0)
    return ranked(random_map(rng, (4, 4), SIDE), random_map(rng, (4, 4), SIDE))


def test_agrees_with_the_library(ranks: np.ndarray) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 4))
    image = torch.randn(3, SIDE, SIDE)
    with torch.no_grad():
        ours = road_score(model(road_images(image, ranks, seed=5))[:, 2].double().numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.manual_seed(5)
        theirs = ROADCombined(list(PERCENTILES))(image[None], ranks[None], [ClassifierOutputTarget(2)], model)
    assert ours == pytest.approx(float(theirs[0]), abs=1e-5)


def test_flat_maps_leave_pixels_to_impute_from() -> None:
    flat = ranked(
        np.zeros((SIDE, SIDE), dtype=np.float32), random_map(np.random.default_rng(0), (4, 4), SIDE)
    )
    image = torch.randn(3, SIDE, SIDE)
    images = road_images(image, flat, seed=0)
    assert images.shape == (2 * len(PERCENTILES), 3, SIDE, SIDE)
    assert images.isfinite().all()
    kept = [(changed == image).all(dim=0).float().mean() for changed in images]
    assert np.allclose(kept[3:], [p / 100 for p in PERCENTILES], atol=0.01)


def test_torchs_own_randomness_is_left_alone(ranks: np.ndarray) -> None:
    state = torch.get_rng_state()
    first = road_images(torch.ones(3, SIDE, SIDE), ranks, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, road_images(torch.ones(3, SIDE, SIDE), ranks, seed=1))
