"""Figures: they can be drawn from any evaluation, and leave matplotlib as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from pawmatch.evaluation.compare import compare
from pawmatch.evaluation.figures import (
    STYLE,
    draw_comparison,
    draw_confusions,
    draw_reliability,
    draw_risk_coverage,
    save_comparison,
    save_figures,
)
from pawmatch.evaluation.report import Evaluation
from pawmatch.labels import VARIANT_NAMES
from tests.evaluation.test_compare import FOUR, image


def words(figure: Figure) -> str:
    """All texts of a figure, those in tables too."""
    cells = [cell for axes in figure.axes for table in axes.tables for cell in table.get_celld().values()]
    texts = [*figure.findobj(mpl.text.Text), *(cell.get_text() for cell in cells)]
    return "\n".join(text.get_text() for text in texts)


def test_every_figure_is_a_file_of_its_own(
    made_up: Callable[..., Evaluation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(STYLE, "savefig.dpi", 60)
    before = dict(mpl.rcParams)
    files = save_figures(made_up(), tmp_path)
    assert [path.name for path in files] == ["reliability.png", "confusions.png", "risk_coverage.png"]
    for path in files:
        with Image.open(path) as picture:
            assert min(picture.size) > 200
            assert len(np.unique(np.asarray(picture.convert("L")))) > 20
    assert dict(mpl.rcParams) == before


def test_figures_show_what_was_measured(made_up: Callable[..., Evaluation]) -> None:
    evaluation = made_up()
    report = evaluation.variants["cnn"]
    reliability = draw_reliability(evaluation)
    assert all(name in words(reliability) for name in VARIANT_NAMES.values())
    assert f"{report.ece_before.value:.3f} \u2192 {report.ece.value:.3f}" in words(reliability)
    assert "60 images of 5 classes, calibrated by halves" in words(reliability)
    worst = evaluation.leading.confusions[0]
    assert f"{worst.count} of {worst.support}" in words(draw_confusions(evaluation))
    curves = draw_risk_coverage(evaluation)
    assert f"AURC {report.aurc.value:.3f}" in words(curves)
    line = curves.axes[0].lines[0]
    assert np.asarray(line.get_ydata())[-1] == pytest.approx(1 - report.top1.value)


@pytest.mark.parametrize(
    ("skill", "variants", "count"),
    [(40.0, ("cnn",), 60), (-9.0, ("cnn", "cnn_transformer"), 7), (1.0, ("cnn",), 1)],
)
def test_extreme_evaluations_can_be_drawn(
    made_up: Callable[..., Evaluation], skill: float, variants: tuple[str, ...], count: int
) -> None:
    evaluation = made_up(skill, variants, count)
    for draw in (draw_reliability, draw_confusions, draw_risk_coverage):
        figure = draw(evaluation)
        figure.draw_without_rendering()
        assert evaluation.task in words(figure)


def test_the_page_shows_what_was_counted() -> None:
    figure = draw_comparison(compare(FOUR), "Title", "Subtitle")
    assert len(figure.axes) == 7  # three histograms, spread, right answers, agreement, table
    heights = []
    for bar in figure.axes[0].patches:
        assert isinstance(bar, Rectangle)
        heights.append(round(bar.get_height()))
    assert heights == [0, 0, 0, 1, 0, 1, 0, 1, 0, 1]
    shown = words(figure)
    assert "3 of 4 at 50 % or more" in shown
    assert "3\n75 %" in shown  # CNN and CNN + Transformer agree on three of four
    assert "2 of 3 (66.7 %)" in shown
    assert "all alike on 2 of 4 images" in shown


def test_without_truth_there_is_no_panel_about_it() -> None:
    figure = draw_comparison(compare([image("AAB", 0.2, 0.3, 0.4)]), "Title", "Subtitle")
    assert len(figure.axes) == 6
    assert "Right answers" not in words(figure)
    assert "not known" in words(figure)


@pytest.mark.parametrize("name", ["$x^$ and $", "犬" * 300, "two\nlines", "\udcff"])
def test_any_folder_name_can_stand_below_the_title(name: str, tmp_path: Path) -> None:
    path = tmp_path / "figure.png"
    save_comparison(compare([image("A", 0.2)]), path, "One image", name)
    with Image.open(path) as page:
        assert page.width > page.height
