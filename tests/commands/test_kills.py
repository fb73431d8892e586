"""A run that is killed again and again ends with the file of a run that nothing ended."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

KILLS = Path(__file__).parents[2] / "benchmarks" / "kills.py"


@pytest.mark.skipif(sys.platform == "win32", reason="other systems have no such signal")
def test_nothing_is_lost_or_twice_or_torn(breeds: str) -> None:
    options = ["--kills", "2", "--images", "48", "--source", breeds, "--workers", "0"]
    done = subprocess.run([sys.executable, KILLS, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["csv"] * 2 + ["jsonl"] * 2 + ["parquet"] * 2
    assert all(" 2 kills (" in line and line.endswith(" 0 differ") for line in lines[1::2])
