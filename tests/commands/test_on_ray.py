"""`pawmatch classify --on ray`: partitions, what a second start does, and a run on a Ray of this computer."""

from __future__ import annotations

import importlib.util
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from pawmatch.cli import main
from pawmatch.commands import on_ray
from pawmatch.commands.on_ray import Destination, Worker, partitions
from pawmatch.errors import BadOption
from pawmatch.evaluation.folders import BATCH, find_images

with_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")


@pytest.fixture
def photos(dog: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(20):
        (folder / f"{number:02}.jpg").write_bytes(dog.read_bytes()[: 300 if number == 9 else None])
    return folder


def test_without_ray_it_says_what_to_install(
    dog: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["classify", str(dog), "--on", "ray", "--out", "rows"]) == 2
    assert 'pip install "pawmatch[ray]"' in capsys.readouterr().err


def test_partitions_are_named_by_what_is_in_them() -> None:
    found = [(f"{number}.jpg", None) for number in range(5)]
    names = [part.name for part in partitions(iter(found), 2)]
    assert [name[:14] for name in names] == ["part-00000000-", "part-00000001-", "part-00000002-"]
    found[3] = ("other.jpg", None)
    again = [part.name for part in partitions(iter(found), 2)]
    assert [one == other for one, other in zip(names, again, strict=True)] == [True, False, True]


def run_here(args: Any, engines: dict[str, str], out: str, missing: set[str], kept: int, images: int) -> int:
    """What the workers of a cluster do, in this process."""
    worker, errors = Worker(args, engines, out), 0
    for part in partitions(find_images(args.images), on_ray.ROWS):
        if part.name in missing:
            batch = {"name": [part.name], "found": [pickle.dumps(part.found)]}
            errors += worker(batch)["errors"][0]
    return errors


def test_rows_are_those_of_one_computer_and_a_second_start_does_what_is_missing(
    breeds: str,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(on_ray, "ROWS", BATCH)
    monkeypatch.setattr(on_ray, "do_missing", run_here)
    one, out = tmp_path / "one.parquet", tmp_path / "many"
    command = ["classify", str(photos), "--source", breeds, "--engine", "torch", "--out"]
    assert main([*command, str(one)]) == 1
    assert main([*command, str(out), "--on", "ray"]) == 1
    assert pq.read_table(out).equals(pq.read_table(one))
    assert [column for column in pq.read_table(out).column("error").to_pylist() if column] == ["BrokenImage"]

    parts = sorted(out.glob("part-*"))
    before = [part.stat().st_mtime_ns for part in parts]
    parts[1].unlink()
    assert main([*command, str(out), "--on", "ray"]) == 1
    assert [part.stat().st_mtime_ns == time for part, time in zip(parts, before, strict=True)] == [
        *(True, False, True),
    ]
    assert pq.read_table(out).equals(pq.read_table(one))
    assert main([*command, str(out), "--on", "ray"]) == 0
    assert "was finished before: 20 rows in 3 parts" in capsys.readouterr().err

    (photos / "19.jpg").unlink()
    assert main([*command, str(out), "--on", "ray"]) == 0
    assert "1 parts were about other images than there are now" in capsys.readouterr().err
    assert pq.read_table(out).num_rows == 19
    assert main([*command, str(out), "--on", "ray", "--top-k", "2"]) == 2
    assert "top_k was 5, now 2); add --fresh" in capsys.readouterr().err
    assert main([*command, str(out), "--on", "ray", "--top-k", "2", "--fresh"]) == 1
    assert json.loads((out / "_run.json").read_text())["top_k"] == 2


def test_parts_without_a_manifest_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "part-1.parquet").write_bytes(b"of somebody else")
    with pytest.raises(BadOption, match="holds parts, and no run that could go on"):
        Destination(str(tmp_path)).begin({}, fresh=False)


@with_ray
@pytest.mark.filterwarnings("default")
def test_a_ray_of_this_computer_gives_the_same_rows(breeds: str, photos: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq
    import ray

    one, out = tmp_path / "one.parquet", tmp_path / "many"
    command = ["classify", str(photos), "--source", breeds, "--engine", "torch", "--out"]
    try:
        assert main([*command, str(out), "--on", "ray", "--workers", "1"]) == 1
    finally:
        ray.shutdown()
    assert main([*command, str(one)]) == 1
    assert pq.read_table(out).equals(pq.read_table(one))
