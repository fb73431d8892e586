"""The page of cases, made from any folder, and its drawings."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import cases, drawings
from benchmarks.drawings import border_collie, pencil


@pytest.fixture(autouse=True)
def no_hairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are 40,000 and take a second."""
    monkeypatch.setattr(drawings, "hairs", lambda *told: None)


def test_one_command_makes_the_page_and_its_figures(
    breeds: str, photo: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("Boxer", "Beagle"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for turn in range(3):
            photo.rotate(40 * turn).save(tmp_path / "photos" / name / f"{turn}.png")
    out, photos = tmp_path / "docs", str(tmp_path / "photos")
    options = ["--photos", photos, "--drawings", photos, "--label", "boxer"]
    monkeypatch.setattr(sys, "argv", ["cases", *options, "--source", breeds, "--out", str(out)])
    cases.main()
    page = (out / "cases.md").read_text(encoding="utf-8")
    assert page.startswith("# Cases: Boxer\n")
    assert "The 3 photos are ones" in page
    assert "| drawings, label unknown (6) |" in page
    named = set(re.findall(r'src="cases/([^"]+)"', page))
    assert named == {path.name for path in (out / "cases").iterdir()}
    assert {"samples.png", "spread.png", "frontal.jpg", "drawing.jpg", "parts.jpg"} <= named


def test_a_pencil_leaves_even_areas_white_and_draws_edges() -> None:
    drawn = np.asarray(pencil(border_collie(frontal=True)))
    assert drawn[:, 5].min() > 245  # the meadow
    assert drawn.min() < 60
