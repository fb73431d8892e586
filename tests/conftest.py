"""Fixtures that several test files share: tiny checkpoints, a photo, a clean environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from PIL import Image

VARIANTS = ("cnn", "cnn_transformer", "cnn_transformer_mfe")
PAINTERS = ("Claude_Monet", "Francisco_Goya", "Paul_Cezanne", "Rembrandt", "Vincent_van_Gogh")
LABELS = {
    "breed": ("Beagle", "Border_Collie", "Boxer", "Collie", "Maltese_Dog"),
    "artist": PAINTERS,
    "artist-chae": PAINTERS,
}
FAMILIES = {"breed": "hybrid", "artist": "chae", "artist-chae": "chae"}
ARCHITECTURES = {
    "hybrid": {
        "backbone": "resnet18d",
        "backbone_config": {"channels": [8, 8, 16, 16], "stem_width": 8},
        "morphology_channels": 4,
        "morphology_width": 8,
    },
    "chae": {
        "input_size": 32,
        "filters": [8, 8, 8, 8],
        "heads": 2,
        "layers": 1,
        "mlp_width": 16,
        "morphology_channels": 4,
        "morphology_width": 8,
    },
}
SIZES = {"hybrid": 64, "chae": 32}


@pytest.fixture(scope="session", autouse=True)
def few_halvings() -> Iterator[None]:
    """Figures from fewer fits on halves: of a tiny model they take longer than its training."""
    from pawmatch.calibration import measure

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "HALVINGS", 3)
        yield


def is_setting(name: str) -> bool:
    """Whether an environment variable steers the program or the Hub's library."""
    return name.startswith(("PAWMATCH_", "HF_")) or name == "SPACE_ID"


@pytest.fixture(scope="session", autouse=True)
def clean_session() -> Iterator[None]:
    """Settings of whoever runs the tests do not reach session fixtures, such as a running server."""
    with pytest.MonkeyPatch.context() as patch:
        for name in filter(is_setting, list(os.environ)):
            patch.delenv(name)
        # Which engine is the fastest depends on the machine and the minute, so all tests but those of the
        # engines run torch: to them openvino is not installed.
        patch.setitem(sys.modules, "openvino", None)
        yield


@pytest.fixture(autouse=True)
def clean_environment(clean_session: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that another test left behind do not reach this one."""
    for name in filter(is_setting, list(os.environ)):
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def tiny_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Call with a task for a folder that holds one tiny random checkpoint per variant.

    `tiny_checkpoints("breed")` is `ROOT/breed`, with `cnn/`, `cnn_transformer/` and
    `cnn_transformer_mfe/` inside. It is written once and shared: copy it before changing anything.
    """
    root = tmp_path_factory.mktemp("weights")

    def write(task: str = "breed") -> Path:
        folder = root / task
        if not folder.is_dir():
            for variant in VARIANTS:
                write_tiny_checkpoint(folder / variant, task, variant)
        return folder

    return write


@pytest.fixture(scope="session")
def tiny_weights(tiny_checkpoints: Callable[..., Path]) -> Path:
    """A folder laid out as the bundled weights are, `<task>/<variant>`; for PAWMATCH_WEIGHTS."""
    folders = [tiny_checkpoints(task) for task in LABELS]
    return folders[0].parent


@pytest.fixture
def breeds(tiny_checkpoints: Callable[..., Path]) -> str:
    """The folder of three tiny breed checkpoints, as a source."""
    return str(tiny_checkpoints("breed"))


def write_tiny_checkpoint(folder: Path, task: str, variant: str) -> None:
    """Write one checkpoint with random weights, the same on every run."""
    import torch

    from pawmatch.checkpoint import CheckpointConfig, save_checkpoint
    from pawmatch.images import InputSpec
    from pawmatch.labels import new_task
    from pawmatch.models import build_model

    labels, family = LABELS[task], FAMILIES[task]
    architecture = ARCHITECTURES[family]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(family=family, variant=variant, num_classes=len(labels), **architecture)
    config = CheckpointConfig(
        task=new_task(task),
        family=family,
        variant=variant,
        architecture=architecture,
        labels=labels,
        input=InputSpec(size=SIZES[family]),
        license="random values, free for any use",
    )
    save_checkpoint(folder, model.eval(), config)


@pytest.fixture
def photo() -> Image.Image:
    """An RGB picture of 240 x 180 pixels with smooth regions, edges and grain, as a photo has."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(7)
    y, x = np.mgrid[0:180, 0:240].astype(np.float32)
    sky = np.stack([120 + y / 4, 150 + y / 5, 210 - y / 3], axis=-1)
    body = ((x - 120) / 70) ** 2 + ((y - 110) / 45) ** 2 < 1
    head = (x - 175) ** 2 + (y - 70) ** 2 < 30**2
    sky[body | head] = (150, 100, 60)
    sky += rng.normal(0, 8, sky.shape)
    return Image.fromarray(sky.clip(0, 255).astype(np.uint8))


@pytest.fixture
def dog(photo: Image.Image, tmp_path: Path) -> Path:
    """The picture as a JPEG file."""
    path = tmp_path / "dog.jpg"
    photo.save(path)
    return path


@pytest.fixture
def album(photo: Image.Image, tmp_path: Path) -> Path:
    """A folder with two good images, a broken one between them, a text file and a hidden file."""
    folder = tmp_path / "album"
    (folder / "deeper").mkdir(parents=True)
    photo.save(folder / "a.jpg")
    photo.save(folder / "deeper" / "c.PNG")
    (folder / "b.jpg").write_bytes((folder / "a.jpg").read_bytes()[:400])
    (folder / "notes.txt").write_text("no image")
    (folder / "._a.jpg").write_bytes(b"\0\5\26\7")
    return folder


def beside_the_checkout(name: str) -> Path:
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / name).is_dir():
        pytest.skip(f"shared/{name}, which is no part of the project, is not beside the checkout")
    return folder / name


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The photo collection: `dogs`, `artists`, `photos`, `odd_files`. Mark its tests `shared_data`."""
    return beside_the_checkout("data")


@pytest.fixture(scope="session")
def shared_reference() -> Path:
    """Reference values of the original system, with `pawmatchai_parity.json`."""
    return beside_the_checkout("reference")
