"""Folders of labelled images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pawmatch.errors import TrainingError
from pawmatch.preprocess import InputSpec
from pawmatch.training.batches import normalise, train_loader
from pawmatch.training.data import decode_all, eval_batches, find_split, list_classes
from pawmatch.training.recipe import Recipe


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("boxer", "beagle"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(20):
            pixels = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{name}{i}.png")
    return tmp_path / "photos"


def test_classes_are_the_sorted_subfolders(folder: Path) -> None:
    (folder / "beagle" / "notes.txt").write_text("no picture")
    files = list_classes(folder)
    assert files.labels == ("beagle", "boxer")
    assert len(files.files) == 40
    assert files.targets == (0,) * 20 + (1,) * 20


def test_a_folder_without_halves_is_split_by_name_for_good(folder: Path) -> None:
    train, val = find_split([folder])
    assert len(train.files) + len(val.files) == 40
    assert 2 <= len(val.files) <= 16
    Image.new("RGB", (50, 50)).save(folder / "boxer" / "new.png")
    later = find_split([folder])[1]
    assert set(val.files) <= set(later.files)


def test_given_halves_are_used_and_must_have_the_same_classes(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    folder.rename(data / "train")
    (data / "val" / "beagle").mkdir(parents=True)
    Image.new("RGB", (50, 50)).save(data / "val" / "beagle" / "a.png")
    with pytest.raises(TrainingError, match="'boxer'"):
        find_split([data])
    (data / "val" / "boxer").mkdir()
    assert len(find_split([data])[1].files) == 1


def test_wrong_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no folder"):
        list_classes(tmp_path / "gone")
    (tmp_path / "one").mkdir()
    with pytest.raises(TrainingError, match="two classes"):
        list_classes(tmp_path)


def test_unreadable_images_are_skipped_and_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "beagle" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    data = decode_all(list_classes(folder), long_side=32)
    assert len(data.images) == len(data.targets) == 40
    assert len(data.skipped) == 1
    assert "broken.png" in data.skipped[0]
    assert "broken.png" in caplog.text
    assert max(max(image.shape[:2]) for image in data.images) == 32


def test_a_folder_of_broken_images_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(b"nothing")
    with pytest.raises(TrainingError, match="No image"):
        decode_all(list_classes(tmp_path), long_side=32)


def test_same_seed_and_epoch_give_the_same_batches(folder: Path) -> None:
    data = decode_all(list_classes(folder), long_side=64)
    recipe = Recipe("r", "breed", "hybrid", batch_size=8, input={"size": 32})

    def batches(epoch: int) -> list[torch.Tensor]:
        return [images for images, _ in train_loader(data, recipe, epoch=epoch, workers=1)]

    first, again, other = batches(0), batches(0), batches(1)
    assert len(first) == 5
    assert first[0].shape == (8, 3, 32, 32)
    assert first[0].dtype == torch.uint8
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_evaluation_prepares_like_serving(folder: Path) -> None:
    data = decode_all(list_classes(folder), long_side=64)
    spec = InputSpec(size=32)
    batches = eval_batches(data, spec, batch_size=16)
    assert [len(batch) for batch in batches] == [16, 16, 8]
    torch.testing.assert_close(batches[1][0], spec.prepare(Image.fromarray(data.images[16])))


def test_normalise_equals_the_spec() -> None:
    spec = InputSpec(size=16)
    image = Image.new("RGB", (16, 16), (10, 100, 200))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    torch.testing.assert_close(normalise(pixels, spec)[0], spec.prepare(image))
