"""The figures of an evaluation: reliability, confusions, risk against coverage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from pawmatch.evaluation.drawing import (
    COLORS,
    INK,
    LINES,
    MARKS,
    MUTED,
    headline,
    percent_axis,
    style,
)
from pawmatch.evaluation.report import Evaluation, Reliability, RiskPoint, VariantReport
from pawmatch.labels import display_name
from pawmatch.metrics import wilson_interval
from pawmatch.tasks import VARIANT_NAMES

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
