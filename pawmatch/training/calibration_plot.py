"""The reliability diagram on a model card: how often answers of each confidence are right."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pawmatch.calibration.crossfit import Halves
from pawmatch.calibration.fit import confidence_and_hits
from pawmatch.evaluation.drawing import COLORS, INK, MUTED, headline, percent_axis, style
from pawmatch.metrics import calibration_bins, expected_calibration_error, wilson_interval
from pawmatch.tasks import VARIANT_NAMES

DPI = 110  # about 30 kB: a checkpoint is pushed with it


def draw_calibration(halves: Halves, labels: NDArray[np.int64], variant: str, path: Path) -> None:
    """Draw what fits on halves say of a variant's images, of classes `labels` (N,), as a PNG at `path`."""
    confidence, correct = confidence_and_hits(halves.probabilities, labels)
    bins = calibration_bins(confidence, correct)
    filled = bins.count > 0
    hits = np.round(bins.accuracy[filled] * bins.count[filled]).astype(int)
    ends = np.array([wilson_interval(h, n) for h, n in zip(hits, bins.count[filled], strict=True)])
    accuracy = bins.accuracy[filled]
    error = expected_calibration_error(confidence, correct)
    with style():
        figure = Figure(figsize=(5.4, 5.0))
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1.1, linestyle=(0, (2, 2)))
        axes.vlines(bins.confidence[filled], ends[:, 0], ends[:, 1], color=INK, linewidth=1.0, alpha=0.5)
        areas = 18 + 90 * bins.count[filled] / bins.count.max()  # square points, as the images are many
        axes.scatter(bins.confidence[filled], accuracy, areas, color=COLORS[variant], zorder=3, clip_on=False)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="answers that are right")
        percent_axis(axes, x=True, y=True)
        subtitle = f"{VARIANT_NAMES[variant]}, {len(labels)} images, calibration error {error:.3f}"
        headline(figure, "Is the confidence true?", subtitle)
        figure.savefig(path, dpi=DPI, metadata={"Software": None})
