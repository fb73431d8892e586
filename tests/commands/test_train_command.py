"""`pawmatch train`: from a folder of images to a checkpoint that classifies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from pawmatch.cli import main
from tests.support.training import changes, write_backbone

TINY = [
    *(
        "distillation=0.0",
        "mixup=0.0",
        "cutmix=0.0",
        "epochs=1",
        "batch_size=4",
        "input.size=32",
        "architecture.input_size=32",
    ),
    *("architecture.filters=[8, 8, 8, 8]", "architecture.heads=2", "architecture.layers=1"),
]


def write_paintings(folder: Path, photo: Image.Image, count: int, *labels: str) -> Path:
    """So many pictures of each label, in a colour of its own."""
    colours = {"Claude_Monet": "teal", "Rembrandt": "brown", "Paul_Cezanne": "olive"}
    for label in labels:
        (folder / label).mkdir(parents=True)
        for index in range(count):
            colour = Image.new("RGB", photo.size, colours[label])
            Image.blend(photo, colour, 0.5 + index / 20).save(folder / label / f"{index}.png")
    return folder


def command(out: Path, *options: str) -> list[str]:
    arguments = ["train", "--recipe", "artist-chae-taught", "--out", str(out), "--device", "cpu", *options]
    return arguments + [part for change in TINY for part in ("--set", change)]


def test_train_writes_a_checkpoint_that_classifies(
    photo: Image.Image, dog: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    for half, count in (("train", 6), ("val", 3)):
        write_paintings(data / half, photo, count, "Claude_Monet", "Rembrandt")
    out = tmp_path / "run"
    assert main(command(out, "--data", str(data))) == 0
    assert f"wrote {out}" in capsys.readouterr().out
    assert {"summary.json", "history.csv", "config.json"} <= {path.name for path in out.iterdir()}
    assert main(["classify", str(dog), "--task", "artist-chae", "--source", str(out), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert {one["label"] for one in answer["predictions"]} == {"Claude_Monet", "Rembrandt"}


def test_images_come_from_several_folders_and_are_set_into_scenes(
    photo: Image.Image, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = write_paintings(tmp_path / "one", photo, 6, "Claude_Monet", "Rembrandt")
    two = write_paintings(tmp_path / "two", photo, 4, "Paul_Cezanne", "Rembrandt")
    val = write_paintings(tmp_path / "val", photo, 3, "Claude_Monet", "Rembrandt", "Paul_Cezanne")
    out = tmp_path / "run"
    options = ["--data", str(one), "--data", str(two), "--val", str(val), "--scenes", str(val)]
    options += ["--engine", "torch", "--set", "zoom_out=0.5", "--set", "cached_views=2"]
    options += ["--set", "unfreeze=[[0.0, 0]]"]
    assert main(command(out, *options)) == 0
    printed = capsys.readouterr().out
    assert "3 classes, 20 training and 9 validation images, 0 skipped" in printed
    assert "view 2 of 2: running 20 images" in printed
    options[options.index(str(val))] = str(tmp_path / "nowhere")
    assert main(command(tmp_path / "other", *options)) == 2
    assert "There is no folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (["--recipe", "unheard-of"], "use one of artist, artist-chae, artist-chae-taught, breed, phases, or"),
        (["--recipe", "breed"], "learns from a teacher; name a checkpoint with --teacher"),
        (["--recipe", "artist", "--set", "license="], "has no license; give one with --set license="),
        (
            [
                "--recipe",
                "artist-chae-taught",
                "--set",
                "variant=",
                "--set",
                "distillation=0.0",
                "--variant",
                "rnn",
            ],
            "Variant 'rnn' is unknown",
        ),
        (["--recipe", "artist", "--set", "epoch=2"], "'epoch' is unknown"),
        (["--recipe", "artist", "--threads", "0"], "--threads is '0'"),
        (["--recipe", "artist", "--autocast", "int8"], "use bfloat16 or float16"),
        (["--recipe", "artist", "--engine", "abacus"], "--engine is 'abacus'; use one of auto, torch, "),
        (["--recipe", "artist"], "no/data"),
        (
            ["--recipe", "artist", "--val-share", "1.0"],
            "share that is held out is 1.0; it must be",
        ),
        ([], "There is neither a --recipe nor a --task"),
        (["--task", "birds"], "There is no folder no/data"),
        (["--task", "birds", "--set", "epochs=0"], "no/data"),
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
    assert sorted(names) == ["artist", "artist-chae", "artist-chae-taught", "breed", "phases"]


def test_without_a_recipe_any_folder_becomes_a_task(
    photo: Image.Image,
    dog: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a tiny backbone in place of the bundled one; what is picked otherwise stays."""
    monkeypatch.chdir(tmp_path)
    write_paintings(tmp_path / "birds", photo, 10, "Claude_Monet", "Rembrandt")
    backbone = write_backbone(tmp_path / "backbone")
    tiny = ["architecture.backbone=tf_efficientnet_lite0", f"init={backbone}", "input.size=32", "epochs=1"]
    tiny += ["cached_views=1", "words.subject=bird", "architecture.projection=16"]
    command = ["train", "--task", "birds", "--data", "birds", "--device", "cpu", "--engine", "torch"]
    assert main([*command, "--val-share", "0.3", *changes(tiny)]) == 0
    printed = capsys.readouterr().out
    assert "settings picked for " in printed
    assert "1 epochs, batches of 16, 1 views of 32 px" in printed
    config = json.loads((tmp_path / "runs" / "birds" / "config.json").read_text())
    assert (config["task"]["name"], config["task"]["subject"]) == ("birds", "bird")
    assert set(config["variants"]) == {"cnn", "cnn_transformer", "cnn_transformer_mfe"}
    assert "pawmatch train --task birds --variant all" in (tmp_path / "runs/birds/README.md").read_text()
    assert main(["classify", str(dog), "--task", "birds", "--source", "runs/birds", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["task"] == "birds"
