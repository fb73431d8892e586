"""Calibrating an existing checkpoint on other images."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pawmatch.calibration import Calibration
from pawmatch.calibration.fit import STAND_IN_FLAGGED
from pawmatch.checkpoint import load_checkpoint, load_task, save_again
from pawmatch.errors import TrainingError
from pawmatch.evaluation.folders import fingerprint, labelled_files
from pawmatch.training.data import LabelledImages
from pawmatch.training.export import corner, recalibrate, shuffle_tiles, stand_in_images
from tests.support.training import RECIPE, silently, train_tiny


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three variants as training leaves them, calibrated, with gates."""
    out = tmp_path_factory.mktemp("run")
    outside = data / "train"
    train_tiny(data, out, variant="all", outside=[outside])
    return out


@pytest.fixture
def bare(trained: Path, tmp_path: Path) -> Path:
    """The same without any calibration, as `import` leaves a checkpoint."""
    out = tmp_path / "bare"
    checkpoints = load_task(trained, RECIPE.task)
    configs = {
        c.config.variant: replace(c.config, calibration=Calibration(), metrics={}) for c in checkpoints
    }
    return save_again(out, checkpoints, configs)


def weights(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


def test_gives_back_what_training_had_fitted_and_leaves_the_weights(
    data: Path, trained: Path, bare: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    out = recalibrate(
        RECIPE.task, str(bare), [data], tmp_path / "out", outside=[data / "train"], report=lines.append
    )
    assert lines[0] == "48 validation images of 2 of 2 classes, 0 skipped"
    card = (out / "README.md").read_text()
    assert f"pawmatch calibrate --task {RECIPE.task} " in card
    written, before = load_task(out, RECIPE.task), load_task(trained, RECIPE.task)
    assert len(written) == len(before) == 3
    for ours, theirs in zip(written, before, strict=True):
        assert ours.config.calibration.temperature == pytest.approx(
            theirs.config.calibration.temperature, rel=0.02
        )
        assert len(ours.config.calibration.scope_gates) == len(theirs.config.calibration.scope_gates) > 0
        assert ours.config.metrics["top1"] == theirs.config.metrics["top1"]
        assert ours.config.training["calibration_commit"]
        code = fingerprint(labelled_files(data, ours.config.labels), ours.config.labels)
        assert ours.config.training["calibrated_on"] == theirs.config.training["calibrated_on"] == code
        assert ours.config.files == theirs.config.files
        state = ours.model.state_dict()
        assert all(torch.equal(state[key], value) for key, value in theirs.model.state_dict().items())
        assert f"{ours.config.metrics['top1']:.1%}" in card
        assert (out / f"calibration_{ours.config.variant}.png").is_file()
    assert weights(out) == weights(bare) == weights(trained)


def pictures(folder: Path, count: int) -> Path:
    """Green noise: a class that the checkpoint does not know."""
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True)
    for index in range(count):
        pixels = rng.integers(0, 120, (40, 40, 3), dtype=np.uint8)
        pixels[..., 1] += 100
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def test_images_of_unknown_classes_and_from_outside_teach_their_rules(
    data: Path, bare: Path, tmp_path: Path
) -> None:
    """Flat folders or nested ones."""
    flat, nested = (
        pictures(tmp_path / "unknown", 24),
        pictures(tmp_path / "outside" / "a" / "b", 30).parents[1],
    )
    out = recalibrate(
        RECIPE.task, str(bare), [data], tmp_path / "out", outside=[nested], unknown=[flat], report=silently
    )
    for checkpoint in load_task(out, RECIPE.task):
        calibration, metrics = checkpoint.config.calibration, checkpoint.config.metrics
        assert calibration.unknown is not None
        assert "against 24 of unknown classes" in calibration.unknown.fitted_on
        assert len(calibration.unknown.label_offsets) == 2
        assert calibration.scope_gates
        assert metrics["unknown_images"] == 24
        assert metrics["outside_images"] == 30
        assert 0 <= metrics["unknown_auroc"] <= 1
    assert "AUROC of the unknown score" in (out / "README.md").read_text()
    few = pictures(tmp_path / "few", 19)
    with pytest.raises(TrainingError, match="19 images of unknown classes are too few; give 20 or more"):
        recalibrate(RECIPE.task, str(bare), [data], tmp_path / "no", unknown=[few], report=silently)


def test_a_source_may_be_calibrated_where_it_lies(data: Path, bare: Path) -> None:
    before = weights(bare)
    recalibrate(RECIPE.task, str(bare), [data], bare, report=silently)
    calibration = load_checkpoint(bare, "cnn").config.calibration
    assert calibration.review_rule.startswith("lowest confidence at which")
    assert calibration.scope_gates == ()
    assert weights(bare) == before


def test_two_runs_in_one_source_keep_their_own_weights(data: Path, trained: Path, tmp_path: Path) -> None:
    """Variants of two runs of one recipe, whose backbones were once taken for one."""
    other = train_tiny(data, tmp_path / "other", variant="all", recipe=replace(RECIPE, learning_rate=2e-2))
    mixed = tmp_path / "mixed"
    for variant, run in (("cnn", trained), ("cnn_transformer", other)):
        checkpoint = load_checkpoint(run, variant)
        save_again(mixed / variant, [checkpoint], {variant: checkpoint.config})
    before = load_task(mixed, RECIPE.task)
    after = load_task(
        recalibrate(RECIPE.task, str(mixed), [data], tmp_path / "out", report=silently), RECIPE.task
    )
    assert before[0].features_digest != before[1].features_digest
    for ours, theirs in zip(after, before, strict=True):
        assert [file.sha256 for file in ours.config.files] == [file.sha256 for file in theirs.config.files]
        assert ours.features_digest == theirs.features_digest
        state = ours.model.state_dict()
        assert all(torch.equal(state[key], value) for key, value in theirs.model.state_dict().items())


def test_the_card_has_the_words_of_a_bundled_recipe(data: Path, bare: Path, tmp_path: Path) -> None:
    config = json.loads((bare / "config.json").read_text())
    config["training"]["recipe"] = "artist-chae"
    (bare / "config.json").write_text(json.dumps(config))
    folder = recalibrate(RECIPE.task, str(bare), [data], tmp_path / "out", report=silently)
    card = (folder / "README.md").read_text()
    assert "CHAE as its paper trains it" in card
    assert "`pawmatch train --recipe artist-chae --variant all --data DIR --out DIR`, then" in card


def test_classes_without_images_are_no_fault(data: Path, bare: Path, tmp_path: Path) -> None:
    """The original's 124 breeds, of which somebody has photos of 120."""
    few = tmp_path / "few"
    for half in ("train", "val"):
        shutil.copytree(data / half / "red", few / half / "red")
        (few / half / "blue").mkdir()
    lines: list[str] = []
    recalibrate(RECIPE.task, str(bare), [few], tmp_path / "out", report=lines.append)
    assert lines[0] == "24 validation images of 1 of 2 classes, 0 skipped"


NUMBERED = np.arange(24 * 36, dtype=np.int64).reshape(24, 36, 1).repeat(3, axis=2) % 251


def test_tiles_hold_the_same_pixels_elsewhere() -> None:
    image = NUMBERED.astype(np.uint8)
    mixed = shuffle_tiles(image, 3, random.Random(0))
    assert mixed.shape == image.shape
    assert not np.array_equal(mixed, image)
    assert np.array_equal(np.sort(mixed.ravel()), np.sort(image.ravel()))
    tile = image[:8, :12]
    assert any(
        np.array_equal(mixed[top : top + 8, left : left + 12], tile)
        for top in (0, 8, 16)
        for left in (0, 12, 24)
    )


def test_corners_touch_two_edges_and_are_never_empty() -> None:
    image = NUMBERED.astype(np.uint8)
    for seed in range(8):
        part = corner(image, 0.5, random.Random(seed))
        assert part.shape == (12, 18, 3)
        assert any(
            np.array_equal(part, image[r, c])
            for r in (slice(12), slice(12, 24))
            for c in (slice(18), slice(18, 36))
        )
    assert corner(image, 0.01, random.Random(0)).shape == (8, 8, 3)


def test_stand_ins_are_repeatable_and_one_of_each_kind_for_an_image() -> None:
    image = NUMBERED.astype(np.uint8)
    data = LabelledImages(("a", "b"), (image, image[:, ::-1]), (0, 1), ())
    first, again = stand_in_images(data), stand_in_images(data)
    assert set(first) == set(STAND_IN_FLAGGED)
    for kind, made in first.items():
        assert made.targets == data.targets
        assert all(np.array_equal(a, b) for a, b in zip(made.images, again[kind].images, strict=True))
        assert not any(np.array_equal(a, b) for a, b in zip(made.images, data.images, strict=True))
