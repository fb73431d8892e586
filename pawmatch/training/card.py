"""The model card that lies beside a checkpoint: what it is, how good, on what, under which terms."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import ModelCard, ModelCardData
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pawmatch.calibration.fit import confidence_and_hits
from pawmatch.calibration.measure import Halves
from pawmatch.checkpoint import CheckpointConfig
from pawmatch.checkpoint.load import CARD_FILE
from pawmatch.evaluation.figures import headline, reliability_panel, style
from pawmatch.evaluation.report import reliability
from pawmatch.labels import VARIANT_NAMES, display_name
from pawmatch.metrics import calibration_bins, expected_calibration_error
from pawmatch.phrasing import no_proof


def plot_file(variant: str) -> str:
    """The name of a variant's picture on the card."""
    return f"calibration_{variant}.png"


def write_card(folder: Path, configs: Sequence[CheckpointConfig], about: str, again: str) -> Path:
    """Write `README.md` into a checkpoint folder."""
    path = folder / CARD_FILE
    path.write_text(card_text(configs, about, again), encoding="utf-8")
    return path


def card_text(configs: Sequence[CheckpointConfig], about: str, again: str) -> str:
    """The card of a task's variants as Markdown with the Hub's metadata block.

    `about` says what the weights are and `again` which command makes them, as Markdown.
    """
    first, variants = configs[0], [config.variant for config in configs]
    proof = no_proof(first.task.subject)
    non_commercial = first.license.startswith("non-commercial")
    data = ModelCardData(
        license="other",
        license_name="non-commercial-research" if non_commercial else "see-terms",
        library_name="pawmatch",
        pipeline_tag="image-classification",
        tags=["pawmatch", first.task.name, *variants, "image-classification", "grad-cam"],
    )
    lines = [
        f"# {html.escape(first.task.title, quote=False)}: "
        + ", ".join(VARIANT_NAMES[variant] for variant in variants),
        "",
        f"Names one of {len(first.labels)} classes for an image. {about}".rstrip(),
        "",
        *_answer_rows(first),
        "## Measured",
        "",
        *_metric_rows(configs),
        "",
        "Temperature, map of confidence, thresholds, groups and candidate sets are fitted on all validation "
        "images. The figures for them come from fits on random halves: each image is judged by fits that it "
        "took no part in. The validation images also served to pick the recipe, so expect slightly less on "
        "new photos.",
        "",
        *(
            f"![{VARIANT_NAMES[variant]}: share of right answers against confidence, with 95 % intervals]"
            f"({plot_file(variant)})"
            for variant in variants
        ),
        "",
        "## How it was made",
        "",
        f"- Architecture: family `{first.family}`, "
        + ", ".join(f"{key} `{value}`" for key, value in first.architecture.items()),
        f"- Input: {first.input.size} px, `{first.input.resize}`, views: {', '.join(first.input.views)}",
        *(
            f"- {key.replace('_', ' ').capitalize()}: {value}"
            for key, value in first.training.items()
            if value is not None
        ),
        f"- Again: {again}",
        "",
        "## Known failures",
        "",
        *_failure_rows(configs),
        "",
        "## Limits",
        "",
        "- It only knows its own classes and picks the nearest one for anything else.",
        f"- It says what a picture looks like{f'. It is {proof}' if proof else ', which proves nothing'}.",
        *(
            f"- Review threshold of {VARIANT_NAMES[config.variant]}: "
            f"{config.calibration.review_threshold:.2f}, {config.calibration.review_rule}."
            for config in configs
        ),
        "",
        "## Terms",
        "",
        f"{first.license}.".replace("..", "."),
        "",
    ]
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n".join(lines)))


def plain(label: str) -> str:
    """A class's name as Markdown that shows just this name; the labels may be a stranger's folder names."""
    escaped = html.escape(display_name(label), quote=False)
    return re.sub(r"([\\`*\[\]!|])", r"\\\1", escaped)


# Key in the metrics, name in the card, format.
ROWS = (
    ("top1", "Top-1 accuracy", "{:.1%}"),
    ("top5", "Top-5 accuracy", "{:.1%}"),
    ("macro_f1", "Macro-F1", "{:.1%}"),
    ("nll", "Negative log-likelihood", "{:.3f}"),
    ("ece_before", "Expected calibration error, raw", "{:.3f}"),
    ("ece", "Expected calibration error, calibrated", "{:.3f}"),
    ("ece_of_perfect", "The same, by chance alone, of a perfectly calibrated model", "{:.3f}"),
    ("coverage_of_90", "Truth in the 90 % candidate set", "{:.1%}"),
    ("coverage_of_90_first_look", "The same, of images that needed one look", "{:.1%}"),
    ("coverage_of_90_second_look", "The same, of images that needed a second one", "{:.1%}"),
    ("mean_size_of_90", "Mean size of that set", "{:.1f}"),
    ("below_threshold", "Share below the review threshold", "{:.1%}"),
    ("flagged", "Share flagged for review, for any reason", "{:.1%}"),
    ("unflagged_accuracy", "Accuracy of the answers not flagged", "{:.1%}"),
    ("group_share", "Share answered with a group of look-alikes", "{:.1%}"),
    ("group_accuracy", "Truth in that group", "{:.1%}"),
    ("own_turned_away", "Share wrongly turned away as unknown or outside", "{:.1%}"),
    ("own_out_of_scope", "Share wrongly flagged as out of scope", "{:.1%}"),
    ("answered_unknown", "Images of unknown classes that get an answer not flagged", "{:.1%}"),
    ("unknown_auroc", "AUROC of the unknown score", "{:.3f}"),
    ("answered_unknown_class", "   of classes that the fit has seen none of", "{:.1%}"),
    ("unknown_class_auroc", "   AUROC of the unknown score for these", "{:.3f}"),
    ("outside_caught", "Images from outside that are turned away", "{:.1%}"),
)


def _answer_rows(config: CheckpointConfig) -> list[str]:
    if config.answers is None:
        return []
    name = VARIANT_NAMES[config.answers.variant]
    return [f"{name} gives the answer: {config.answers.why}.", ""]


def _metric_rows(configs: Sequence[CheckpointConfig]) -> list[str]:
    names = " | ".join(VARIANT_NAMES[config.variant] for config in configs)
    rows = [f"| measure | {names} |", "|---" * (len(configs) + 1) + "|"]
    figures = [_figures(config.metrics) for config in configs]
    for name in dict.fromkeys(name for column in figures for name in column):
        rows.append(f"| {name} | {' | '.join(column.get(name, '') for column in figures)} |")
    return rows


def _figures(metrics: Mapping[str, Any]) -> dict[str, str]:
    """One variant's figures by the names that the card has for them."""
    figures = {
        name: pattern.format(metrics[key])
        for key, name, pattern in ROWS
        if isinstance(metrics.get(key), int | float)
    }
    low, high = metrics.get("top1_interval_95", (None, None))
    if isinstance(low, float) and isinstance(high, float):
        figures["Top-1, 95 % interval"] = f"{low:.1%} to {high:.1%}"
    if images := metrics.get("validation_images"):
        figures["Validation images"] = str(images)
    return figures


def _failure_rows(configs: Sequence[CheckpointConfig]) -> list[str]:
    lines: list[str] = []
    for config in configs:
        rows = config.metrics.get("most_confused") or []
        lines += [
            f"The most frequent mistakes of {VARIANT_NAMES[config.variant]} on the validation images:",
            "",
            *(
                f"- {plain(truth)} taken for {plain(answer)}: {count} of {support}"
                for truth, answer, count, support in rows
            ),
            *([] if rows else ["- None were counted."]),
            "",
        ]
    return lines[:-1]


DPI = 110  # about 30 kB: a checkpoint is pushed with it


def draw_calibration(halves: Halves, labels: NDArray[np.int64], variant: str, path: Path) -> None:
    """Draw what fits on halves say of a variant's images, of classes `labels` (N,), as a PNG at `path`."""
    confidence, correct = confidence_and_hits(halves.probabilities, labels)
    error = expected_calibration_error(confidence, correct)
    with style():
        figure = Figure(figsize=(5.4, 5.0))
        axes = figure.subplots()
        reliability_panel(axes, variant, reliability(calibration_bins(confidence, correct)))
        axes.set(xlabel="confidence", ylabel="answers that are right")
        subtitle = f"{VARIANT_NAMES[variant]}, {len(labels)} images, calibration error {error:.3f}"
        headline(figure, "Is the confidence true?", subtitle)
        figure.savefig(path, dpi=DPI, metadata={"Software": None})
