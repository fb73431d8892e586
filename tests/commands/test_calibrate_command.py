"""`pawmatch calibrate`: from a checkpoint and a folder of images to a calibrated checkpoint."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pawmatch.calibration import Calibration
from pawmatch.checkpoint import load_checkpoint, save_checkpoint
from pawmatch.cli import main
from tests.support.training import RECIPE, train_tiny, write_colours


def test_an_uncalibrated_checkpoint_gets_its_confidence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_colours(tmp_path / "data", train=8, val=12)
    run = train_tiny(data, tmp_path / "run", recipe=replace(RECIPE, epochs=1))
    checkpoint = load_checkpoint(run)
    bare = replace(checkpoint.config, calibration=Calibration(), metrics={})
    save_checkpoint(tmp_path / "bare", checkpoint.model, bare)
    out = tmp_path / "out"
    arguments = ["calibrate", "--task", RECIPE.task, "--source", str(tmp_path / "bare"), "--device", "cpu"]
    assert main([*arguments, "--data", str(data), "--out", str(out)]) == 0
    assert f"wrote {out}" in capsys.readouterr().out
    config = load_checkpoint(out).config
    assert config.metrics["validation_images"] == 24
    assert config.calibration.temperature == pytest.approx(
        checkpoint.config.calibration.temperature, rel=0.02
    )


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (["--task", "artist", "--data", "no/data"], "There is no folder no/data"),
        (["--task", "Artist!", "--data", "no/data"], "Task 'Artist!' is unknown"),
        (["--data", "no/data", "--source", "no/weights"], "no/weights"),
        (["--data", "no/data", "--device", "abacus"], "abacus"),
        ([], "There is nothing to fit on; give --data or --val"),
    ],
)
def test_bad_options_are_one_line(
    options: list[str], hint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", "--out", str(tmp_path / "out"), *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert hint in line
    assert not (tmp_path / "out").exists()
