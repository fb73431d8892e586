"""The look that all figures share: type, colours, marks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from pawmatch.tasks import VARIANT_NAMES

INK, MUTED, RULE = "#1f2328", "#626a73", "#e3e6ea"
# Okabe and Ito's, which colour-blind eyes tell apart; line and mark differ as well, for grey print.
COLORS = dict(zip(VARIANT_NAMES, ("#0072B2", "#D55E00", "#009E73"), strict=True))
LINES = dict(zip(VARIANT_NAMES, ((0, (5, 2)), (0, (1.5, 1.2)), (0, ())), strict=True))
MARKS = dict(zip(VARIANT_NAMES, ("o", "s", "D"), strict=True))

HEAD = 0.78  # inches above the axes that the headline takes
MARGIN = 0.15

STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib, so that figures look alike everywhere
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 6,
    "ytick.major.pad": 6,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.9,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.dpi": 180,
}


@contextmanager
def style() -> Iterator[None]:
    """Within it, figures are made in the shared style; matplotlib's settings are then as they were."""
    with mpl.rc_context(STYLE):
        yield


def headline(figure: Figure, title: str, subtitle: str, *, gap: float = 0.02) -> None:
    """A title and a line beneath it, flush left above the axes of a figure in constrained layout.

    `gap` is the room between columns of axes, as a share of an axes' width.
    """
    width, height = figure.get_size_inches()
    left = MARGIN / width
    figure.text(left, 1 - 0.16 / height, title, va="top", fontsize=14, fontweight="bold")
    figure.text(left, 1 - 0.46 / height, subtitle, va="top", fontsize=10, color=MUTED)
    sides = (left, 0.08 / height, 1 - 2 * left, 1 - (HEAD + 0.08) / height)
    figure.set_layout_engine("constrained", rect=sides, wspace=gap)


def percent_axis(axes: Axes, *, x: bool = False, y: bool = False) -> None:
    """Write the ticks of shares in [0, 1] as "40 %"."""
    written = FuncFormatter(lambda value, _: f"{100 * value:.0f} %")
    if x:
        axes.xaxis.set_major_formatter(written)
    if y:
        axes.yaxis.set_major_formatter(written)
