"""The record of a run: what it says of the engines."""

from __future__ import annotations

from pathlib import Path

import pytest

from pawmatch.commands.output import engines_of, record_path, write_record


def test_engines_are_read_again(tmp_path: Path) -> None:
    out = tmp_path / "results.csv"
    write_record(out, {"engines": {"cnn": "torch float32"}})
    assert record_path(out).name == "results.csv.run.json"
    assert engines_of(out) == {"cnn": "torch float32"}
    assert [path.name for path in tmp_path.iterdir()] == ["results.csv.run.json"]


@pytest.mark.parametrize("text", [None, "{", "[]", "{}", '{"engines": ["torch"]}', "\udcff"])
def test_a_record_that_does_not_say_is_none(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        record_path(tmp_path / "out.csv").write_text(text, errors="surrogateescape")
    assert engines_of(tmp_path / "out.csv") is None
