"""`pawmatch import` and `pawmatch push`: checkpoints from elsewhere and to elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pawmatch.cli import main


def test_import_converts_a_pickle(dog: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    from pawmatch.models import build_model

    model = build_model(family="hybrid", variant="cnn_transformer", num_classes=3, backbone="test_convnext")
    torch.save({"model_state_dict": model.state_dict()}, tmp_path / "weights.pth")
    labels = tmp_path / "labels.txt"
    labels.write_text("Beagle\n\nBoxer\nCollie\n")
    out = tmp_path / "imported"
    arguments = ["import", str(tmp_path / "weights.pth"), "--out", str(out), "--backbone", "test_convnext"]
    assert main(arguments) == 2
    assert "124 labels" in capsys.readouterr().err
    assert main([*arguments, "--labels", str(labels)]) == 0
    assert capsys.readouterr().out == f"wrote {out}: breed, cnn_transformer, 3 classes\n"
    assert main(["classify", str(dog), "--source", str(out), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["predictions"]) == 3


def test_import_wants_text_for_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_bytes(b"\xff\xfe\x00")
    assert main(["import", "w.pth", "--out", str(tmp_path / "o"), "--labels", str(labels)]) == 2
    assert "is no UTF-8 text" in capsys.readouterr().err


def test_push_passes_its_options_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[tuple[Any, Any]] = []

    def push(*places: str, **options: Any) -> str:
        calls.append((places, options))
        return "https://huggingface.co/user/repo/tree/main"

    monkeypatch.setattr("pawmatch.checkpoint.push", push)
    arguments = ["push", "folder", "user/repo", "--private", "--revision", "try", "--message", "First"]
    assert main(arguments) == 0
    assert calls == [(("folder", "user/repo"), {"private": True, "revision": "try", "message": "First"})]
    assert capsys.readouterr().out == "https://huggingface.co/user/repo/tree/main\n"


def test_push_refuses_what_is_no_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", str(tmp_path), "user/repo"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_push_sends_the_app_to_a_space(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[tuple[Any, Any]] = []

    def push_space(*places: Any, **options: Any) -> str:
        calls.append((places, options))
        return "https://huggingface.co/spaces/user/app"

    monkeypatch.setattr("pawmatch.checkpoint.push_space", push_space)
    assert main(["push", "--space", "user/app", "--variable", "A=b=c", "--hardware", "cpu-basic"]) == 0
    options = {"private": False, "variables": {"A": "b=c"}, "hardware": "cpu-basic", "message": None}
    assert calls == [((Path(__file__).parents[2], "user/app"), options)]
    assert capsys.readouterr().out == "https://huggingface.co/spaces/user/app\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["folder"],
        ["folder", "user/repo", "--hardware", "cpu-basic"],
        ["folder", "user/repo", "--space", "user/app"],
        ["--space", "user/app", "--variable", "A"],
    ],
)
def test_push_wants_a_checkpoint_or_a_space(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", *arguments]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
