"""The example pictures are complete, sane in size, and described."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pawmatch import load

EXAMPLES = Path(__file__).parent.parent / "examples"
INDEX: list[dict[str, Any]] = json.loads((EXAMPLES / "index.json").read_text(encoding="utf-8"))


def test_index_covers_both_tasks_and_every_picture() -> None:
    assert len(INDEX) >= 9
    assert {entry["task"] for entry in INDEX} == {"breed", "artist"}
    assert sorted(entry["file"] for entry in INDEX) == sorted(p.name for p in EXAMPLES.glob("*.jpg"))
    assert sum((EXAMPLES / entry["file"]).stat().st_size for entry in INDEX) < 2_400_000


@pytest.mark.parametrize("entry", INDEX, ids=lambda entry: entry["file"])
def test_picture_opens_and_is_described(entry: dict[str, Any]) -> None:
    path = EXAMPLES / entry["file"]
    assert 20_000 < path.stat().st_size < 300_000
    with Image.open(path) as picture:
        picture.load()
        assert (picture.format, picture.mode) == ("JPEG", "RGB")
        assert 500 <= max(picture.size) <= 1000
        assert min(picture.size) >= 500
    alt = entry["alt"]
    assert 30 < len(alt) < 200
    assert alt.endswith(".")


@pytest.mark.parametrize("task", ["breed", "artist"])
def test_the_bundled_weights_answer_them_right_and_without_a_flag(task: str) -> None:
    classifier = load(task)
    entries = [entry for entry in INDEX if entry["task"] == task]
    predictions = [classifier.predict(EXAMPLES / entry["file"]) for entry in entries]
    found = {
        entry["file"]: (one.verdict.code, None if one.verdict.code == "outside" else one.top.name)
        for entry, one in zip(entries, predictions, strict=True)
    }
    assert found == {e["file"]: ("answer" if e["answer"] else "outside", e["answer"]) for e in entries}
    assert all(one.review.needed == (one.verdict.code == "outside") for one in predictions)
