"""The comparison on one page: histograms, spread, agreement and accuracy, in colours that all can tell apart.

The page is made for paper: dark ink on white, and every colour comes with a marker or a name, so that
nothing is lost in grey print.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pawmatch.evaluation.compare import BINS, EDGES, Comparison, Spread, VariantSummary
from pawmatch.evaluation.drawing import COLORS, INK, MARKS, MUTED, RULE
from pawmatch.tasks import VARIANT_NAMES

PALE = "#f4f4f4"
SIZE = (11.69, 8.27)  # inches: A4, landscape
DPI = 160
LONGEST_LINE = 130  # characters of the subtitle
PERCENTS = ((0, 0.25, 0.5, 0.75, 1), ("0", "25", "50", "75", "100 %"))
COLUMNS = ("mean", "median", "std", "min", "max", "at 50 % or more", "right")


def draw_comparison(comparison: Comparison, title: str, subtitle: str) -> Figure:
    """The figure page; the panel of right answers is there where the truth is known."""
    figure = Figure(figsize=SIZE, dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)  # no window system, no global state
    figure.text(0.055, 0.95, title, size=17, weight="bold", color=INK, va="center", parse_math=False)
    figure.text(0.055, 0.915, legible(subtitle), size=9.5, color=MUTED, va="center", parse_math=False)
    count = len(comparison.variants)
    top = figure.add_gridspec(1, count, left=0.055, right=0.965, top=0.84, bottom=0.575, wspace=0.12)
    highest = max(max(summary.confidence.histogram) for summary in comparison.variants)
    for column, summary in enumerate(comparison.variants):
        axes = figure.add_subplot(top[column])
        draw_histogram(axes, summary, comparison.images, highest, is_first=column == 0)
    known = comparison.judged > 0
    draw_spreads(figure.add_axes((0.055, 0.27, 0.28 if known else 0.6, 0.19)), comparison)
    if known:
        draw_truth(figure.add_axes((0.395, 0.27, 0.28, 0.19)), comparison)
    draw_agreement(figure.add_axes((0.755, 0.27, 0.21, 0.19)), comparison)
    draw_table(figure.add_axes((0.055, 0.035, 0.91, 0.14)), comparison)
    return figure


def save_comparison(comparison: Comparison, path: Path, title: str, subtitle: str) -> None:
    """Write the figure page as a PNG file."""
    draw_comparison(comparison, title, subtitle).savefig(path, format="png")


def draw_histogram(axes: Axes, summary: VariantSummary, images: int, highest: int, *, is_first: bool) -> None:
    """How often each confidence in the own first choice occurs; the half from 0.5 on is shaded."""
    color = COLORS.get(summary.variant, INK)
    found = summary.confidence
    axes.axvspan(0.5, 1, color=PALE, zorder=0)
    axes.bar(EDGES[:-1], found.histogram, width=0.92 / BINS, align="edge", color=color, zorder=2)
    for value, dashes in ((found.mean, "-"), (found.median, (0, (2, 2)))):
        # Not up to where the text is.
        axes.axvline(value, 0, 0.82, color=INK, linewidth=1.4, linestyle=dashes, zorder=3)
    note = f"mean {percent(found.mean)}  |  median {percent(found.median)} (dashed)"
    entitle(axes, VARIANT_NAMES.get(summary.variant, summary.variant), note)
    share = f"{found.at_half} of {images}\nat 50 % or more"
    axes.text(
        0.985, 0.96, share, transform=axes.transAxes, size=8.5, color=INK, ha="right", va="top", zorder=4
    )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, highest * 1.32 + 0.2)
    axes.set_xticks(*PERCENTS)
    axes.set_xlabel("confidence in its own first choice", fontsize=9, color=MUTED)
    if is_first:
        axes.set_ylabel("images", fontsize=9, color=MUTED)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(axis="y", color=RULE, linewidth=0.6, zorder=1)
    tidy(axes)
    if not is_first:
        axes.tick_params(labelleft=False)


def draw_spreads(axes: Axes, comparison: Comparison) -> None:
    """Lowest to highest as a line, mean and standard deviation as a bar with a marker, median as a tick."""
    for row, summary in enumerate(comparison.variants):
        draw_spread(axes, summary.variant, summary.confidence, row)
    entitle(axes, "Spread of confidence", "line: lowest to highest  |  bar: mean ± std  |  tick: median")
    name_rows(axes, comparison)
    percent_axis(axes)


def draw_spread(axes: Axes, variant: str, found: Spread, row: int) -> None:
    """One variant's line of the spread panel."""
    color, marker = COLORS.get(variant, INK), MARKS.get(variant, "o")
    axes.plot((found.lowest, found.highest), (row, row), color=color, linewidth=1.2, zorder=2)
    reach = (max(0.0, found.mean - found.std), min(1.0, found.mean + found.std))
    axes.plot(reach, (row, row), color=color, linewidth=8, alpha=0.35, solid_capstyle="butt", zorder=2)
    axes.plot(found.mean, row, marker=marker, markersize=7, color=color, markeredgecolor="white", zorder=4)
    axes.plot(found.median, row, marker="|", markersize=17, markeredgewidth=1.8, color=INK, zorder=3)


def draw_truth(axes: Axes, comparison: Comparison) -> None:
    """Accuracy with its 95 % interval, and the mean confidence in the true label beside it."""
    entitle(axes, "Right answers", "marker: share, 95 % interval  |  tick: mean confidence in truth")
    for row, summary in enumerate(comparison.variants):
        if summary.accuracy is None or summary.truth_confidence is None:
            continue
        color, marker = COLORS.get(summary.variant, INK), MARKS.get(summary.variant, "o")
        axes.plot(summary.accuracy.interval, (row, row), color=color, linewidth=1.6, zorder=2)
        axes.plot(
            summary.accuracy.share,
            row,
            marker=marker,
            markersize=7,
            color=color,
            markeredgecolor="white",
            zorder=4,
        )
        axes.plot(
            summary.truth_confidence.mean, row, marker="|", markersize=15, markeredgewidth=1.8, color=INK
        )
    name_rows(axes, comparison)
    percent_axis(axes)


def draw_agreement(axes: Axes, comparison: Comparison) -> None:
    """In how many images each pair gave the same first choice; shade and number say the same."""
    shares = np.asarray(comparison.agreement) / comparison.images
    axes.imshow(shares, cmap="Greys", vmin=0, vmax=2.3, aspect="auto")  # light enough for dark numbers
    for row, counts in enumerate(comparison.agreement):
        for column, count in enumerate(counts):
            text = f"{count}" if row == column else f"{count}\n{100 * count / comparison.images:.0f} %"
            axes.text(column, row, text, ha="center", va="center", size=9, color=INK, linespacing=1.3)
    entitle(axes, "Same first choice", f"all alike on {comparison.unanimous} of {comparison.images} images")
    names = [short_name(summary.variant) for summary in comparison.variants]
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    tidy(axes)
    axes.tick_params(labelsize=7.3)
    axes.spines["bottom"].set_visible(False)


def draw_table(axes: Axes, comparison: Comparison) -> None:
    """All numbers of the page once more, to read them off."""
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    rows = len(comparison.variants) + 1
    axes.set_ylim(rows, 0)
    places = (0.33, 0.42, 0.5, 0.58, 0.66, 0.82, 1.0)
    axes.axhline(1, color=INK, linewidth=1)
    for place, name in zip(places, COLUMNS, strict=True):
        axes.text(place, 0.5, name, size=9, color=MUTED, ha="right", va="center")
    for row, summary in enumerate(comparison.variants, start=1):
        name = VARIANT_NAMES.get(summary.variant, summary.variant)
        axes.text(0, row + 0.5, name, size=9.5, weight="bold", color=INK, va="center")
        for place, text in zip(places, cells(summary), strict=True):
            axes.text(place, row + 0.5, text, size=9.5, color=INK, ha="right", va="center")
        axes.axhline(row + 1, color=RULE, linewidth=0.8)


def cells(summary: VariantSummary) -> list[str]:
    """One variant's cells of the table, in the order of COLUMNS."""
    found = summary.confidence
    right = summary.accuracy
    return [
        *(percent(value) for value in (found.mean, found.median, found.std, found.lowest, found.highest)),
        f"{found.at_half} ({percent(found.at_half / found.count)})",
        "not known" if right is None else f"{right.right} of {right.judged} ({percent(right.share)})",
    ]


# --- what the panels share


def entitle(axes: Axes, title: str, note: str) -> None:
    """A panel's title, and below it the line that says how to read it."""
    axes.annotate(
        title, (0, 1), (0, 19), "axes fraction", "offset points", size=11.5, weight="bold", color=INK
    )
    axes.annotate(note, (0, 1), (0, 5), "axes fraction", "offset points", size=8.5, color=MUTED)


def percent(value: float) -> str:
    """A share or a statistic, to a tenth of a percent."""
    return f"{100 * value:.1f} %"


def legible(text: str) -> str:
    """The text on one line, in letters that matplotlib's own font has: it may hold a folder's name."""
    line = " ".join(text.encode("latin-1", "replace").decode("latin-1").split())
    return line if len(line) <= LONGEST_LINE else f"{line[: LONGEST_LINE - 3]}..."


def short_name(variant: str) -> str:
    """The display name broken into lines that fit beside a small panel."""
    return VARIANT_NAMES.get(variant, variant).replace(" + ", "\n+ ")


def name_rows(axes: Axes, comparison: Comparison) -> None:
    """One row per variant, the first on top, each with its name above its marks."""
    for row, summary in enumerate(comparison.variants):
        name = VARIANT_NAMES.get(summary.variant, summary.variant)
        axes.text(0, row - 0.27, name, size=8.5, color=INK, va="bottom", zorder=5)
    axes.set_yticks([])
    axes.set_ylim(len(comparison.variants) - 0.6, -0.75)


def percent_axis(axes: Axes) -> None:
    """Confidence or a share from left to right."""
    axes.set_xlim(-0.02, 1.02)
    axes.set_xticks(*PERCENTS)
    axes.grid(axis="x", color=RULE, linewidth=0.6, zorder=0)
    tidy(axes)


def tidy(axes: Axes) -> None:
    """Thin axes, quiet numbers, nothing that is not needed."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    axes.tick_params(labelsize=8.5, colors=MUTED, length=0)
