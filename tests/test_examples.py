"""The example pictures are complete, sane in size, and described."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

EXAMPLES = Path(__file__).parent.parent / "examples"
INDEX: list[dict[str, str]] = json.loads((EXAMPLES / "index.json").read_text(encoding="utf-8"))


def test_index_covers_both_tasks_and_every_picture() -> None:
    assert len(INDEX) >= 6
    assert {entry["task"] for entry in INDEX} == {"breed", "artist"}
    assert sorted(entry["file"] for entry in INDEX) == sorted(p.name for p in EXAMPLES.glob("*.jpg"))
    assert sum((EXAMPLES / entry["file"]).stat().st_size for entry in INDEX) < 2_400_000


@pytest.mark.parametrize("entry", INDEX, ids=lambda entry: entry["file"])
def test_picture_opens_and_is_described(entry: dict[str, str]) -> None:
    path = EXAMPLES / entry["file"]
    assert 20_000 < path.stat().st_size < 300_000
    with Image.open(path) as picture:
        picture.load()
        assert (picture.format, picture.mode) == ("JPEG", "RGB")
        assert 800 <= max(picture.size) <= 1000
        assert min(picture.size) >= 500
    alt = entry["alt"]
    assert 30 < len(alt) < 200
    assert alt.endswith(".")
