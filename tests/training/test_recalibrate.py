"""Calibrating an existing checkpoint on other images."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pawmatch.calibration import Calibration
from pawmatch.checkpoint import load_checkpoint, save_checkpoint
from pawmatch.errors import CheckpointNotFound, NotACheckpoint, TrainingError
from pawmatch.training.data import LabelledFiles
from pawmatch.training.recalibrate import recalibrate, relabelled
from pawmatch.training.run import run_training
from tests.support.training import RECIPE, SETTINGS, silently


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three variants as training leaves them, calibrated, with gates."""
    out = tmp_path_factory.mktemp("run")
    outside = data / "train"
    run_training(RECIPE, "all", data, out, outside=outside, settings=SETTINGS, report=silently)
    return out


@pytest.fixture
def bare(trained: Path, tmp_path: Path) -> Path:
    """The same without any calibration, as `import` leaves a checkpoint."""
    out = tmp_path / "bare"
    for folder in sorted(path.parent for path in trained.glob("*/config.json")):
        checkpoint = load_checkpoint(folder)
        config = replace(checkpoint.config, calibration=Calibration(), metrics={})
        save_checkpoint(out / folder.name, checkpoint.model, config)
    return out


def test_gives_back_what_training_had_fitted_and_leaves_the_weights(
    data: Path, trained: Path, bare: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    folders = recalibrate(
        RECIPE.task, str(bare), data, tmp_path / "out", outside=data / "train", report=lines.append
    )
    assert [folder.name for folder in folders] == ["cnn", "cnn_transformer", "cnn_transformer_mfe"]
    assert lines[0] == "48 validation images of 2 of 2 classes, 0 skipped"
    for folder in folders:
        ours, theirs = load_checkpoint(folder), load_checkpoint(trained / folder.name)
        assert ours.config.calibration.temperature == pytest.approx(
            theirs.config.calibration.temperature, rel=0.02
        )
        assert len(ours.config.calibration.scope_gates) == len(theirs.config.calibration.scope_gates) > 0
        assert ours.config.metrics["top1"] == theirs.config.metrics["top1"]
        assert ours.config.training["calibration_commit"]
        assert ours.config.backbone_group == theirs.config.backbone_group
        weights = ours.model.state_dict()
        assert all(torch.equal(weights[key], value) for key, value in theirs.model.state_dict().items())
        card = (folder / "README.md").read_text()
        assert f"pawmatch calibrate --task {RECIPE.task} " in card
        assert f"{ours.config.metrics['top1']:.1%}" in card
        assert (folder / "calibration.png").is_file()


def test_a_source_may_be_calibrated_where_it_lies(data: Path, bare: Path) -> None:
    before = (bare / "cnn" / "model.safetensors").read_bytes()
    recalibrate(RECIPE.task, str(bare), data, bare, report=silently)
    config = json.loads((bare / "cnn" / "config.json").read_text())
    assert config["calibration"]["review_rule"].startswith("lowest confidence at which")
    assert config["calibration"]["scope_gates"] == []
    assert (bare / "cnn" / "model.safetensors").read_bytes() == before


def test_the_card_has_the_words_of_a_bundled_recipe(data: Path, bare: Path, tmp_path: Path) -> None:
    shutil.rmtree(bare / "cnn_transformer")
    for folder in bare.iterdir():
        config = json.loads((folder / "config.json").read_text())
        config["training"]["recipe"] = "artist-chae"
        (folder / "config.json").write_text(json.dumps(config))
    folder, _ = recalibrate(RECIPE.task, str(bare), data, tmp_path / "out", report=silently)
    card = (folder / "README.md").read_text()
    assert "CHAE as its paper trains it" in card
    assert "`pawmatch train --recipe artist-chae --variant all --data DIR --out DIR`, then" in card


def test_labels_are_counted_as_the_checkpoint_counts_them() -> None:
    files = LabelledFiles(("blue", "red"), (Path("b"), Path("r"), Path("s")), (0, 1, 1))
    assert relabelled(files, ("red", "green", "blue")).targets == (2, 0, 0)
    with pytest.raises(TrainingError, match=r"has no class 'blue'; name the subfolders as its labels.*'red'"):
        relabelled(files, ("red", "green"))


def test_classes_without_images_are_no_fault(data: Path, bare: Path, tmp_path: Path) -> None:
    """The original's 124 breeds, of which somebody has photos of 120."""
    few = tmp_path / "few"
    for half in ("train", "val"):
        shutil.copytree(data / half / "red", few / half / "red")
        (few / half / "blue").mkdir()
    lines: list[str] = []
    recalibrate(RECIPE.task, str(bare), few, tmp_path / "out", report=lines.append)
    assert lines[0] == "24 validation images of 1 of 2 classes, 0 skipped"


def test_wrong_sources_are_refused_before_anything_is_written(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises((CheckpointNotFound, NotACheckpoint)):
        recalibrate(RECIPE.task, str(tmp_path), data, out, report=silently)
    assert not out.exists()
