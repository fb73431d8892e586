"""`pawmatch compare`: tables, files and exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from pawmatch.classifier import Classifier
from pawmatch.cli import main
from pawmatch.commands import compare
from pawmatch.commands.compare import Walk
from pawmatch.commands.rows import read_table
from pawmatch.evaluation.compare import ImageAnswers
from pawmatch.results import VariantAnswer

VARIANTS = ["cnn", "cnn_transformer", "cnn_transformer_mfe"]


@pytest.fixture
def classes(photo: Image.Image, tmp_path: Path) -> Path:
    """A folder with a subfolder per class, one folder that is no class, and an image beside them."""
    root = tmp_path / "Beagle"  # a folder that is given says nothing about what is in it
    for name in ("Boxer", "Boxer/more", "n02106166-Border_collie", "unsorted"):
        (root / name).mkdir(parents=True)
        photo.save(root / name / "a.jpg")
    photo.save(root / "b.jpg")
    return root


def test_a_folder_is_compared_into_files(
    breeds: str,
    classes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (classes / "Boxer" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0nothing")
    out = tmp_path / "out" / "here"
    arguments = ["compare", str(classes), "--source", breeds, "--out", str(out), "--sheets", "2", "--json"]
    # The maps come from what was made of the image for the comparison; the models run once.
    monkeypatch.setattr(Classifier, "explain", None)
    assert main(arguments) == 1
    printed, err = capsys.readouterr()
    assert f"error: {classes / 'Boxer' / 'broken.jpg'}: " in err
    assert "1 of 6 images could not be used" in err

    values = json.loads(printed)
    assert json.loads((out / "comparison.json").read_text()) == values
    assert (values["task"], values["images"], values["judged"]) == ("breed", 5, 3)
    assert [entry["variant"] for entry in values["variants"]] == VARIANTS
    assert [entry["accuracy"]["judged"] for entry in values["variants"]] == [3, 3, 3]
    assert [Path(entry["file"]).name for entry in values["failed"]] == ["broken.jpg"]
    assert values["failed"][0]["error"]["code"] == "BrokenImage"

    rows = read_table(out / "comparison.csv")
    assert len(rows) == 6
    assert [row["file"] for row in rows if row["error"]] == [str(classes / "Boxer" / "broken.jpg")]
    judged = [row for row in rows if row["truth"]]
    assert sorted(row["truth"] for row in judged) == ["Border_Collie", "Boxer", "Boxer"]
    for row in judged:
        for variant in VARIANTS:
            same = row[variant] == row["truth"]
            assert (row[f"{variant}_truth"] == row[f"{variant}_confidence"]) is same
    # The statistics are those of the rows.
    sure = [float(row["cnn_confidence"]) for row in rows if not row["error"]]
    assert values["variants"][0]["confidence"]["mean"] == pytest.approx(sum(sure) / 5, abs=1e-4)
    right = sum(row["cnn"] == row["truth"] for row in judged)
    assert values["variants"][0]["accuracy"]["right"] == right

    sheets = sorted(path.name for path in (out / "sheets").iterdir())
    assert sheets == ["0001_b.jpg", "0002_a.jpg"]
    assert [row["sheet"] for row in rows if row["sheet"]] == [f"sheets/{name}" for name in sheets]
    with Image.open(out / "sheets" / sheets[0]) as sheet:
        assert sheet.width > 2 * 480
    with Image.open(out / "comparison.png") as figure:
        assert (figure.format, figure.width > 1500) == ("PNG", True)


def scripted(walk: Walk, file: str, examined: object, truth: str | None) -> ImageAnswers:
    """Answers by a file's name: for each variant a letter and a confidence in tenths, as "A9B6A5"."""
    labels = {"A": "Beagle", "B": "Boxer", "C": "Collie"}
    pairs = zip(VARIANTS, re.findall("([ABC])([0-9])", Path(file).stem), strict=True)
    answers = tuple(
        VariantAnswer(name, labels[one], labels[one], int(sure) / 10) for name, (one, sure) in pairs
    )
    return ImageAnswers(file, answers, truth, (0.1,) * 3 if truth else ())


@pytest.mark.parametrize("kept", [1000, 2])
def test_differ_lists_the_images_on_which_variants_differ_the_most_different_first(
    kept: int,
    breeds: str,
    photo: Image.Image,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Walk, "answered", scripted)
    monkeypatch.setattr(compare, "MAX_KEPT", kept)
    for name in ("A9A9A9", "A4B3A9", "A9B8C2", "B5B5C5"):
        (tmp_path / "Beagle").mkdir(exist_ok=True)
        photo.save(tmp_path / "Beagle" / f"{name}.jpg")
    expected = ["A9B8C2", "B5B5C5", "A4B3A9"][:kept]
    arguments = ["compare", str(tmp_path), "--source", breeds, "--differ", "--truth", "Beagle"]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [Path(line.split()[0]).stem for line in lines[:-1]] == expected
    assert [line.partition("right: ")[2] for line in lines[:2]] == ["CNN (Beagle)", "none (Beagle)"]
    assert lines[-1] == "The variants differ on 3 of 4 images."
    out = tmp_path / "out"
    assert main([*arguments, "--out", str(out), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["images"], values["unanimous"]["images"]) == (4, 1)
    assert [Path(image["file"]).stem for image in values["per_image"]] == expected
    rows = read_table(out / "differ.csv")
    assert [Path(row["file"]).stem for row in rows] == expected
    assert [row["right"] for row in rows][:2] == ["cnn", ""]
    assert len(read_table(out / "comparison.csv")) == 4
    # The image on which they agree has none.
    assert len(list((out / "sheets").iterdir())) == 3


def test_tables_for_people(breeds: str, dog: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(dog), "--source", breeds, "--truth", "maltese"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0].startswith(str(dog))
    assert lines[0].endswith("right: Maltese")
    for text in (
        "1 image, 1 of them with a known true label",
        "Confidence in the first choice",
        "Confidence in the true label",
        "Right answers",
        "Same first choice",
        "CNN + Transformer + MFE",
        "50 % or more",
        "95 % interval",
    ):
        assert text in out


def test_without_a_folder_nothing_is_written(
    breeds: str,
    dog: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    assert main(["compare", str(dog), "--source", breeds, "--json"]) == 0
    assert list(empty.iterdir()) == []
    values = json.loads(capsys.readouterr().out)
    assert values["judged"] == 0
    assert values["variants"][0]["accuracy"] is None
    assert values["per_image"][0]["file"] == str(dog)
    assert [answer["variant"] for answer in values["per_image"][0]["answers"]] == VARIANTS


def test_nothing_that_can_be_read_gives_1(
    breeds: str, album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(album / "b.jpg"), "--source", breeds, "--out", str(tmp_path / "out")]) == 1
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 2
    assert err[1] == (
        "pawmatch: error: There is no image to compare the variants on; give one that can be read."
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["comparison.csv"]


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (["--sheets", "-1"], "--sheets is -1; give a whole number from 0 on."),
        (["--task", "cat"], "is for the task breed, not cat"),
    ],
)
def test_wrong_options_give_2_and_write_nothing(
    options: list[str],
    hint: str,
    breeds: str,
    dog: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert main(["compare", str(dog), "--source", breeds, "--out", str(out), *options]) == 2
    assert hint in capsys.readouterr().err
    assert not out.exists()


def test_truth_may_be_a_table_that_a_spreadsheet_saved(
    breeds: str, classes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "truth.csv"
    table.write_bytes("file;label\r\nb.jpg;maltese\r\na.jpg;Boxer\r\n".encode("utf-16"))
    arguments = ["compare", str(classes), "--source", breeds, "--json", "--truth", str(table)]
    assert main(arguments) == 0
    per_image = json.loads(capsys.readouterr().out)["per_image"]
    assert [image["truth"] for image in per_image] == ["Maltese_Dog", *["Boxer"] * 4]
    table.write_text("file,label\nb.jpg,wolpertinger\n")
    assert main(arguments) == 2
    assert "'wolpertinger' is not among the 5 classes" in capsys.readouterr().err
    table.write_text("name,label\nb.jpg,maltese\n")
    assert main(arguments) == 2
    assert "needs the columns file and label" in capsys.readouterr().err
