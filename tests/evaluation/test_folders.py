"""Images on disk: which are found, in what order, with which class, and what the models are given."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pawmatch.errors import BadOption, ImageNotFound, PawMatchError, UnknownLabel
from pawmatch.evaluation import folders
from pawmatch.evaluation.folders import (
    Found,
    examine_files,
    find_images,
    find_labelled,
    fingerprint,
    images_below,
    labelled_files,
)
from pawmatch.images import InputSpec, Prepared
from pawmatch.images.pool import Readers
from pawmatch.training.data import list_classes

LABELS = ("Beagle", "Border_Collie", "Boxer", "Collie", "Maltese_Dog")


def names(files: object) -> list[str]:
    return [f"{file.path.parent.name}/{file.path.name}" for file in files]  # type: ignore[attr-defined]


def test_folders_are_matched_as_people_write_them(kennel: Path) -> None:
    (kennel / "Boxer").rename(kennel / "n02108089-boxer")  # as Stanford Dogs has it
    (kennel / "Maltese").mkdir()
    (kennel / ".cache").mkdir()
    (kennel / ".cache" / "0.png").touch()
    (kennel / "Beagle" / ".0.png").touch()
    (kennel / "Beagle" / "notes.txt").write_text("no image")
    (kennel / "list.csv").write_text("no folder")
    files = labelled_files(kennel, LABELS)
    assert [file.target for file in files] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert names(files)[:2] == ["Beagle/0.png", "Beagle/1.png"]


def test_val_is_taken_where_there_is_a_split(kennel: Path, tmp_path: Path) -> None:
    root = tmp_path / "split"
    (root / "train" / "Beagle").mkdir(parents=True)
    kennel.rename(root / "val")
    assert len(labelled_files(root, LABELS)) == 9
    (root / "train" / "Beagle").rmdir()
    (root / "train").rmdir()
    with pytest.raises(UnknownLabel, match="'val'"):
        labelled_files(root, LABELS)


def test_order_is_that_of_training(kennel: Path) -> None:
    assert [file.path for file in labelled_files(kennel, LABELS)] == [
        file.path for file in list_classes(kennel).files
    ]


def test_unknown_folders_are_one_clear_error(kennel: Path) -> None:
    (kennel / "Boxers").mkdir()
    with pytest.raises(UnknownLabel, match=r"'Boxers' is not among the 5 classes; did you mean Boxer\?"):
        labelled_files(kennel, LABELS)
    for name in ("Cat", "Cow", "Crow"):
        (kennel / name).mkdir()
    with pytest.raises(UnknownLabel, match=r"4 subfolders .* 5 classes: 'Boxers', 'Cat', 'Cow' and 1 more;"):
        labelled_files(kennel, LABELS)


def test_folders_without_images_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadOption, match="There is no folder"):
        labelled_files(tmp_path / "missing", LABELS)
    with pytest.raises(BadOption, match="no subfolder with images"):
        labelled_files(tmp_path, LABELS)


def test_images_below_a_folder_may_be_flat_or_nested(album: Path, tmp_path: Path) -> None:
    (album / ".trash").mkdir()
    (album / ".trash" / "d.jpg").touch()
    (album / ".hidden.jpg").touch()
    names = [path.relative_to(album).as_posix() for path in images_below(album)]
    assert names == ["a.jpg", "b.jpg", "deeper/c.PNG"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageNotFound, match="no image at this place"):
        images_below(tmp_path / "empty")
    with pytest.raises(BadOption, match="There is no folder"):
        images_below(tmp_path / "missing")


def test_a_folder_that_cannot_be_listed_is_reported(album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    list_folder = os.scandir

    def scandir(place: str) -> Any:
        if str(place).endswith("deeper"):
            raise PermissionError(13, "Permission denied", place)
        return list_folder(place)

    monkeypatch.setattr(os, "scandir", scandir)
    found = list(find_images([str(album)]))
    assert [Path(file).name for file, _ in found] == ["a.jpg", "b.jpg", "deeper"]
    assert "Permission denied" in str(found[-1][1])


def test_truth_is_the_nearest_folder_that_is_named_like_a_class(tmp_path: Path) -> None:
    root = tmp_path / "Beagle"  # a folder that is given says nothing about what is in it
    for name in ("Boxer", "Boxer/more", "n02106166-Border_collie", "unsorted"):
        (root / name).mkdir(parents=True)
        (root / name / "a.jpg").touch()
    (root / "b.jpg").touch()
    labels = ("Boxer", "Border_Collie", "Beagle")
    found = {
        Path(f).relative_to(root).as_posix(): t for (f, _), t in find_labelled([str(root)], labels, None)
    }
    assert found == {
        "b.jpg": None,
        "Boxer/a.jpg": "Boxer",
        "n02106166-Border_collie/a.jpg": "Border_Collie",
        "Boxer/more/a.jpg": "Boxer",
        "unsorted/a.jpg": None,
    }
    alone = str(root / "Boxer" / "a.jpg")
    assert {truth for _, truth in find_labelled([str(root), alone], labels, "Beagle")} == {"Beagle"}
    assert [truth for _, truth in find_labelled([alone], labels, None)] == [None]
    table = {"b.jpg": "Boxer", alone: "Beagle"}
    named = {f: t for (f, _), t in find_labelled([str(root)], labels, table) if t}
    assert named == {str(root / "b.jpg"): "Boxer", alone: "Beagle"}


def test_a_fingerprint_is_of_names_and_classes_alone(kennel: Path, tmp_path: Path) -> None:
    code = fingerprint(labelled_files(kennel, LABELS), LABELS)
    moved = kennel.rename(tmp_path / "moved")
    assert fingerprint(reversed(labelled_files(moved, LABELS)), LABELS) == code
    (moved / "Boxer" / "0.png").rename(moved / "Beagle" / "9.png")
    assert fingerprint(labelled_files(moved, LABELS), LABELS) != code


class Sizes:
    """A classifier that makes of a picture its size; it remembers its batches."""

    specs = (InputSpec(size=32),)

    def __init__(self) -> None:
        self.batches: list[int] = []

    def run_models(self, prepared: Sequence[Prepared]) -> list[str]:
        self.batches.append(len(prepared))
        return [f"{entry.width}x{entry.height}" for entry in prepared]


@pytest.mark.parametrize("readers", [0, 1])
def test_errors_have_a_place_in_their_batch(
    album: Path, readers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "BATCH", 4)
    good, broken, shut = str(album / "a.jpg"), str(album / "b.jpg"), ImageNotFound("shut")
    found: list[Found] = [(good, None), (broken, None), ("shut", shut), *[(good, None)] * 6]
    sizes: Any = Sizes()
    given = list(examine_files(sizes, iter(found), Readers(readers)))
    assert [file for file, _ in given] == [file for file, _ in found]
    words = [type(one).__name__ if isinstance(one, PawMatchError) else one for _, one in given]
    assert words == ["240x180", "BrokenImage", "ImageNotFound", *["240x180"] * 6]
    assert sizes.batches == [2, 4, 1]


def test_the_models_have_the_next_batch_before_one_is_given_out(
    album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "BATCH", 2)
    sizes: Any = Sizes()
    second = threading.Event()

    def run_models(prepared: Sequence[Prepared]) -> list[str]:
        if len(sizes.batches) == 1:
            second.set()
        return Sizes.run_models(sizes, prepared)

    sizes.run_models = run_models
    results = examine_files(sizes, iter([(str(album / "a.jpg"), None)] * 6))
    next(results)
    assert second.wait(240)
    next(results)
    # No more than one: what waits for the models is bounded.
    assert len(sizes.batches) <= 2
    results.close()
