"""Tiny data and a tiny recipe for tests that train."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pawmatch.checkpoint.backbone import save_backbone
from pawmatch.images import InputSpec
from pawmatch.models.backbone import create_backbone
from pawmatch.training.loop import Settings
from pawmatch.training.recipe import Recipe
from pawmatch.training.run import run_training

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
# Changes to the breed recipe.
HYBRID = [
    'architecture.backbone="resnet18d"',
    "architecture.backbone_config={channels = [8, 8, 16, 16], stem_width = 8}",
    "architecture.projection=16",
    "architecture.morphology_channels=4",
    "architecture.morphology_width=8",
    "input.size=32",
    *("variant=", "init=", "cached_views=0", "distillation=0.0", "zoom_out=0.0"),
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


def write_tar(path: Path, files: Sequence[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def packed(folder: Path, to: Path) -> Path:
    """The images of a folder of classes in tar files, one of each half with folders and one with .cls."""
    for half in ("train", "val"):
        found = sorted((folder / half).rglob("*.png"))[::-1]
        named = [(f"{file.parent.name}/{file.name}", file.read_bytes()) for file in found[::2]]
        write_tar(to / half / "0.tar", named)
        beside = [
            entry
            for file in found[1::2]
            for entry in (
                (f"{file.stem}.cls", str(["blue", "red"].index(file.parent.name)).encode()),
                (file.name, file.read_bytes()),
            )
        ]
        write_tar(to / half / "1.tar", beside)
    (to / "classes.txt").write_text("blue\nred\n")
    return to


def changes(values: list[str]) -> list[str]:
    """The values as --set options of the command."""
    return [part for value in values for part in ("--set", value)]


def silently(_: str) -> None:
    """A report that nobody reads."""


def train_tiny(
    data: Path | Sequence[Path],
    out: Path,
    *,
    variant: str = "cnn",
    recipe: Recipe = RECIPE,
    report: Callable[[str], None] = silently,
    settings: Settings = SETTINGS,
    **options: Any,
) -> Path:
    """Train the tiny recipe, and give the checkpoint's folder."""
    return run_training(recipe, variant, data, out, settings=settings, report=report, **options)


def write_backbone(folder: Path, *, mean: float = 0.5, name: str = "tf_efficientnet_lite0") -> Path:
    """A pretrained backbone and ImageNet head with random values, as a folder."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = create_backbone(name)
        head = nn.Linear(int(network.num_features), 1000)  # type: ignore[arg-type]
    spec = InputSpec(size=32, mean=(mean,) * 3, std=(0.5,) * 3)
    values = {"backbone": name, "input": spec.to_dict(), "license": "random values", "about": "for tests"}
    return save_backbone(folder, network, head, values)


def normalized(images: Tensor, spec: InputSpec) -> Tensor:
    """Images (N, 3, H, W) in [0, 1] as a model with that input takes them."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
    return (images - mean) / std


def without_dropout(model: nn.Module) -> nn.Module:
    """The model, whose training then depends on its batches alone."""
    for module in model.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0
        elif isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
    return model
