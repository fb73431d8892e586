"""A folder of labelled pictures, and rough intervals."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from pawmatch.evaluation import intervals


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals from 20 resamples: their ends are rough, and nothing else changes."""
    monkeypatch.setattr(intervals, "RESAMPLES", 20)


@pytest.fixture
def kennel(photo: Image.Image, tmp_path: Path) -> Path:
    """Labelled pictures of three of the tiny model's five breeds, three each."""
    folder = tmp_path / "kennel"
    for turn, name in enumerate(("Beagle", "border collie", "Boxer")):
        (folder / name).mkdir(parents=True)
        for number in range(3):
            photo.rotate(40 * turn + 7 * number).save(folder / name / f"{number}.png")
    return folder
