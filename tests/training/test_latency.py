"""Latency measured in turns."""

from __future__ import annotations

import time

import torch

from pawmatch.images import InputSpec
from pawmatch.models import ImageModel
from pawmatch.training.search import WARM_UP, measure_latencies

CALLS: list[tuple[float, torch.Size]] = []


class Slow(ImageModel):
    """Takes the given time for every image, and keeps count."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert not self.training
        assert torch.is_inference_mode_enabled()
        CALLS.append((self.seconds, images.shape))
        time.sleep(self.seconds)
        return images


def test_models_take_turns_and_the_first_is_the_measure() -> None:
    CALLS.clear()
    models = {
        "quick": (Slow(0.002), InputSpec(size=16)),
        "slow": (Slow(0.02), InputSpec(size=32, views=("plain", "mirror"))),
    }
    latencies = measure_latencies(models, rounds=3)
    assert CALLS == [(0.002, (1, 3, 16, 16)), (0.02, (2, 3, 32, 32))] * (WARM_UP + 3)
    assert latencies["quick"].ratio == 1
    assert latencies["quick"].milliseconds >= 2
    assert latencies["slow"].milliseconds >= 20
    # A busy machine stretches short sleeps, so only the order is sure.
    assert latencies["slow"].ratio > 1


def test_no_models_have_no_latencies() -> None:
    assert measure_latencies({}) == {}
