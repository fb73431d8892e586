"""The look that all figures share: type, colours, marks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pawmatch.evaluation.compare import BINS, EDGES, Comparison, Spread, VariantSummary
from pawmatch.evaluation.report import Evaluation, Reliability, RiskPoint, VariantReport
from pawmatch.labels import display_name
from pawmatch.metrics import wilson_interval
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


PAIRS = 15  # confusions shown
FEWEST = 10  # answers; the share of wrong ones among fewer jumps about
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
        _reliability_panel(rows[0, column], report)
        _histogram(rows[1, column], report)
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


def _reliability_panel(axes: Axes, report: VariantReport) -> None:
    axes.plot([0, 1], [0, 1], color=MUTED, **DIAGONAL)
    axes.plot(*_means(report.reliability_before), linestyle="none", clip_on=False, **HOLLOW)
    after = [entry for entry in report.reliability if entry.count]
    confidence, accuracy = _means(after)
    color, most = COLORS[report.variant], max(entry.count for entry in after)
    axes.errorbar(confidence, accuracy, yerr=_whiskers(after), fmt="none", ecolor=color, elinewidth=1.1)
    areas = [16 + 80 * entry.count / most for entry in after]  # square points, as the images are many
    axes.scatter(confidence, accuracy, areas, color=color, edgecolor="white", zorder=3, clip_on=False)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    errors = f"calibration error {report.ece_before.value:.3f} \u2192 {report.ece.value:.3f}"
    axes.text(0, 1.12, VARIANT_NAMES[report.variant], fontweight="bold", fontsize=10.5)
    axes.text(0, 1.05, errors, color=MUTED)
    percent_axis(axes, x=True, y=True)


def _means(bins: Sequence[Reliability]) -> tuple[list[float], list[float]]:
    """Confidence and accuracy of the bins that hold an image."""
    filled = [entry for entry in bins if entry.count]
    return [entry.confidence or 0.0 for entry in filled], [entry.accuracy or 0.0 for entry in filled]


def _histogram(axes: Axes, report: VariantReport) -> None:
    bins = len(report.reliability)
    middles = [(index + 0.5) / bins for index in range(bins)]
    counts = [entry.count for entry in report.reliability]
    axes.bar(middles, counts, width=0.86 / bins, color=COLORS[report.variant])
    axes.set(xlabel="confidence")
    axes.grid(axis="x", visible=False)
    percent_axis(axes, x=True)


def _whiskers(bins: list[Reliability]) -> list[list[float]]:
    """How far the 95 % intervals reach below and above each bin's accuracy."""
    below, above = [], []
    for entry in bins:
        accuracy = entry.accuracy or 0.0
        low, high = wilson_interval(round(accuracy * entry.count), entry.count)
        below.append(max(0.0, accuracy - low))
        above.append(max(0.0, high - accuracy))
    return [below, above]


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
    """The points of at least FEWEST answers, or all of them where there are no more images."""
    firm = [point for point in report.risk_coverage if point.coverage * images >= FEWEST]
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
    share_axis(axes)


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
    share_axis(axes)


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


def share_axis(axes: Axes) -> None:
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
