"""The mutation run itself: the same seed gives the same files, and crashes, hangs and escapes are seen."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.mutate import Report, run
from tests.fuzz.mutations import MUTATIONS, mutate
from tests.fuzz.seeds import seeds
from tests.fuzz.watched import Outcome, WatchedLoader
from tests.support.pictures import sentence_faults

# Answers as the real worker does, and misbehaves for files of these names.
PRETENDER = """
import json, os, sys, time
for line in sys.stdin:
    name = os.path.basename(json.loads(line))
    if name == "crash":
        os.abort()
    if name == "hang":
        time.sleep(60)
    error = "!KeyError" if name == "escape" else None
    print(json.dumps({"error": error, "sentence": None, "seconds": 0, "cpu": 0, "memory": 0}), flush=True)
"""
BEHAVED = Outcome(None, None, 0, 0, 0)


def test_the_same_seed_makes_the_same_files() -> None:
    data = [seeds()["plain.png"], seeds()["plain.gif"]]
    made = [[mutate(data[0], rng, data) for _ in range(200)] for rng in (Random(3), Random(3))]
    assert made[0] == made[1]
    assert len({content for _, content in made[0]}) > 150
    assert {name for done, _ in made[0] for name in done.split("+")} == set(MUTATIONS)


@pytest.mark.timeout(60)
def test_crashes_and_hangs_are_told_apart_and_outlived(tmp_path: Path) -> None:
    with WatchedLoader(limit=3, command=(sys.executable, "-c", PRETENDER)) as loader:
        assert loader.open(tmp_path / "crash").error == "crash"
        assert loader.open(tmp_path / "fine") == BEHAVED
        assert loader.open(tmp_path / "hang").error == "hang"
        assert loader.open(tmp_path / "fine") == BEHAVED
        assert loader.open(tmp_path / "escape").error == "!KeyError"


def test_whatever_is_no_sentence_with_a_remedy_is_a_fault() -> None:
    report = Report()
    assert report.add("a", BEHAVED)
    assert report.add("b", Outcome("BrokenImage", "This is damaged; copy it again.", 1, 2, 3))
    for error, sentence in (
        ("crash", None),
        ("hang", None),
        ("!KeyError", "'x'"),
        ("BrokenImage", "broken"),
        ("BrokenImage", "This is damaged; look at /tmp/x."),
        ("BrokenImage", "This is damaged."),
    ):
        assert not report.add("c", Outcome(error, sentence, 0, 0, 0))
    values = report.to_dict()
    assert (values["files"], values["opened"], values["crashes"], values["hangs"]) == (8, 1, 1, 1)
    assert len(values["faults"]) == 6
    assert (values["slowest_seconds"], values["most_cpu_seconds"]) == (1, 2)
    assert sentence_faults("There is no such file; check its name and folder.") == []


@pytest.mark.timeout(120)
def test_a_short_run_finds_nothing(tmp_path: Path) -> None:
    report = run(seeds(), 60, seed=7, limit=30, keep=tmp_path)
    assert report.faults == []
    assert not list(tmp_path.iterdir())
    assert report.to_dict()["files"] == 60 + len(seeds())
