"""A run killed in the middle of an epoch and started again ends as one that was left alone."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pawmatch.checkpoint import load_checkpoint
from pawmatch.cli import main
from tests.support.training import HYBRID, changes, write_colours

# The command, killed as `kill -9` does in the given optimization step.
KILLED = """
import os, signal, sys
from pawmatch import cli
from pawmatch.training.optim import Optimization

step, taken = Optimization.step, 0

def killed(self, loss):
    global taken
    taken += 1
    if taken == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, loss)

Optimization.step = killed
sys.exit(cli.main(sys.argv[2:]))
"""


def command(data: Path, out: Path) -> list[str]:
    values = ["epochs=3", "batch_size=8", "learning_rate=1e-2", "ema=0.8", "mixup=0.4", "cutmix=1.0"]
    values += ["unfreeze=[[0.0, 1], [0.5, 5]]", "zoom_out=0.3", "rotation=10", "plain=0.2", "patience=0"]
    arguments = ["train", "--recipe", "breed", "--variant", "cnn_transformer_mfe", "--data", str(data)]
    arguments += ["--out", str(out), "--device", "cpu", "--threads", "1"]
    return [*arguments, *changes([*HYBRID, *values])]


def without_times(lines: str) -> list[str]:
    """What a run said of its epochs, as far as a second run can say the same."""
    return [line.rpartition("  ")[0] for line in lines.splitlines() if line.startswith("epoch")]


def test_killed_in_an_epoch_and_given_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_colours(tmp_path / "data", train=20, val=8)  # 5 steps an epoch
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, "8", *command(data, cut)], capture_output=True, text=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (cut / "state.pt").is_file()
    assert not (cut / "model.safetensors").exists()
    assert main(command(data, cut)) == 0
    resumed = capsys.readouterr().out
    assert main(command(data, whole)) == 0
    alone = capsys.readouterr().out
    assert without_times(killed.stdout) + without_times(resumed) == without_times(alone)
    assert len(without_times(resumed)) == 2
    ours, theirs = load_checkpoint(str(cut)), load_checkpoint(str(whole))
    assert ours.config.metrics == theirs.config.metrics
    assert ours.config.calibration == theirs.config.calibration
    mine, other = ours.model.state_dict(), theirs.model.state_dict()
    assert all(torch.equal(mine[key], other[key]) for key in other)
    curves = [json.loads((run / "summary.json").read_text())["history"] for run in (cut, whole)]
    for row in (*curves[0], *curves[1]):
        del row["seconds"]
    assert curves[0] == curves[1]
