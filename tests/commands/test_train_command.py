"""`pawmatch train`: from a folder of images to a checkpoint that classifies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from pawmatch.cli import main


def test_train_writes_a_checkpoint_that_classifies(
    photo: Image.Image, dog: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    for half, count in (("train", 6), ("val", 3)):
        for label, colour in (("Claude_Monet", "teal"), ("Rembrandt", "brown")):
            folder = data / half / label
            folder.mkdir(parents=True)
            for index in range(count):
                Image.blend(photo, Image.new("RGB", photo.size, colour), 0.5 + index / 20).save(
                    folder / f"{index}.png"
                )
    changes = [
        *("epochs=1", "batch_size=4", "sizes=[]", "input.size=32", "architecture.input_size=32"),
        *("architecture.filters=[8, 8, 8, 8]", "architecture.heads=2", "architecture.layers=1"),
    ]
    out = tmp_path / "run"
    arguments = ["train", "--recipe", "artist-stage1", "--data", str(data), "--out", str(out)]
    arguments += ["--device", "cpu"]
    arguments += [part for change in changes for part in ("--set", change)]
    assert main(arguments) == 0
    assert f"wrote {out}" in capsys.readouterr().out
    assert {"summary.json", "history.csv", "config.json"} <= {path.name for path in out.iterdir()}
    assert main(["classify", str(dog), "--task", "artist", "--source", str(out), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert {one["label"] for one in answer["predictions"]} == {"Claude_Monet", "Rembrandt"}


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (
            ["--recipe", "unheard-of"],
            "breed-full, breed-phase1, breed-stage1",
        ),
        (["--recipe", "artist-starter"], "learns from a teacher; name a checkpoint with --teacher"),
        (["--recipe", "breed-stage1", "--set", "license="], "has no license; give one with --set license="),
        (["--recipe", "breed-starter", "--variant", "rnn"], "Variant 'rnn' is unknown"),
        (["--recipe", "breed-stage1", "--set", "epoch=2"], "'epoch' is unknown"),
        (["--recipe", "breed-stage1", "--threads", "0"], "--threads is '0'"),
        (["--recipe", "breed-stage1", "--autocast", "int8"], "use bfloat16 or float16"),
        (["--recipe", "breed-stage1"], "no/data"),
    ],
)
def test_train_refuses_bad_options(
    options: list[str], hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--data", "no/data", "--out", str(tmp_path / "out"), *options]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert hint in lines[0]


def test_recipes_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["train", "--list-recipes"])
    assert caught.value.code == 0
    names = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert {"artist-chae", "artist-starter", "breed-full", "breed-phase1", "breed-starter"} <= set(names)
