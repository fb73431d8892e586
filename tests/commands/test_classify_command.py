"""`pawmatch classify`: one image and many, for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pawmatch.cli import main

VARIANTS = ["cnn", "cnn_transformer", "cnn_transformer_mfe"]


def test_one_image_gives_the_object_of_the_api(
    breeds: str, dog: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["classify", str(dog), "--source", breeds, "--json", "--top-k", "3"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    answer = json.loads(out)
    assert list(answer) == [
        *("task", "model", "verdict", "predictions", "review", "candidates_90", "group", "looks_like"),
        *("boxes", "variants", "timing_ms", "warnings"),
    ]
    assert answer["task"] == "breed"
    assert answer["model"] == {
        "source": f"{breeds}/cnn_transformer_mfe",
        "variant": "cnn_transformer_mfe",
        "backbone": "resnet18d",
        "classes": 5,
    }
    assert len(answer["predictions"]) == 3
    assert all(list(one) == ["label", "name", "confidence"] for one in answer["predictions"])
    confidences = [one["confidence"] for one in answer["predictions"]]
    assert confidences == sorted(confidences, reverse=True)
    assert 0 < sum(confidences) <= 1
    assert list(answer["review"]) == ["needed", "reasons", "threshold"]
    assert all(list(reason) == ["code", "message"] for reason in answer["review"]["reasons"])
    assert answer["review"]["needed"] is bool(answer["review"]["reasons"])
    assert answer["predictions"][0]["name"] in answer["candidates_90"]
    assert [one["variant"] for one in answer["variants"]] == VARIANTS
    assert set(answer["timing_ms"]) == {"decode", "features", "head"}
    assert answer["warnings"] == []


def test_several_images_give_one_object_per_line(
    breeds: str, album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = str(album / "missing.jpg")
    assert main(["classify", str(album), missing, "--source", breeds, "--json"]) == 1
    out, err = capsys.readouterr()
    assert err == ""
    rows = [json.loads(line) for line in out.splitlines()]
    assert all(next(iter(row)) == "file" for row in rows)
    files = ["a.jpg", "b.jpg", "deeper/c.PNG", "missing.jpg"]
    assert [row["file"] for row in rows] == [str(album / file) for file in files]
    assert [row.get("error", {}).get("code") for row in rows] == [None, "BrokenImage", None, "ImageNotFound"]
    assert rows[0]["task"] == rows[2]["task"] == "breed"
    assert set(rows[1]["error"]) == {"code", "message"}


def test_one_image_that_fails_gives_an_error_object(
    breeds: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = str(tmp_path / "missing.jpg")
    assert main(["classify", missing, "--source", breeds, "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "file": missing,
        "error": {"code": "ImageNotFound", "message": "There is no such file; check its name and folder."},
    }


def test_lines_for_people(breeds: str, album: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", str(album), "--source", breeds]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert out.startswith(str(album / "a.jpg"))
    assert "%" in out
    assert "check: " in out
    assert len(err.splitlines()) == 1
    assert str(album / "b.jpg") in err


def test_one_image_is_described_in_full(breeds: str, dog: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["classify", str(dog), "--source", breeds]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{dog}: Perhaps a ")
    for text in ("Border Collie", "Maltese", "CNN + Transformer + MFE: ", "9 times in 10", "check: "):
        assert text in out


def test_a_folder_without_images_is_reported(
    breeds: str, dog: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["classify", str(tmp_path / "empty"), str(dog), "--source", breeds]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    assert "empty: There is no image in this folder" in err
