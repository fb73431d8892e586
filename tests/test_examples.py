"""The example pictures are complete, sane in size, and drawn the same way every time."""

from __future__ import annotations

import json
import subprocess
import sys
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


@pytest.mark.parametrize("name", ["husky", "starry_field"])
def test_drawing_is_deterministic(name: str, tmp_path: Path) -> None:
    drawn = []
    for run in ("first", "second"):
        out = tmp_path / run
        out.mkdir()
        command = [sys.executable, str(EXAMPLES / "draw.py"), name, "--long-side", "160", "--out", str(out)]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        drawn.append((out / f"{name}.jpg").read_bytes())
    assert drawn[0] == drawn[1]
    with Image.open(tmp_path / "first" / f"{name}.jpg") as picture:
        assert max(picture.size) == 160
