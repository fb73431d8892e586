"""Timing in alternation: order, medians, ratios and what the JSON says."""

import json
from pathlib import Path

import pytest

from benchmarks.side_by_side import Result, compare, machine


def test_peers_take_turns_and_none_always_comes_first() -> None:
    order: list[str] = []
    peers = {name: lambda name=name: order.append(name) for name in ("a", "b", "c")}
    result = compare(peers, rounds=3)
    assert order == [*"cab", *"abc", *"bca", *"cab"]
    assert {name: len(values) for name, values in result.seconds.items()} == {"a": 3, "b": 3, "c": 3}


def test_a_ratio_is_of_medians() -> None:
    result = Result({"ours": (1.0, 2.0, 90.0), "theirs": (4.0, 8.0, 8.0)})
    assert result.medians == {"ours": 2.0, "theirs": 8.0}
    assert result.ratio("ours", "theirs") == pytest.approx(0.25)
    lines = result.table("theirs").splitlines()
    assert len(lines) == 3
    assert lines[1].startswith("ours")
    assert lines[1].endswith("0.25")


def test_the_file_has_times_machine_and_facts(tmp_path: Path) -> None:
    path = tmp_path / "new" / "result.json"
    compare({"nothing": lambda: None}, rounds=2).write_json(path, images=3)
    values = json.loads(path.read_text(encoding="utf-8"))
    assert len(values["seconds"]["nothing"]) == 2
    assert values["images"] == 3
    assert values["machine"]["versions"].keys() >= {"torch", "numpy"}


def test_the_machine_is_described() -> None:
    described = machine()
    assert described["cores"] >= 1
    assert isinstance(described["cpu_flags"], list)
