"""Tiny data and a tiny recipe for tests that train."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from pawmatch.training.loop import Settings
from pawmatch.training.recipe import Recipe

SETTINGS = Settings()
RECIPE = Recipe(
    name="tiny",
    task="artist",
    family="chae",
    architecture={
        "input_size": 32,
        "filters": [4, 4, 8, 8],
        "heads": 2,
        "layers": 1,
        "mlp_width": 16,
        "morphology_channels": 4,
        "morphology_width": 8,
    },
    input={"size": 32, "mean": [0.0] * 3, "std": [1.0] * 3},
    epochs=4,
    batch_size=16,
    learning_rate=1e-2,
    color_jitter=0.0,
    crop_scale=(0.8, 1.0),
    license="made for tests",
)
HYBRID = [
    'architecture.backbone="resnet18d"',
    "architecture.backbone_config={channels = [8, 8, 16, 16], stem_width = 8}",
    "architecture.pretrained_backbone=false",
    "architecture.morphology_channels=4",
    "architecture.morphology_width=8",
    "input.size=32",
]


def write_colours(folder: Path, *, train: int, val: int) -> Path:
    """Two classes that differ in colour, reddish and bluish noise, with so many images each."""
    rng = np.random.default_rng(0)
    for half, count in (("train", train), ("val", val)):
        for name, channel in (("red", 0), ("blue", 2)):
            (folder / half / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 120, (40, 40, 3), dtype=np.uint8)
                pixels[..., channel] += 100
                Image.fromarray(pixels).save(folder / half / name / f"{i}.png")
    return folder


def changes(values: list[str]) -> list[str]:
    """The values as --set options of the command."""
    return [part for value in values for part in ("--set", value)]


def silently(_: str) -> None:
    """A report that nobody reads."""
