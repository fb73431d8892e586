"""The figure page: its panels, and texts that must not be taken for formulas."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from pawmatch.evaluation.compare import compare
from pawmatch.evaluation.figures import draw_comparison, save_comparison
from tests.evaluation.test_compare import FOUR, image


def texts(figure: Figure) -> str:
    """All texts of the figure, one per line."""
    found = [text.get_text() for text in figure.texts]
    return "\n".join(found + [text.get_text() for axes in figure.axes for text in axes.texts])


def test_the_page_shows_what_was_counted() -> None:
    figure = draw_comparison(compare(FOUR), "Title", "Subtitle")
    assert len(figure.axes) == 7  # three histograms, spread, right answers, agreement, table
    heights = []
    for bar in figure.axes[0].patches[1:]:
        assert isinstance(bar, Rectangle)
        heights.append(round(bar.get_height()))
    assert heights == [0, 0, 0, 1, 0, 1, 0, 1, 0, 1]
    shown = texts(figure)
    assert "3 of 4\nat 50 % or more" in shown
    assert "3\n75 %" in shown  # CNN and CNN + Transformer agree on three of four
    assert "2 of 3 (66.7 %)" in shown
    assert "all alike on 2 of 4 images" in shown


def test_without_truth_there_is_no_panel_about_it() -> None:
    figure = draw_comparison(compare([image("AAB", 0.2, 0.3, 0.4)]), "Title", "Subtitle")
    assert len(figure.axes) == 6
    assert "Right answers" not in texts(figure)
    assert "not known" in texts(figure)


@pytest.mark.parametrize("name", ["$x^$ and $", "犬" * 300, "two\nlines", "\udcff"])
def test_any_folder_name_can_stand_below_the_title(name: str, tmp_path: Path) -> None:
    path = tmp_path / "figure.png"
    save_comparison(compare([image("A", 0.2)]), path, "One image", name)
    with Image.open(path) as page:
        assert page.width > page.height
