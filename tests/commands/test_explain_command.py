"""`pawmatch explain`: the pictures that it writes and what it says about them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from pawmatch.cli import main

VARIANTS = ["cnn", "cnn_transformer", "cnn_transformer_mfe"]


def test_explain_writes_a_picture_per_variant_and_a_sheet(
    tiny_checkpoints: Callable[..., Path], dog: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "folder"
    source = str(tiny_checkpoints("artist"))
    arguments = ["explain", str(dog), "--task", "artist", "--source", source, "--out", str(out)]
    assert main([*arguments, "--label", "cezanne, paul", "--json"]) == 2
    assert "did you mean" in capsys.readouterr().err
    assert main([*arguments, "--label", "paul cezanne", "--json", "--colormap", "viridis"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["explanation"]["label"] == "Paul_Cezanne"
    names = [*VARIANTS, "sheet"]
    assert answer["explanation"]["files"] == {name: str(out / f"dog.{name}.jpg") for name in names}
    sizes = {}
    for name in names:
        with Image.open(out / f"dog.{name}.jpg") as image:
            sizes[name] = image.size
    assert [sizes[variant] for variant in VARIANTS] == [(240, 180)] * 3
    assert sizes["sheet"][0] > 3 * 400
    assert main([*arguments, "--parts"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{dog}: {answer['verdict']['text']}")
    assert f"wrote {out / 'dog.sheet.jpg'}" in said
    assert "CNN + Transformer + MFE: " in said
    assert "branches of CNN + Transformer + MFE: body proportion " in said
    assert f"wrote {out / 'dog.parts.jpg'}" in said
    with Image.open(out / "dog.parts.jpg") as image:
        assert image.width == 844


def test_explain_takes_any_shape_of_image(breeds: str, tmp_path: Path) -> None:
    for size in ((1, 900), (3000, 2)):
        image = tmp_path / "strip.png"
        Image.new("RGB", size, "green").save(image)
        assert main(["explain", str(image), "--source", breeds, "--out", str(tmp_path)]) == 0


@pytest.mark.parametrize("options", [["--strength", "2"], ["--colormap", "rainbow"]])
def test_explain_refuses_bad_options(
    options: list[str], breeds: str, dog: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["explain", str(dog), "--source", breeds, "--out", str(out), *options]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not out.exists()


def test_explain_of_a_broken_image_gives_1(
    breeds: str, album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = str(album / "b.jpg")
    assert main(["explain", broken, "--source", breeds]) == 1
    assert capsys.readouterr().err.splitlines()[0].startswith(f"pawmatch: error: {broken}: ")
    assert main(["explain", broken, "--source", breeds, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "BrokenImage"
