"""Figures: of an evaluation reliability, confusions and risk against coverage; of a comparison one page.

All share one look: type, colors that all eyes tell apart, and a mark for each variant, so that nothing is
lost in grey print. Nothing needs a window system, and matplotlib's own settings stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pawmatch.evaluation.compare import BINS, EDGES, Comparison, VariantSummary
from pawmatch.evaluation.report import Evaluation, Reliability, RiskPoint, VariantReport
from pawmatch.labels import VARIANT_NAMES, display_name
from pawmatch.metrics import wilson_interval
from pawmatch.phrasing import tenths

INK, MUTED, RULE = "#1f2328", "#626a73", "#e3e6ea"
# Okabe and Ito's, which color-blind eyes tell apart; line and mark differ as well, for grey print.
COLORS = dict(zip(VARIANT_NAMES, ("#0072B2", "#D55E00", "#009E73"), strict=True))
LINES = dict(zip(VARIANT_NAMES, ((0, (5, 2)), (0, (1.5, 1.2)), (0, ())), strict=True))
MARKS = dict(zip(VARIANT_NAMES, ("o", "s", "D"), strict=True))

MAX_LINE = 130  # characters of a subtitle
TABLE_COLUMNS = ("mean", "median", "std", "min", "max", "at 50 % or more", "right")

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


def style() -> AbstractContextManager[None]:
    """Within it, figures are made in the shared style; matplotlib's settings are then as they were."""
    return mpl.rc_context(STYLE)


def headline(figure: Figure, title: str, subtitle: str, *, gap: float = 0.02) -> None:
    """A title and a line beneath it, flush left above the axes of a figure in constrained layout.

    `gap` is the room between columns of axes, as a share of an axes' width.
    """
    width, height = figure.get_size_inches()
    left = MARGIN / width
    figure.text(left, 1 - 0.16 / height, title, va="top", fontsize=14, fontweight="bold", parse_math=False)
    figure.text(left, 1 - 0.46 / height, subtitle, va="top", fontsize=10, color=MUTED, parse_math=False)
    sides = (left, 0.08 / height, 1 - 2 * left, 1 - (HEAD + 0.08) / height)
    figure.set_layout_engine("constrained", rect=sides, wspace=gap)


def percent_axis(axes: Axes, *, x: bool = False, y: bool = False) -> None:
    """Write the ticks of shares in [0, 1] as "40 %"."""
    written = FuncFormatter(lambda value, _: f"{100 * value:.0f} %")
    if x:
        axes.xaxis.set_major_formatter(written)
    if y:
        axes.yaxis.set_major_formatter(written)


PAIRS = 15  # confusions shown
MIN_ANSWERS = 10  # answers; the share of wrong ones among fewer jumps about
HOLLOW: dict[str, Any] = {
    "marker": "o",
    "markersize": 5,
    "markerfacecolor": "white",
    "markeredgecolor": MUTED,
}
DIAGONAL: dict[str, Any] = {"linewidth": 1.1, "linestyle": (0, (2, 2))}


def save_figures(evaluation: Evaluation, out: Path) -> list[Path]:
    """Draw every figure into folder `out`, one PNG each; returns the files."""
    drawn = {
        "reliability.png": draw_reliability,
        "confusions.png": draw_confusions,
        "risk_coverage.png": draw_risk_coverage,
    }
    for name, draw in drawn.items():
        with style():
            draw(evaluation).savefig(out / name)
    return [out / name for name in drawn]


def about(evaluation: Evaluation) -> str:
    """What was measured, in one line."""
    images = f"{evaluation.images:,}".replace(",", "\u2009")
    line = f"{evaluation.task}: {images} images of {evaluation.classes_with_images} classes"
    return f"{line}, calibrated by halves" if evaluation.calibration == "halves" else line


def draw_reliability(evaluation: Evaluation) -> Figure:
    """Share of right answers against confidence, a column per variant, over a histogram of confidence."""
    reports = evaluation.variants.values()
    figure = Figure(figsize=(max(8.2, 0.7 + 3.4 * len(reports)), 5.6))
    rows = figure.subplots(2, len(reports), sharex=True, sharey="row", squeeze=False, height_ratios=[4, 1])
    for column, report in enumerate(reports):
        top, bottom = rows[:, column]
        reliability_panel(top, report.variant, report.reliability, report.reliability_before)
        errors = f"calibration error {report.ece_before.value:.3f} \u2192 {report.ece.value:.3f}"
        top.text(0, 1.12, VARIANT_NAMES[report.variant], fontweight="bold", fontsize=10.5)
        top.text(0, 1.05, errors, color=MUTED)
        bins = len(report.reliability)
        middles = [(index + 0.5) / bins for index in range(bins)]
        counts = [entry.count for entry in report.reliability]
        bottom.bar(middles, counts, width=0.86 / bins, color=COLORS[report.variant])
        bottom.set(xlabel="confidence")
        bottom.grid(axis="x", visible=False)
        percent_axis(bottom, x=True)
    rows[0, 0].set_ylabel("answers that are right")
    rows[1, 0].set_ylabel("images")
    marks = [
        Line2D([], [], linestyle="none", marker="o", markersize=7, color=INK, label="calibrated"),
        Line2D([], [], linestyle="none", **HOLLOW, label="before calibration"),
        Line2D([], [], color=MUTED, **DIAGONAL, label="what it should be"),
    ]
    headline(figure, "Is the confidence true?", about(evaluation), gap=0.07)
    figure.legend(handles=marks, loc="upper right", borderaxespad=0.9, columnspacing=1.6, ncols=3)
    return figure


def reliability_panel(
    axes: Axes, variant: str, bins: Sequence[Reliability], before: Sequence[Reliability] = ()
) -> None:
    """A variant's share of right answers against confidence, with 95 % intervals, and what it was before."""
    axes.plot([0, 1], [0, 1], color=MUTED, **DIAGONAL)
    axes.plot(*_means(before), linestyle="none", clip_on=False, **HOLLOW)
    confidence, accuracy = _means(bins)
    counts = [entry.count for entry in bins if entry.count]
    ends = [wilson_interval(round(share * n), n) for share, n in zip(accuracy, counts, strict=True)]
    axes.vlines(confidence, *zip(*ends, strict=True), color=COLORS[variant], linewidth=1.1)
    areas = [16 + 80 * count / max(counts) for count in counts]  # square points, as the images are many
    axes.scatter(
        confidence, accuracy, areas, color=COLORS[variant], edgecolor="white", zorder=3, clip_on=False
    )
    axes.set(xlim=(0, 1), ylim=(0, 1))
    percent_axis(axes, x=True, y=True)


def _means(bins: Sequence[Reliability]) -> tuple[list[float], list[float]]:
    """Confidence and accuracy of the bins that hold an image."""
    filled = [entry for entry in bins if entry.count]
    return [entry.confidence or 0.0 for entry in filled], [entry.accuracy or 0.0 for entry in filled]


def draw_confusions(evaluation: Evaluation) -> Figure:
    """The pairs that the leading variant confuses most, with the other variants beside."""
    leading, reports = evaluation.leading, evaluation.variants.values()
    pairs = leading.confusions[:PAIRS]
    figure = Figure(figsize=(9, 1.9 + 0.34 * max(3, len(pairs))))
    axes = figure.subplots()
    rows = np.arange(len(pairs))
    axes.barh(rows, [pair.share for pair in pairs], height=0.7, color=COLORS[leading.variant], alpha=0.16)
    # One above the other within a row: equal shares would hide each other.
    lanes = np.linspace(-0.24, 0.24, len(reports)) if len(reports) > 1 else [0.0]
    for lane, report in zip(lanes, reports, strict=True):
        shares = {(pair.truth, pair.answer): pair.share for pair in report.confusions}
        axes.plot(
            [shares.get((pair.truth, pair.answer), 0.0) for pair in pairs],
            rows + lane,
            linestyle="none",
            marker=MARKS[report.variant],
            markersize=5,
            color=COLORS[report.variant],
            label=VARIANT_NAMES[report.variant],
            clip_on=False,
            zorder=3,
        )
    for row, pair in enumerate(pairs):
        counted = f"{pair.count} of {pair.support}"
        axes.text(1.02, row, counted, transform=axes.get_yaxis_transform(), va="center", color=MUTED)
    names = [f"{display_name(pair.truth)} \u2192 {display_name(pair.answer)}" for pair in pairs]
    axes.set_yticks(rows, names)
    axes.set(xlabel="images of the first that are answered with the second", xlim=(0, None))
    axes.set_ylim(max(1, len(pairs)) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", pad=9)
    percent_axis(axes, x=True)
    if len(reports) > 1:
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1), ncols=3, borderaxespad=0, handletextpad=0.1)
    if not pairs:
        axes.text(0.5, 0.5, "no image was taken for another class", transform=axes.transAxes, ha="center")
    shown = f"the most frequent mistakes of {VARIANT_NAMES[leading.variant]}"
    headline(figure, "What is taken for what", f"{about(evaluation)}; {shown}")
    return figure


def draw_risk_coverage(evaluation: Evaluation) -> Figure:
    """Share of wrong answers against the share of images answered, the surest first."""
    figure = Figure(figsize=(7.4, 5.2))
    axes = figure.subplots()
    reports = evaluation.variants.values()
    for report in reports:
        color, name = COLORS[report.variant], VARIANT_NAMES[report.variant]
        points = _firm(report, evaluation.images)
        axes.plot(
            [point.coverage for point in points],
            [point.risk for point in points],
            color=color,
            linestyle=LINES[report.variant],
            linewidth=1.9,
            label=f"{name}, AURC {report.aurc.value:.3f}",
        )
        if report.kept_accuracy is not None:
            axes.scatter(
                report.kept.value,
                1 - report.kept_accuracy.value,
                80,
                marker=MARKS[report.variant],
                color=color,
                edgecolor="white",
                zorder=4,
                clip_on=False,
            )
    _band(axes, evaluation.leading, evaluation.images)
    if any(report.kept_accuracy is not None for report in reports):
        axes.scatter([], [], 60, color=MUTED, label="where the review threshold lies")
    axes.legend(loc="upper left", handlelength=2.8)
    axes.set(xlabel="images answered, the surest first", ylabel="answers that are wrong")
    highest = max(p.risk for report in reports for p in report.risk_coverage if p.coverage >= 0.1)
    axes.set(xlim=(0, 1), ylim=(0, min(1.0, max(0.05, 1.45 * highest))))
    percent_axis(axes, x=True, y=True)
    headline(figure, "How much can be answered, and how well", about(evaluation))
    return figure


def _firm(report: VariantReport, images: int) -> Sequence[RiskPoint]:
    """The points of at least MIN_ANSWERS answers, or all of them where there are no more images."""
    firm = [point for point in report.risk_coverage if point.coverage * images >= MIN_ANSWERS]
    return firm or report.risk_coverage


def _band(axes: Axes, report: VariantReport, images: int) -> None:
    """The interval of the share of wrong answers; for all variants at once it would be a smear."""
    points = _firm(report, images)
    counts = [round(point.coverage * images) for point in points]
    ends = [wilson_interval(round(p.risk * n), n) for p, n in zip(points, counts, strict=True)]
    axes.fill_between(
        [point.coverage for point in points],
        [low for low, _ in ends],
        [high for _, high in ends],
        color=COLORS[report.variant],
        alpha=0.13,
        linewidth=0,
        label=f"95 % interval of {VARIANT_NAMES[report.variant]}",
    )


# --- the page of a comparison: made for paper, A4 landscape


def save_comparison(comparison: Comparison, path: Path, title: str, subtitle: str) -> None:
    """Write the page as a PNG file."""
    with style():
        draw_comparison(comparison, title, subtitle).savefig(path, format="png")


def draw_comparison(comparison: Comparison, title: str, subtitle: str) -> Figure:
    """Histograms, spread, agreement and a table; right answers too, where the truth is known."""
    summaries, known = comparison.variants, comparison.judged > 0
    figure = Figure(figsize=(11.69, 8.27), dpi=160)
    FigureCanvasAgg(figure)  # no window system, no global state
    grid = figure.add_gridspec(3, 1, height_ratios=[4, 3, 0.5 + 0.45 * len(summaries)])
    top = grid[0].subgridspec(1, len(summaries)).subplots(sharey=True, squeeze=False)[0]
    for axes, summary in zip(top, summaries, strict=True):
        _draw_histogram(axes, summary, comparison.images)
    top[0].set_ylabel("images")
    spread, *truth, agreement = grid[1].subgridspec(1, 3 if known else 2).subplots(squeeze=False)[0]
    _draw_rows(spread, comparison, _draw_spread)
    for axes in truth:
        _draw_rows(axes, comparison, _draw_truth)
    _draw_agreement(agreement, comparison)
    axes = figure.add_subplot(grid[2])
    axes.set_axis_off()
    names = [VARIANT_NAMES.get(one.variant, one.variant) for one in summaries]
    cells = list(map(_cells, summaries))
    table = axes.table(cells, rowLabels=names, colLabels=TABLE_COLUMNS, loc="center", edges="horizontal")
    table.scale(1, 1.6)
    headline(figure, title, legible(subtitle))
    return figure


def _draw_histogram(axes: Axes, summary: VariantSummary, images: int) -> None:
    """How often each confidence in the own first choice occurs."""
    found = summary.confidence
    color = COLORS.get(summary.variant, INK)
    axes.bar(EDGES[:-1], found.histogram, 0.92 / BINS, align="edge", color=color)
    for value, dashes in ((found.mean, "-"), (found.median, (0, (2, 2)))):
        axes.axvline(value, color=INK, linewidth=1.4, linestyle=dashes)
    note = f"mean {tenths(found.mean)}, median {tenths(found.median)} (dashed)"
    note += f"\n{found.at_half_or_more.images} of {images} at 50 % or more"
    _entitle(axes, VARIANT_NAMES.get(summary.variant, summary.variant), note)
    axes.set(xlim=(0, 1), xlabel="confidence in its own first choice")
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    percent_axis(axes, x=True)


def _draw_rows(axes: Axes, comparison: Comparison, draw: Callable[[Axes, VariantSummary, int], str]) -> None:
    """A panel with one row per variant, the first on top; `draw` fills a row and gives the panel's title."""
    titles = [draw(axes, summary, row) for row, summary in enumerate(comparison.variants)]
    _entitle(axes, *titles[0].split(": ", 1))
    names = [VARIANT_NAMES.get(summary.variant, summary.variant) for summary in comparison.variants]
    axes.set_yticks(range(len(names)), [name.replace(" + ", "\n+ ") for name in names])
    axes.set(xlim=(-0.02, 1.02), ylim=(len(names) - 0.5, -0.5))
    axes.grid(axis="y", visible=False)
    percent_axis(axes, x=True)


def _draw_spread(axes: Axes, summary: VariantSummary, row: int) -> str:
    found, color = summary.confidence, COLORS.get(summary.variant, INK)
    reach = (max(0.0, found.mean - found.std), min(1.0, found.mean + found.std))
    axes.plot((found.min, found.max), (row, row), color=color, linewidth=1.2)
    axes.plot(reach, (row, row), color=color, linewidth=8, alpha=0.35, solid_capstyle="butt")
    _mark(axes, summary.variant, found.mean, row, tick=found.median)
    return "Spread of confidence: line: lowest to highest, bar: mean ± std, tick: median"


def _draw_truth(axes: Axes, summary: VariantSummary, row: int) -> str:
    assert summary.accuracy is not None
    assert summary.true_label_confidence is not None
    color = COLORS.get(summary.variant, INK)
    axes.plot(summary.accuracy.interval_95, (row, row), color=color, linewidth=1.6)
    _mark(axes, summary.variant, summary.accuracy.share, row, tick=summary.true_label_confidence.mean)
    return "Right answers: marker: share, 95 % interval, tick: confidence in truth"


def _mark(axes: Axes, variant: str, value: float, row: int, *, tick: float) -> None:
    """A variant's marker at its value, and a tick beside it."""
    looks: dict[str, Any] = {"color": COLORS.get(variant, INK), "marker": MARKS.get(variant, "o")}
    axes.plot(tick, row, marker="|", markersize=17, markeredgewidth=1.8, color=INK)
    axes.plot(value, row, markersize=7, markeredgecolor="white", **looks)


def _draw_agreement(axes: Axes, comparison: Comparison) -> None:
    """In how many images each pair gave the same first choice; shade and number say the same."""
    shares = np.asarray(comparison.agreement) / comparison.images
    axes.imshow(shares, cmap="Greys", vmin=0, vmax=2.3, aspect="auto")  # light enough for dark numbers
    for row, counts in enumerate(comparison.agreement):
        for column, count in enumerate(counts):
            text = f"{count}" if row == column else f"{count}\n{100 * count / comparison.images:.0f} %"
            axes.text(column, row, text, ha="center", va="center")
    _entitle(
        axes, "Same first choice", f"all alike on {comparison.unanimous.images} of {comparison.images} images"
    )
    variants = [summary.variant for summary in comparison.variants]
    names = [VARIANT_NAMES.get(variant, variant).replace(" + ", "\n+ ") for variant in variants]
    axes.set_xticks(range(len(names)), names, fontsize=7)
    axes.set_yticks(range(len(names)), names)
    axes.grid(visible=False)


def _entitle(axes: Axes, title: str, note: str) -> None:
    """A panel's title, and below it the lines that say how to read it."""
    axes.set_title(note, loc="left", fontsize=8.5, color=MUTED)
    lines = note.count("\n") + 1
    place: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
    axes.annotate(title, (0, 1), (0, 8 + 11 * lines), weight="bold", **place)


def _cells(summary: VariantSummary) -> list[str]:
    """One variant's cells of the table, in the order of TABLE_COLUMNS."""
    found, right = summary.confidence, summary.accuracy
    return [
        *(tenths(value) for value in (found.mean, found.median, found.std, found.min, found.max)),
        f"{found.at_half_or_more.images} ({tenths(found.at_half_or_more.share)})",
        "not known" if right is None else f"{right.right} of {right.judged} ({tenths(right.share)})",
    ]


def legible(text: str) -> str:
    """The text on one line, in letters that matplotlib's own font has: it may hold a folder's name."""
    line = " ".join(text.encode("latin-1", "replace").decode("latin-1").split())
    return line if len(line) <= MAX_LINE else f"{line[: MAX_LINE - 3]}..."
