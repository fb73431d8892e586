"""Cores: what a container's limit leaves of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pawmatch.images.pool import cpu_quota, usable_cores


def built_in() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.mark.parametrize(
    ("text", "quota"),
    [
        ("max 100000", None),
        ("200000 100000", 2.0),
        ("50000 100000", 0.5),
        ("1 0", None),
        ("", None),
        ("many", None),
    ],
)
def test_the_limit_of_a_container_is_read(tmp_path: Path, text: str, quota: float | None) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert cpu_quota(tmp_path) == quota


def test_the_older_files_are_read_too(tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("300000\n")
    assert cpu_quota(tmp_path) == 3.0
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert cpu_quota(tmp_path) is None


def test_there_is_always_one_core_and_never_more_than_there_are(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == built_in()  # no limit
    (tmp_path / "cpu.max").write_text("10000 100000")
    assert usable_cores(tmp_path) == 1
    (tmp_path / "cpu.max").write_text("99900000 100000")
    assert usable_cores(tmp_path) == built_in()
