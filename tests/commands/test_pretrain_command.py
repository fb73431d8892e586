"""`pawmatch pretrain`: from a folder of images to a backbone that `pawmatch train` starts from."""

from __future__ import annotations

from pathlib import Path

import pytest

from pawmatch.cli import main
from tests.support.training import HYBRID, changes, write_colours

TINY = changes(["input.size=32", "epochs=1", "batch_size=8"])


def test_training_starts_from_what_it_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_colours(tmp_path / "data", train=12, val=4)
    arguments = ["pretrain", "--backbone", "test_resnet", "--data", str(data / "train"), "--device", "cpu"]
    run = tmp_path / "run"
    assert main([*arguments, "--out", str(run), *TINY]) == 0
    assert f"start from it with --init {run}" in capsys.readouterr().out
    options = changes(
        [*HYBRID, 'architecture.backbone="test_resnet"', "architecture.backbone_config={}", "epochs=1"]
    )
    train = ["train", "--recipe", "breed", "--variant", "cnn", "--data", str(data), "--init", str(run)]
    assert main([*train, "--out", str(tmp_path / "trained"), "--device", "cpu", *options]) == 0
    assert f"the backbone starts from {run}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (["--autocast", "int8"], "use bfloat16 or float16"),
        (["--threads", "0"], "--threads is '0'"),
        (["--set", "epochs"], "write key=value"),
        (["--backbone", "vit_tiny_patch16_224"], "not a vision transformer"),
    ],
)
def test_what_is_wrong_is_said_before_the_run(
    options: list[str], hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["pretrain", "--backbone", "test_resnet", "--data", str(tmp_path / "nowhere")]
    assert main([*arguments, "--out", str(tmp_path / "run"), *options]) == 2
    assert hint in capsys.readouterr().err
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 2
    assert "There is no folder" in capsys.readouterr().err
