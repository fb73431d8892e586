"""Scalars for TensorBoard, and life without it."""

import sys
from pathlib import Path

import pytest

from pawmatch.training.loop import SCALARS, Epoch, tensorboard

EPOCHS = [Epoch(i, 32, 1.0 / i, 2.0, 0.5, 0.9, 0.4, 1.5) for i in (1, 2, 3)]


def test_a_resumed_run_goes_on_in_the_same_curve(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="an optional package")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for done, shown in ((0, EPOCHS[:2]), (1, EPOCHS[1:])):  # the second epoch was not saved
        with tensorboard(tmp_path, done=done, report=pytest.fail) as plot:
            for epoch in shown:
                plot(epoch)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert set(events.Tags()["scalars"]) == set(SCALARS)
    curve = events.Scalars("loss/train")
    assert [(event.step, round(event.value, 3)) for event in curve] == [(1, 1.0), (2, 0.5), (3, 0.333)]


def test_without_the_package_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    lines: list[str] = []
    with tensorboard(tmp_path / "curves", done=0, report=lines.append) as plot:
        plot(EPOCHS[0])
    assert len(lines) == 1
    assert "pip install tensorboard" in lines[0]
    assert not (tmp_path / "curves").exists()
