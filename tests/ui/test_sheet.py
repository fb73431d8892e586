"""Heatmap sheets: every picture and caption has its place, whatever the picture's shape."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pawmatch.heatmaps import GAP, LONG_SIDE, SQUARE_BOX, draw_sheet, draw_square_sheet, fitting, font, found
from pawmatch.results import Explanation
from tests.ui.made import make_explanation, make_prediction


def coloured(size: tuple[int, int]) -> Explanation:
    """An explanation whose overlays are red and green."""
    explanation = make_explanation(make_prediction(0.7))
    colours = dict(zip(explanation.overlays, ("red", "green"), strict=True))
    overlays = {variant: Image.new("RGB", size, colour) for variant, colour in colours.items()}
    return replace(explanation, overlays=overlays)


@pytest.mark.parametrize("size", [(80, 60), (60, 80), (1, 900), (900, 1)])
def test_a_square_sheet_holds_the_photo_and_each_overlay(size: tuple[int, int]) -> None:
    sheet = np.asarray(draw_square_sheet(Image.new("RGB", size, "blue"), coloured(size), is_truth=False))
    for colour in ((0, 0, 255), (255, 0, 0), (0, 128, 0)):
        rows, columns = np.nonzero((np.abs(sheet.astype(int) - colour) < 40).all(axis=2))
        seen = np.ptp(columns) + 1, np.ptp(rows) + 1
        assert any(side == limit for side, limit in zip(seen, SQUARE_BOX, strict=True)), colour
        assert all(side <= limit for side, limit in zip(seen, SQUARE_BOX, strict=True)), colour


def test_captions_are_written_below_the_pictures() -> None:
    size = (80, 60)
    photo = Image.new("RGB", size, "blue")
    sheet = np.asarray(draw_square_sheet(photo, coloured(size), is_truth=True).convert("L"))
    below = sheet[GAP + SQUARE_BOX[1] : GAP + SQUARE_BOX[1] + 90]
    assert below.min() < 60
    other = np.asarray(draw_square_sheet(photo, coloured(size), is_truth=False).convert("L"))
    assert (other != sheet).any()  # it says whose label the heatmaps are for


def test_a_row_has_one_picture_per_variant() -> None:
    sheet = draw_sheet(coloured((80, 60)))
    assert sheet.width == 3 * GAP + 2 * LONG_SIDE


def test_text_is_cut_to_its_width_and_keeps_accents() -> None:
    letters = font(20, is_bold=False)
    assert fitting("Paul Cézanne", letters, 500) == "Paul Cézanne"
    cut = fitting("Xoloitzcuintli (Mexican Hairless)", letters, 120)
    assert cut.endswith("…")
    assert letters.getlength(cut) <= 120
    assert fitting("wide", letters, 0) == "…"


def test_little_evidence_is_said() -> None:
    heatmap = replace(make_explanation(make_prediction(0.7)).heatmaps["cnn"], raw_max=2.0, confidence=0.02)
    assert found(replace(heatmap, strength=0.9), "Pug", "as it is") == "as it is"
    assert found(replace(heatmap, strength=0.1), "Pug", "as it is") == "little evidence for Pug: 2 %"
    assert found(replace(heatmap, raw_max=0.0), "Pug", "as it is") == "no evidence for Pug anywhere"
