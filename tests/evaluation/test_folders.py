"""Folders of labelled images: names, order, halves, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pawmatch.errors import BadOption, UnknownLabel
from pawmatch.evaluation.folders import labelled_files
from pawmatch.training.data import list_classes

LABELS = ("Beagle", "Border_Collie", "Boxer", "Collie", "Maltese_Dog")


def names(files: object) -> list[str]:
    return [f"{file.path.parent.name}/{file.path.name}" for file in files]  # type: ignore[attr-defined]


def test_folders_are_matched_as_people_write_them(kennel: Path) -> None:
    (kennel / "Boxer").rename(kennel / "n02108089-boxer")  # as Stanford Dogs has it
    (kennel / "Maltese").mkdir()
    (kennel / ".cache").mkdir()
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
    assert [file.path for file in labelled_files(kennel, LABELS)] == list(list_classes(kennel).files)


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
