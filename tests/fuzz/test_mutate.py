"""The mutation run itself: the same seed gives the same files, and a short run finds nothing."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from pawmatch.images import pool
from tests.fuzz.mutate import mutate, run
from tests.fuzz.seeds import seeds
from tests.support.pictures import sentence_faults


def serve_badly(pipe: object) -> None:
    """As a reader, but another error than the loader's escapes at every file."""

    def escape(*given: object) -> object:
        raise KeyError("x")

    pool.try_prepare = escape  # type: ignore[assignment]
    honest_serve(pipe)  # type: ignore[arg-type]


honest_serve = pool.serve


def test_the_same_seed_makes_the_same_files() -> None:
    data = [seeds()["plain.png"], seeds()["plain.gif"]]
    made = [[mutate(data[0], rng, data) for _ in range(200)] for rng in (Random(3), Random(3))]
    assert made[0] == made[1]
    assert len(set(made[0])) > 150


@pytest.mark.timeout(60)
def test_an_error_that_escapes_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "serve", serve_badly)
    report = run({"plain.png": seeds()["plain.png"]}, 0, seed=1, keep=tmp_path)
    assert [fault["why"] for fault in report["faults"]] == ["crash, hang or escape"]
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "sentence", ["broken", "This is damaged; look at /tmp/x.", "This is damaged.", "KeyError: x; try again."]
)
def test_whatever_is_no_sentence_with_a_remedy_is_a_fault(sentence: str) -> None:
    assert sentence_faults(sentence)
    assert sentence_faults("There is no such file; check its name and folder.") == []


@pytest.mark.timeout(120)
def test_a_short_run_finds_nothing() -> None:
    report = run(seeds(), 60, seed=7)
    assert report["faults"] == []
    assert report["files"] == 60 + len(seeds())
