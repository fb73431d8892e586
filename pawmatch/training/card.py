"""The model card that lies beside a checkpoint: what it is, how good, on what, under which terms."""

from __future__ import annotations

import html
import re
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from pawmatch.checkpoint import CheckpointConfig
from pawmatch.checkpoint.folder import CARD_FILE, PLOT_FILE
from pawmatch.labels import display_name
from pawmatch.tasks import VARIANT_NAMES, find_task


def write_card(folder: Path, config: CheckpointConfig, about: str, again: str) -> Path:
    """Write `README.md` into a checkpoint folder."""
    path = folder / CARD_FILE
    path.write_text(card_text(config, about, again), encoding="utf-8")
    return path


def card_text(config: CheckpointConfig, about: str, again: str) -> str:
    """The card as Markdown with the Hub's metadata block.

    `about` says what the weights are and `again` which command makes them, as Markdown.
    """
    data = ModelCardData(
        license="other",
        license_name="non-commercial-research",
        library_name="pawmatch",
        pipeline_tag="image-classification",
        tags=["pawmatch", config.task, config.variant, "image-classification", "grad-cam"],
    )
    title = find_task(config.task).title
    lines = [
        f"# {title}: {VARIANT_NAMES[config.variant]}",
        "",
        f"Names one of {len(config.labels)} classes for an image. {about}".rstrip(),
        "",
        "## Measured",
        "",
        *_metric_rows(config),
        "",
        "Temperature, map of confidence, review threshold and candidate sets are fitted on all validation "
        "images. The figures for them come from fits on random halves: each image is judged by fits that it "
        "took no part in. The validation images also served to pick the recipe, so expect slightly less on "
        "new photos.",
        "",
        f"![Share of right answers against confidence, with 95 % intervals]({PLOT_FILE})",
        "",
        "## How it was made",
        "",
        f"- Architecture: family `{config.family}`, variant `{config.variant}`, "
        + ", ".join(f"{key} `{value}`" for key, value in config.architecture.items()),
        f"- Input: {config.input.size} px, `{config.input.resize}`, views: {', '.join(config.input.views)}",
        *(
            f"- {key.replace('_', ' ').capitalize()}: {value}"
            for key, value in config.training.items()
            if value is not None
        ),
        f"- Again: {again}",
        "",
        "## Known failures",
        "",
        *_failure_rows(config),
        "",
        "## Limits",
        "",
        "- It only knows its own classes and picks the nearest one for anything else.",
        "- It says what a picture looks like. It is no pedigree test and no attribution of a painting.",
        f"- Review threshold {config.calibration.review_threshold:.2f}: {config.calibration.review_rule}.",
        "",
        "## Terms",
        "",
        f"{config.license}.".replace("..", "."),
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
    ("mean_size_of_90", "Mean size of that set", "{:.1f}"),
    ("below_threshold", "Share below the review threshold", "{:.1%}"),
    ("flagged", "Share flagged for review, for any reason", "{:.1%}"),
    ("unflagged_accuracy", "Accuracy of the answers not flagged", "{:.1%}"),
    ("own_out_of_scope", "Share wrongly flagged as out of scope", "{:.1%}"),
)


def _metric_rows(config: CheckpointConfig) -> list[str]:
    metrics = config.metrics
    rows = ["| measure | value |", "|---|---|"]
    for key, name, pattern in ROWS:
        value = metrics.get(key)
        if isinstance(value, int | float):
            rows.append(f"| {name} | {pattern.format(value)} |")
    low, high = metrics.get("top1_interval_95", (None, None))
    if isinstance(low, float) and isinstance(high, float):
        rows.append(f"| Top-1, 95 % interval | {low:.1%} to {high:.1%} |")
    if images := metrics.get("validation_images"):
        rows.append(f"| Validation images | {images} |")
    return rows


def _failure_rows(config: CheckpointConfig) -> list[str]:
    rows = config.metrics.get("most_confused") or []
    if not rows:
        return ["None were counted."]
    return [
        "The most frequent mistakes on the validation images:",
        "",
        *(
            f"- {plain(truth)} taken for {plain(answer)}: {count} of {support}"
            for truth, answer, count, support in rows
        ),
    ]
