"""Folders of labelled images."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pawmatch.errors import BadOption, TrainingError
from pawmatch.evaluation.folders import LabelledFile
from pawmatch.images import InputSpec
from pawmatch.training.data import (
    Images,
    LabelledFiles,
    ValidationBatches,
    check_images,
    check_labels,
    decode_all,
    find_split,
    fingerprint,
    joined_files,
    list_classes,
    list_images,
    relabelled,
    share_of,
)


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
    assert [file.target for file in files.files] == [0] * 20 + [1] * 20


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


def write(folder: Path, **counts: int) -> Path:
    """A folder with so many images of each class."""
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (20, 20)).save(folder / name / f"{folder.name}-{name}{index}.png")
    return folder


def by_class(files: LabelledFiles) -> dict[str, list[str]]:
    """The folder that each file of a class comes from."""
    found: dict[str, list[str]] = {label: [] for label in files.labels}
    for file in files.files:
        found[files.labels[file.target]].append(file.path.name.partition("-")[0])
    return found


def test_classes_of_several_folders_are_put_together(tmp_path: Path) -> None:
    dogs, others = write(tmp_path / "dogs", boxer=30, beagle=30), write(tmp_path / "others", cat=30, boxer=30)
    train, val = find_split([dogs, others])
    assert train.labels == val.labels == ("beagle", "boxer", "cat")
    for half in (train, val):
        found = by_class(half)
        assert set(found["beagle"]) == {"dogs"}
        assert set(found["boxer"]) == {"dogs", "others"}
        assert set(found["cat"]) == {"others"}
    assert len(train.files) + len(val.files) == 120
    assert not set(train.files) & set(val.files)
    # Each folder is split as it would be alone.
    alone = [find_split([folder])[1].files for folder in (dogs, others)]
    assert {file.path for file in val.files} == {file.path for files in alone for file in files}


def test_folders_may_have_halves_or_none(tmp_path: Path) -> None:
    halves = tmp_path / "halves"
    write(halves / "train", boxer=3, beagle=3)
    write(halves / "val", boxer=2, beagle=2)
    train, val = find_split([halves, write(tmp_path / "whole", boxer=30, beagle=30)])
    assert by_class(train)["boxer"].count("train") == 3
    assert by_class(val)["boxer"].count("val") == 2
    assert len(train.files) + len(val.files) == 10 + 60


def test_other_folders_to_validate_on_leave_all_of_the_data_to_learn_from(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole", boxer=5, beagle=5, cat=5)
    halves = tmp_path / "halves"
    write(halves / "train", boxer=3, beagle=3)
    write(halves / "val", boxer=2, beagle=2)
    kept = write(tmp_path / "kept", boxer=4, cat=4)  # which lacks a class
    train, val = find_split([whole, halves], [kept])
    assert train.labels == val.labels == ("beagle", "boxer", "cat")
    assert by_class(train) == {
        "beagle": ["whole"] * 5 + ["train"] * 3,
        "boxer": ["whole"] * 5 + ["train"] * 3,
        "cat": ["whole"] * 5,
    }
    assert by_class(val) == {"beagle": [], "boxer": ["kept"] * 4, "cat": ["kept"] * 4}
    more = write(tmp_path / "more", beagle=1, boxer=1)
    assert len(find_split([whole], [kept, more])[1].files) == 10


def test_a_class_to_validate_on_must_be_known(tmp_path: Path) -> None:
    data, other = write(tmp_path / "a", boxer=2, beagle=2), write(tmp_path / "b", boxer=2, husky=2)
    with pytest.raises(TrainingError, match=r"Class 'husky' is not among .*, such as 'beagle'"):
        find_split([data], [other])


def test_joined_lists_keep_each_file_in_its_class() -> None:
    def listed(labels: str, *targets: int, start: int = 1) -> LabelledFiles:
        files = (LabelledFile(Path(str(number)), target) for number, target in enumerate(targets, start))
        return LabelledFiles(tuple(labels), tuple(files))

    one, two = listed("bc", 0, 1), listed("ac", 1, 0, start=3)
    assert joined_files([one, two]) == listed("abc", 1, 2, 2, 0)
    assert relabelled(one, tuple("cbx")) == listed("cbx", 1, 0)


def test_wrong_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadOption, match="no folder"):
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


def test_evaluation_prepares_like_serving(folder: Path) -> None:
    data = decode_all(list_classes(folder), long_side=64)
    spec = InputSpec(size=32)
    batches = ValidationBatches(data, spec, batch_size=16)
    assert [len(batch) for batch in batches] == [16, 16, 8]
    torch.testing.assert_close(batches[1][0], spec.prepare(Image.fromarray(data.images[16])))


def test_what_tools_leave_behind_is_no_class_and_no_image(folder: Path) -> None:
    for name in (".ipynb_checkpoints", "@eaDir", "__MACOSX"):
        write(folder / name, deeper=1)
    (folder / "beagle" / "._beagle0.png").write_bytes(b"\0\5\26\7")
    (folder / "beagle" / "album.png").mkdir()
    assert list_classes(folder).labels == ("beagle", "boxer")
    assert len(list_classes(folder).files) == len(list_images([folder]).files) == 40
    assert {file.path.suffix for file in list_images([folder]).files} == {".png"}


def test_a_split_leaves_no_half_of_a_class_empty(tmp_path: Path) -> None:
    """However few images there are, and whatever they are called; a single one is learnt from."""
    data = write(tmp_path / "data", **{f"x{count}": 1 + count % 3 for count in range(30)})
    for share in (0.01, 0.2, 0.99):
        train, val = find_split(data, share=share)
        assert {file.target for file in train.files} == set(range(30))
        assert {file.target for file in val.files} == {
            index for index, label in enumerate(val.labels) if int(label[1:]) % 3
        }
        assert not set(train.files) & set(val.files)
    numbered = write(tmp_path / "n", a=40, b=40)
    sizes = [len(find_split(numbered, share=share)[1].files) for share in (0.1, 0.5, 0.9)]
    assert sizes == sorted(sizes)
    assert 20 < sizes[1] < 60


def test_file_names_need_not_be_text(folder: Path) -> None:
    odd = os.fsdecode(b"caf\xe9.png")
    Image.new("RGB", (20, 20)).save(folder / "beagle" / odd)
    (folder / "beagle" / os.fsdecode(b"br\xf6ken.png")).write_bytes(b"nothing")
    train, val = find_split(folder)
    assert odd in {file.path.name for file in (*train.files, *val.files)}
    data = decode_all(list_classes(folder), long_side=32)
    assert len(data.images) == 41
    assert data.skipped[0].startswith(r"br\udcf6ken.png: ")
    data.skipped[0].encode()
    assert len(fingerprint(data)) == 16


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (("a", "Berger\xa0allemand"), "holds the character U\\+00A0, which cannot be shown; rename"),
        (("a", os.fsdecode(b"caf\xe9")), "holds the character U\\+DCE9, which cannot be shown"),
        (("a", "x" * 201), "has 201 characters; give its folder a name of 1 to 200"),
        (("C", "C++"), "'C' and 'C\\+\\+' differ in case or signs alone; rename one folder"),
        (("Beagle", "beagle"), "'Beagle' and 'beagle' differ in case"),
    ],
)
def test_labels_that_no_checkpoint_can_hold_are_named(labels: tuple[str, ...], said: str) -> None:
    check_labels(("Gro\xdfer M\xfcnsterl\xe4nder", "pug"))
    with pytest.raises(TrainingError, match=said):
        check_labels(labels)


def test_too_few_images_are_named_before_anything_is_trained(folder: Path, tmp_path: Path) -> None:
    good = decode_all(list_classes(folder), long_side=32)
    one = replace(good, images=good.images[:1], targets=good.targets[:1], files=good.files[:1])
    check_images(Images(good, good, unknown=good))
    with pytest.raises(TrainingError, match="Class 'boxer' has no training image that can be read; add some"):
        check_images(Images(one, good))
    with pytest.raises(TrainingError, match="There are 1 validation images that can be read; give 2 or more"):
        check_images(Images(good, one))
    with pytest.raises(TrainingError, match="1 images of unknown classes are too few; give 20 or more"):
        check_images(Images(good, good, unknown=one))


def test_a_share_of_each_class_is_kept_and_a_larger_one_has_it_too(tmp_path: Path) -> None:
    files = list_classes(write(tmp_path / "data", boxer=40, beagle=3))
    parts = {share: share_of(files, share, seed=0) for share in (0.01, 0.1, 0.5, 1.0)}
    assert [len(part.files) for part in parts.values()] == [1 + 1, 1 + 4, 2 + 20, 43]
    assert all(set(part.labels) == {"beagle", "boxer"} for part in parts.values())
    assert set(parts[0.01].files) < set(parts[0.1].files) < set(parts[0.5].files)
    assert parts[1.0] == files
    assert share_of(files, 0.1, seed=1) != parts[0.1]
