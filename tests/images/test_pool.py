"""Readers: images prepared in other processes, in order, whatever happens to one of them; and cores."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pawmatch.errors import BadOption, BrokenImage, ImageNotFound, PawMatchError, ReaderDied
from pawmatch.images import InputSpec, Prepared, open_image, pool, prepare
from pawmatch.images.pool import Found, Readers, cpu_quota, read_all, suitable_readers, usable_cores

SPECS = (InputSpec(size=32), InputSpec(size=48, views=("plain", "mirror")))


def serve_badly(pipe: Connection[Any, Any]) -> None:
    """As `serve`, but a file named kill* kills the reader, hang* holds it, once* kills only the first one."""

    def one(file: str, specs: object) -> object:
        name = Path(file).name
        if name.startswith("once") and not Path(file).with_suffix(".tried").exists():
            Path(file).with_suffix(".tried").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if name.startswith("kill"):
            os.kill(os.getpid(), signal.SIGSEGV)
        if name.startswith("hang"):
            signal.pause()
        return prepare(file, SPECS)

    pool.try_prepare = one  # type: ignore[assignment]
    readers_serve(pipe)


readers_serve = pool.serve


def end_at_once(pipe: object) -> None:
    """As `serve`, but never ready."""


@pytest.fixture
def folder(dog: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """Call with names for that many copies of a photo."""

    def copies(*names: str) -> list[str]:
        for name in names:
            (tmp_path / name).write_bytes(dog.read_bytes())
        return [str(tmp_path / name) for name in names]

    return copies


def given(files: list[str]) -> Iterator[Found]:
    return ((file, None) for file in files)


def test_reading_needs_no_torch() -> None:
    code = "import sys, pawmatch.images.pool; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


@pytest.mark.parametrize("count", [0, 2])
def test_the_order_is_kept_and_errors_are_in_their_place(
    album: Path, folder: Callable[..., list[str]], count: int
) -> None:
    files = [*folder("1.jpg", "2.jpg"), str(album / "b.jpg"), str(album / "none.jpg"), *folder("3.jpg")]
    refused = ImageNotFound("There is no image in this folder.")
    entries: list[Found] = [*given(files), ("empty", refused)]
    found = list(read_all(entries, SPECS, Readers(count), ahead=3))
    assert [file for file, _ in found] == [*files, "empty"]
    kinds = [type(entry) for _, entry in found]
    assert kinds == [Prepared, Prepared, BrokenImage, ImageNotFound, Prepared, ImageNotFound]
    assert found[-1][1] is refused
    mine, theirs = prepare(files[0], SPECS), found[0][1]
    assert isinstance(theirs, Prepared)
    assert (theirs.width, theirs.height, theirs.warnings) == (mine.width, mine.height, mine.warnings)
    for spec in SPECS:
        np.testing.assert_array_equal(theirs.pixels[spec], mine.pixels[spec])
    assert open_image(files[0]).size == (mine.width, mine.height)


def test_no_more_is_under_way_than_was_said(folder: Callable[..., list[str]]) -> None:
    files = folder("a.jpg") * 20
    taken = 0

    def counted() -> Iterator[Found]:
        nonlocal taken
        for entry in given(files):
            taken += 1
            yield entry

    stream = read_all(counted(), SPECS, Readers(1), ahead=4)
    for given_out in range(1, 11):
        next(stream)
        assert taken <= given_out + 3
    stream.close()
    assert taken < 20


@pytest.mark.skipif(sys.platform == "win32", reason="other systems have no such signals")
def test_a_reader_that_dies_costs_one_file(
    folder: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "serve", serve_badly)
    monkeypatch.setattr(pool, "LONGEST_S", 1.0)
    files = folder("a.jpg", "kill.jpg", "b.jpg", "once.jpg", "hang.jpg", "c.jpg")
    found: dict[str, Prepared | PawMatchError] = {
        Path(file).stem: entry for file, entry in read_all(given(files), SPECS, Readers(1), ahead=4)
    }
    assert list(found) == ["a", "kill", "b", "once", "hang", "c"]
    assert [name for name, entry in found.items() if isinstance(entry, ReaderDied)] == ["kill", "hang"]
    assert str(found["kill"]) == (
        "Reading this image ended the process that does it, 2 times; save it as JPEG or PNG and try again."
    )
    assert "took longer than 1 s" in str(found["hang"])


def test_readers_that_cannot_start_are_no_endless_loop(
    folder: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "serve", end_at_once)
    with pytest.raises(BadOption, match="--workers 0"):
        list(read_all(given(folder("a.jpg")), SPECS, Readers(1), ahead=4))


def test_few_files_need_no_readers() -> None:
    assert suitable_readers(3, "cpu") == 0
    assert 1 <= suitable_readers(pool.FEW_FILES, "cpu") <= suitable_readers(pool.FEW_FILES, "cuda:0")


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
