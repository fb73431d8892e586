"""One run in two processes on the CPU, joined as torchrun joins them, which share its shards."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pawmatch import cli
from pawmatch.checkpoint import load_checkpoint
from pawmatch.training.distributed import gathered, in_parallel, rank, share, world
from pawmatch.training.loop import CURVE_FILE, STATE_FILE
from tests.support.training import HYBRID, changes, packed, write_colours

# The command, which also leaves behind the weights that each process ends with, and each epoch's state.
PROCESS = """
import shutil
import sys
import torch
from pawmatch import cli
from pawmatch.training import run
from pawmatch.training.loop import RunState

train, save = run.train, RunState.save

def kept(self, history):
    save(self, history)
    shutil.copy(self.run / "state.pt", f"{sys.argv[1]}/state{len(history)}.pt")

def noted(model, *rest, **options):
    history = train(model, *rest, **options)
    torch.save(model.state_dict(), f"{sys.argv[1]}/rank{run.rank()}.pt")
    return history

run.train, RunState.save = noted, kept
code = cli.main(sys.argv[2:])
if "gradio" in sys.modules:
    sys.exit("training needs no page")
sys.exit(code)
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_two_processes_train_one_model_and_one_goes_on_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The variant whose morphology module holds parameters without gradients, its attention as published."""
    data = write_colours(tmp_path / "data", train=9, val=3)
    (data / "train" / "red" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    data, out = packed(data, tmp_path / "shards"), tmp_path / "run"
    arguments = ["train", "--recipe", "breed", "--variant", "cnn_transformer_mfe", "--data", str(data)]
    arguments += ["--stream", "--out", str(out), "--device", "cpu", "--threads", "1"]
    arguments += changes(
        [*HYBRID, 'architecture.attention_mode="published"', "epochs=2", "batch_size=8", "ema=0.9"]
    )
    arguments += changes(["unfreeze=[[0.0, 0], [0.5, 5]]", "learning_rate=1e-2"])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(tmp_path), *arguments],
            env={**os.environ, **shared, "RANK": str(number), "LOCAL_RANK": str(number)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    try:
        said = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], said
    first, second = (torch.load(tmp_path / f"rank{number}.pt", weights_only=True) for number in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    written = load_checkpoint(str(out))
    assert written.config.training["processes"] == 2
    assert "pretrained_backbone" not in written.config.architecture
    # The first process says everything, the second nothing.
    lines = said[0][0].splitlines()
    assert sum(line.startswith("epoch") for line in lines) == 2
    assert "from epoch 2 on, the last 5 of 5 backbone stages learn" in lines
    assert said[0][1].count("skipped") == 1
    assert said[1] == ("", "")
    summary = json.loads((out / "summary.json").read_text())
    assert summary["processes"] == 2
    assert "broken.png" in summary["skipped_images"][0]
    assert (summary["train_images"], summary["epochs"]) == (18, 2)

    curve = (out / CURVE_FILE).read_text().splitlines()
    shutil.copy(tmp_path / "state1.pt", out / STATE_FILE)  # as after a run that was ended
    assert cli.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:11] for line in lines if line.startswith("epoch")] == ["epoch   2/2"]
    again = (out / CURVE_FILE).read_text().splitlines()
    assert len(again) == 3
    assert again[:2] == curve[:2]
    assert load_checkpoint(str(out)).config.training["processes"] == 1


def test_alone_nothing_is_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.Linear(2, 2)
    assert (rank(), world()) == (0, 1)
    assert in_parallel(model) is model
    assert list(share("abc")) == gathered(list("abc")) == ["a", "b", "c"]
