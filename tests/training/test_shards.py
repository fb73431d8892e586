"""Images that are trained on from where they lie: the classes of shards, and the batches of a run."""

from __future__ import annotations

import csv
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from pawmatch.errors import TrainingError
from pawmatch.evaluation.folders import LabelledFile
from pawmatch.images import InputSpec
from pawmatch.training import shards
from pawmatch.training.augment import TrainingBatches
from pawmatch.training.data import ValidationBatches, decode_all, list_classes
from pawmatch.training.loop import CURVE_FILE
from pawmatch.training.shards import AHEAD, Streamed, decode, shard_classes
from tests.support.training import RECIPE, SETTINGS, packed, train_tiny, write_colours, write_tar


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    data = write_colours(tmp_path / "data", train=9, val=3)
    wide = Image.fromarray(np.full((20, 50, 3), 200, np.uint8))
    wide.save(data / "train" / "red" / "9.png")
    (data / "train" / "red" / "91.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    for file in data.rglob("*.png"):  # keys of WebDataset are names, which the two classes share
        file.rename(file.with_name(f"{file.parent.name}{file.name}"))
    return data


def test_losses_are_those_of_images_in_memory(colours: Path, tmp_path: Path) -> None:
    """To the last digit, for a folder and for shards of the same images."""
    streamed = replace(SETTINGS, stream=True)
    curves = []
    tars = packed(colours, tmp_path / "shards")
    for number, (data, settings) in enumerate(
        [(colours, SETTINGS), (colours, streamed), (tars, streamed), (tars, SETTINGS)]
    ):
        out = train_tiny(data, tmp_path / f"run{number}", recipe=replace(RECIPE, epochs=2), settings=settings)
        with (out / CURVE_FILE).open() as file:
            curves.append([{**row, "seconds": ""} for row in csv.DictReader(file)])
    assert len({row["train_loss"] for row in curves[0]}) == 2
    assert all(curve == curves[0] for curve in curves)


def test_what_is_streamed_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an epoch and its validation there are only as many images as are read ahead, and a batch."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(AHEAD):
            Image.new("RGB", (9, 9)).save(tmp_path / name / f"{number}.png")
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    most = []

    def noted(file: LabelledFile, long_side: int) -> NDArray[np.uint8]:
        image = decode(file, long_side).view(Noted)
        alive.add(image)
        most.append(len(alive))
        return image

    data = decode_all(list_classes(tmp_path), long_side=288, stream=True)
    monkeypatch.setattr(shards, "decode", noted)
    batches = TrainingBatches(data, RECIPE)
    assert sum(len(targets) for _, targets in batches.epoch(0)) == 2 * AHEAD
    held_out = ValidationBatches(data, InputSpec.from_dict(RECIPE.input))
    assert sum(len(batch) for batch in held_out) == 2 * AHEAD
    assert len(most) == 4 * AHEAD
    assert AHEAD // 2 < max(most) < 1.6 * AHEAD


class Noted(np.ndarray[Any, Any]):
    """An array that a set can hold."""

    __hash__ = object.__hash__  # type: ignore[assignment]


def test_a_part_of_streamed_images_is_streamed(colours: Path) -> None:
    files = list_classes(colours / "train")
    kept, streamed = (decode_all(files, long_side=30, stream=stream) for stream in (False, True))
    assert streamed.skipped == kept.skipped
    assert (streamed.targets, streamed.files) == (kept.targets, kept.files)
    assert len(streamed.images) == 19
    for image, same in zip(streamed.sample(5).images, kept.sample(5).images, strict=True):
        assert np.array_equal(image, same)
    assert np.array_equal(streamed.images[3], kept.images[3])
    for one, other in zip(
        TrainingBatches(streamed, RECIPE).in_order(1), TrainingBatches(kept, RECIPE).in_order(1), strict=True
    ):
        assert torch.equal(one, other)
    streamed.files[3].path.unlink()
    with pytest.raises(TrainingError, match="cannot now"):
        list(streamed.images)


def test_an_image_that_grows_meanwhile_is_told(tmp_path: Path) -> None:
    path = tmp_path / "1.png"
    Image.new("RGB", (20, 9)).save(path)
    streamed = Streamed([LabelledFile(path, 0)], 20, (9, 20), 1)
    assert streamed[0].shape == (9, 20, 3)
    Image.new("RGB", (9, 20)).save(path)
    with pytest.raises(TrainingError, match="another picture"):
        list(streamed)


def test_images_of_a_shard_that_is_gone_are_skipped(colours: Path, tmp_path: Path) -> None:
    tars = packed(colours, tmp_path / "shards") / "train"
    files = list_classes(tars)
    before = decode_all(files, long_side=30)
    (tars / "0.tar").unlink()
    found = decode_all(files, long_side=30)
    assert 0 < len(found.images) < len(before.images)
    assert any("0.tar" in line for line in found.skipped)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([("1.jpg", b"x")], "neither a .cls beside it nor a folder"),
        ([("1.jpg", b"x"), ("1.cls", b"2")], "class 2, and classes.txt has 2"),
        ([("1.jpg", b"x"), ("1.cls", b"\xff")], "cannot be read"),
    ],
)
def test_shards_without_classes_are_refused(
    tmp_path: Path, files: list[tuple[str, bytes]], message: str
) -> None:
    write_tar(tmp_path / "0.tar", files)
    (tmp_path / "classes.txt").write_text("a\nb\n")
    with pytest.raises(TrainingError, match=message):
        shard_classes(tmp_path)


def test_names_of_classes_are_utf8_with_or_without_a_mark(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [("1.jpg", b"x"), ("1.cls", b"0")])
    (tmp_path / "classes.txt").write_text("Löwe\n", encoding="utf-8-sig")
    assert list(shard_classes(tmp_path)) == ["Löwe"]
    (tmp_path / "classes.txt").write_text("Löwe\n", encoding="latin-1")
    with pytest.raises(TrainingError, match="UTF-8"):
        shard_classes(tmp_path)


def test_a_class_may_be_a_name(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "0.tar",
        [("x/1.a.jpg", b"x"), ("x/1.cls", b"Dog\n"), ("x/2.jpg", b"x"), ("3.cls", b"7"), ("3.png", b"")],
    )
    found = shard_classes(tmp_path)
    assert {name: [file.path.name for file in files] for name, files in found.items()} == {
        "7": ["3.png"],
        "Dog": ["1.a.jpg"],
        "x": ["2.jpg"],
    }
