"""`pawmatch evaluate`: the table, the files, and what can be wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pawmatch import classifier, metrics
from pawmatch.checkpoint import load_checkpoint
from pawmatch.cli import main
from pawmatch.commands.rows import read_table
from pawmatch.evaluation.figures import STYLE
from pawmatch.evaluation.folders import fingerprint, labelled_files
from tests.support.checkpoints import change_config

VARIANTS = ["cnn", "cnn_transformer", "cnn_transformer_mfe"]


@pytest.fixture(scope="module")
def loaded() -> dict[tuple[object, ...], object]:
    """Classifiers that earlier tests of this file have loaded."""
    return {}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, loaded: dict[tuple[object, ...], object]) -> None:
    """Rough intervals, small figures, and no classifier loaded twice."""
    load = classifier.load

    def load_once(*options: str, adaptive: bool) -> object:
        if options not in loaded:
            loaded[options] = load(*options, adaptive=adaptive)
        return loaded[options]

    monkeypatch.setattr(classifier, "load", load_once)
    monkeypatch.setattr(metrics, "RESAMPLES", 10)
    monkeypatch.setitem(STYLE, "savefig.dpi", 40)


@pytest.fixture
def kennel(photo: Image.Image, tmp_path: Path) -> Path:
    """Five labelled pictures of two breeds."""
    folder = tmp_path / "kennel"
    for name, count in (("Beagle", 3), ("border collie", 2)):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            photo.rotate(50 * number).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture
def paintings(photo: Image.Image, tmp_path: Path) -> Path:
    """Two pictures that are no dogs, one of them in a folder below."""
    folder = tmp_path / "paintings"
    (folder / "deeper").mkdir(parents=True)
    photo.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(folder / "a.png")
    photo.rotate(90).save(folder / "deeper" / "b.png")
    return folder


def test_table_for_people(breeds: str, kennel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--data", str(kennel), "--source", breeds]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("breed: 5 images, 2 of 5 classes\n")
    for line in ("top-1", "macro-F1", "calibration error, 15 bins", "hold the truth", "flagged for a person"):
        assert f"\n  {line}" in out
    assert "CNN + Transformer + MFE" in out
    assert "Scope" not in out
    assert "Deletion" not in out
    assert max(len(line) for line in out.splitlines()) <= 120


def test_json_and_files(
    breeds: str, kennel: Path, paintings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "report"
    arguments = ["evaluate", "--data", str(kennel), "--source", breeds, "--outside", str(paintings)]
    assert main([*arguments, "--out", str(out), "--json"]) == 0
    printed, err = capsys.readouterr()
    values = json.loads(printed)
    assert values == json.loads((out / "metrics.json").read_text())
    names = ["metrics.json", "classes.csv", "reliability.png", "confusions.png", "risk_coverage.png"]
    assert err.splitlines() == [f"pawmatch: wrote {out / name}" for name in names]
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    assert list(values["variants"]) == VARIANTS
    assert (values["images"], values["outside_images"], values["calibration"]) == (5, 2, "own")
    assert values["review"]["outside_out_of_scope"]["value"] == 0  # the tiny weights have no gate
    assert values["faithfulness"] == {}
    rows = read_table(out / "classes.csv")
    assert len(rows) == 3 * 5
    assert rows[1]["name"] == "Border Collie"
    assert [row["images"] for row in rows[:5]] == ["3", "2", "0", "0", "0"]


def test_chosen_variants_and_heatmaps(
    breeds: str, kennel: Path, paintings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", "--data", str(kennel), "--source", breeds, "--variant", "cnn"]
    assert main([*arguments, "--faithfulness", "1", "--outside", str(paintings)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("breed: 5 images, 2 of 5 classes\n")
    assert "Heatmaps, on 1 images; ROAD on 1" in out
    for title in ("Deletion, lower is better", "Insertion", "ROAD", "Heatmap of a random head"):
        assert f"\n{title}" in out
    # The answers that users get are still those of all variants together.
    assert next(line for line in out.splitlines() if line.startswith("Answers as")).endswith("MFE")
    assert next(line for line in out.splitlines() if line.startswith("Confidence")).endswith(" CNN")


def test_unreadable_images_are_named_and_give_1(
    breeds: str, kennel: Path, paintings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = [kennel / "Beagle" / "1.png", paintings / "a.png"]
    for path in broken:
        path.write_bytes(b"no picture")
    arguments = ["evaluate", "--data", str(kennel), "--source", breeds, "--outside", str(paintings)]
    assert main([*arguments, "--json"]) == 1
    out, err = capsys.readouterr()
    assert [line.split(": ")[2] for line in err.splitlines()] == [str(path) for path in broken]
    values = json.loads(out)
    assert (values["images"], values["outside_images"]) == (4, 1)
    assert [entry["code"] for entry in values["unreadable"]] == ["UnsupportedFormat"] * 2


@pytest.mark.parametrize(
    ("fitted_on", "images", "says"),
    [("these", 9, "was fitted on these images"), (None, 5, "fitted on as many images"), ("others", 5, None)],
)
def test_images_that_were_fitted_on_are_pointed_out(
    breeds: str,
    kennel: Path,
    fitted_on: str | None,
    images: int,
    says: str | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = shutil.copytree(Path(breeds) / "cnn", tmp_path / "cnn")
    labels = load_checkpoint(source).config.labels
    code = fingerprint(labelled_files(kennel, labels), labels) if fitted_on == "these" else fitted_on

    def fitted(values: dict[str, Any]) -> None:
        values["variants"]["cnn"]["metrics"]["validation_images"] = images
        values["training"] = {"calibrated_on": code} if code else {}

    change_config(source, fitted)
    assert main(["evaluate", "--data", str(kennel), "--source", str(source)]) == 0
    err = capsys.readouterr().err
    assert ("--calibration halves" in err) is (says is not None)
    assert (says or "") in err


def test_calibration_by_halves(
    breeds: str, kennel: Path, photo: Image.Image, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(18):
        photo.rotate(19 * number).save(kennel / "Beagle" / f"more-{number}.png")
    options = ["--data", str(kennel), "--source", breeds, "--calibration", "halves", "--variant", "cnn"]
    assert main(["evaluate", *options]) == 0
    out = capsys.readouterr().out
    assert out.startswith("breed: 23 images, 2 of 5 classes\n")
    assert (
        "\ncalibration: fitted on random halves of these images, each judged by those it is not in\n" in out
    )


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (["--calibration", "both"], "Calibration 'both' is unknown; use own or halves."),
        (["--calibration", "halves"], "5 images are too few to fit a calibration on half of them"),
        (["--variant", "rnn"], "Variant 'rnn' is not in"),
        (["--faithfulness", "-1"], "--faithfulness is -1"),
        (["--task", "cat"], "is for the task breed, not cat"),
    ],
)
def test_wrong_use_is_one_line_and_gives_2(
    options: list[str], hint: str, breeds: str, kennel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "--data", str(kennel), "--source", breeds, *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert hint in err
