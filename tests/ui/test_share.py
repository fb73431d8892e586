"""The picture of an answer to share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pawmatch.results import Fact
from pawmatch.ui import share
from tests.ui.made import make_explanation, make_prediction


def test_it_says_what_was_said_beside_the_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    draw = share._draw

    def noted(told: Any, photo: Any, tiles: Any, lines: list[str]) -> Any:
        notes.extend(lines)
        return draw(told, photo, tiles, lines)

    monkeypatch.setattr(share, "_draw", noted)
    found = make_explanation(make_prediction(0.7, 0.2))
    plain = share.draw_answer(found.prediction, found.photo, found.overlays, found.heatmaps)
    assert notes[0].startswith("The colors show")
    notes.clear()
    told = replace(found.prediction, facts=(Fact("coat", "long", "Coat length", "long"),))
    card = share.draw_answer(told, found.photo, found.overlays, found.heatmaps)
    assert notes[0] == "What you said beside the photo · Coat length: long"
    assert card.height > plain.height
