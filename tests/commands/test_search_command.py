"""`pawmatch search`: from a study and a folder of images to a table."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from pawmatch.cli import main

STUDY = """
recipe = "artist-stage1"
[values]
epochs = 1
batch_size = 4
sizes = []
input.size = 32
architecture = { input_size = 32, filters = [8, 8, 8, 8], heads = 2, layers = 1 }
[trials.plain]
[trials."two layers"]
architecture.layers = 2
[trials."three heads"]
architecture.heads = 3
"""


@pytest.fixture
def data(photo: Image.Image, tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for half, count in (("train", 4), ("val", 3)):
        for label, colour in (("Claude_Monet", "teal"), ("Rembrandt", "brown")):
            place = folder / half / label
            place.mkdir(parents=True)
            for index in range(count):
                Image.blend(photo, Image.new("RGB", photo.size, colour), 0.5 + index / 20).save(
                    place / f"{index}.png"
                )
    return folder


def test_search_prints_and_writes_the_table(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, out = tmp_path / "mine.toml", tmp_path / "found"
    study.write_text(STUDY)
    arguments = ["search", "--study", str(study), "--data", str(data), "--out", str(out), "--threads", "1"]
    arguments += ["--device", "cpu", "--set", "label_smoothing=0.0"]
    assert main(arguments) == 1  # one trial cannot be built
    printed = capsys.readouterr().out
    assert "\n| two layers | `layers=2` | " in printed
    assert "- three heads failed: The encoder's width, 8, must be a multiple of heads, 3." in printed
    page = (out / "study.md").read_text()
    command = (
        "pawmatch search --study mine.toml --data data --out found --threads 1 --set label_smoothing=0.0"
    )
    assert page.startswith(f"Made by `{command}` on 8 training images and 6 validation images.\n")
    assert str(tmp_path) not in page
    figures = json.loads((out / "study.json").read_text())
    assert figures["command"] == command
    assert [trial["name"] for trial in figures["trials"]] == ["plain", "two layers", "three heads"]
    assert main([*arguments, "--trials", "2"]) == 0
    assert "epoch" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (["--study", "unheard-of"], "use one of attention, chae"),
        (["--study", "chae", "--set", "epoch=2"], "'epoch' is unknown"),
        (["--study", "chae", "--set", "variant=all"], "set variant to one of cnn, "),
        (["--study", "chae", "--trials", "0"], "--trials is '0'"),
        (["--study", "chae", "--seeds", "many"], "--seeds is 'many'"),
        (["--study", "chae", "--data", "no/data"], "There is no folder no/data"),
    ],
)
def test_search_refuses_bad_options(
    options: list[str], hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", "--data", str(tmp_path), "--out", str(tmp_path / "out"), *options]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert hint in lines[0]
    assert not (tmp_path / "out").exists()


def test_without_optuna_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("pawmatch.training.search", "pawmatch.training.search"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "optuna"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["search", "--study", "chae", "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == (
        "pawmatch: error: `pawmatch search` needs Optuna; install it with: pip install optuna.\n"
    )


def test_studies_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["search", "--list-studies"])
    assert caught.value.code == 0
    names = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["attention", "chae"]
