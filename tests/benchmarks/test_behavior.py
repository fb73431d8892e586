"""Two dumps of behavior: which differences are found."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.behavior import differences


@pytest.fixture
def dumps(tmp_path: Path) -> tuple[Path, Path]:
    """Two dumps that are alike."""
    for root in (tmp_path / "one", tmp_path / "other"):
        root.mkdir()
        (root / "a.json").write_text(json.dumps({"label": "Boxer", "scores": [0.5, 0.25]}))
        np.savez(root / "a.npz", cnn=np.eye(2))
        (root / "help.txt").write_text("usage\nflags\n")
    return tmp_path / "one", tmp_path / "other"


def test_equal_dumps_have_no_difference(dumps: tuple[Path, Path]) -> None:
    (dumps[1] / "a.json").write_text(json.dumps({"label": "Boxer", "scores": [0.50001, 0.25]}))
    assert list(differences(*dumps, 1e-4)) == []


def test_every_difference_is_named(dumps: tuple[Path, Path]) -> None:
    one, other = dumps
    (other / "a.json").write_text(json.dumps({"label": "Pug", "scores": [0.5, 0.26], "new": 1}))
    np.savez(other / "a.npz", cnn=np.eye(2) / 2)
    (other / "help.txt").write_text("usage\noptions\n")
    (other / "b.txt").touch()
    assert list(differences(one, other, 1e-4)) == [
        f"b.txt: in {other} only",
        "a.json: /label is 'Boxer', then 'Pug'",
        "a.json: /scores/1 is 0.25, then 0.26",
        "a.json: /new is in the second only",
        "a.npz: cnn differs by 0.5",
        "help.txt: -flags",
        "help.txt: +options",
    ]
