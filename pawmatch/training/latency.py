"""How long models take for one image, measured side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pawmatch.models import ImageModel
from pawmatch.preprocess import InputSpec

WARM_UP = 3  # calls before the clock runs: the first ones choose kernels and take memory


@dataclass(frozen=True)
class Latency:
    """Median milliseconds for one image, and the median of the ratios to the first model."""

    milliseconds: float
    ratio: float


def measure_latencies(
    models: Mapping[str, tuple[ImageModel, InputSpec]], *, device: str = "cpu", rounds: int = 50
) -> dict[str, Latency]:
    """The latency of each model for one image, in all the views that its InputSpec names.

    The models take turns, so that whatever else the machine does slows all of them alike; a ratio compares
    calls of the same round.
    """
    ready = {
        name: (model.eval().to(device), torch.rand(len(spec.views), 3, spec.size, spec.size, device=device))
        for name, (model, spec) in models.items()
    }
    times: dict[str, list[float]] = {name: [] for name in ready}
    for _ in range(WARM_UP):
        for model, image in ready.values():
            _call(model, image)
    for _ in range(rounds):
        for name, (model, image) in ready.items():
            times[name].append(_call(model, image))
    reference = next(iter(times.values()), [])
    return {
        name: Latency(
            milliseconds=1000 * statistics.median(own),
            ratio=statistics.median(a / b for a, b in zip(own, reference, strict=True)),
        )
        for name, own in times.items()
    }


@torch.inference_mode()
def _call(model: ImageModel, image: Tensor) -> float:
    """Seconds that one forward pass takes."""
    started = time.perf_counter()
    model(image)
    if image.is_cuda:
        torch.cuda.synchronize(image.device)
    return time.perf_counter() - started
