"""From trained models to checkpoints: calibrate and measure on the validation images, then write."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pawmatch.calibration import Calibration, ScopeGate
from pawmatch.checkpoint import CheckpointConfig, save_checkpoint
from pawmatch.checkpoint.folder import PLOT_FILE
from pawmatch.confidence import calibrated, scope_margin
from pawmatch.evaluation.intervals import calibration_floor
from pawmatch.evaluation.metrics import (
    expected_calibration_error,
    macro_f1,
    negative_log_likelihood,
    top_k_accuracy,
    wilson_interval,
)
from pawmatch.models import ImageModel
from pawmatch.preprocess import InputSpec
from pawmatch.training.calibration_plot import draw_calibration
from pawmatch.training.card import write_card
from pawmatch.training.crossfit import Judged, confidence_and_hits, fit_calibration, judge_halves
from pawmatch.training.data import LabelledImages
from pawmatch.training.outputs import Outputs, run_models
from pawmatch.training.scope import fit_scope_gates, stand_in_images

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]

# What the review flag promises on data like the validation set: unflagged answers right at this rate.
REVIEW_TARGETS = {"breed": 0.85, "artist": 0.95}
OTHER_REVIEW_TARGET = 0.9
MOST_CONFUSED = 8  # mistakes that the card names
# Images on each side of a gate, for every weight that is fitted; against stand-ins, where weights are
# penalised more, half as many.
IMAGES_PER_WEIGHT = 12


@dataclass(frozen=True)
class Story:
    """What a card tells beside the figures: what the weights are, and the command that makes them again."""

    about: str
    again: str


def finish(
    models: Mapping[str, ImageModel],
    configs: Mapping[str, CheckpointConfig],
    train_data: LabelledImages,
    val_data: LabelledImages,
    outside_data: LabelledImages | None,
    folders: Mapping[str, Path],
    story: Story,
    device: str,
) -> None:
    """Calibrate and measure the variants of one task, then write each one's checkpoint folder and card.

    `configs` say all of a checkpoint but its calibration and metrics. The scope gates learn from the images
    in `outside_data`; without them there are none.
    """
    specs = {name: config.input for name, config in configs.items()}
    outputs = run_models(models, val_data, specs, device)
    labels = np.asarray(val_data.targets)
    gates = _gates(models, specs, device, train_data, outside_data, outputs)
    task = next(iter(configs.values())).task
    target = REVIEW_TARGETS.get(task, OTHER_REVIEW_TARGET)
    choices = np.stack([entry.logits.argmax(axis=1) for entry in outputs.values()])
    disagree = (choices != choices[0]).any(axis=0)
    for name, model in models.items():
        own = outputs[name]
        out_of_scope = _out_of_scope(gates[name], own.pooled)
        calibration, judged, metrics = calibrate_and_measure(
            own.logits,
            labels,
            target=target,
            flagged=disagree | out_of_scope,
            gates=gates[name],
            names=val_data.labels,
        )
        if gates[name]:
            metrics["own_out_of_scope"] = float(out_of_scope.mean())
        config = replace(configs[name], calibration=calibration, metrics=metrics)
        save_checkpoint(folders[name], model, config)
        draw_calibration(judged, labels, name, folders[name] / PLOT_FILE)
        write_card(folders[name], config, story.about, story.again)


def calibrate_and_measure(
    logits: Floats,
    labels: NDArray[np.int64],
    *,
    target: float,
    flagged: Flags,
    gates: tuple[ScopeGate, ...],
    names: Sequence[str],
) -> tuple[Calibration, Judged, dict[str, Any]]:
    """Fit the calibration on all images, and measure what it promises by fits on halves.

    `flagged` (N,) are the images that a person checks for another reason than low confidence.
    """
    calibration = fit_calibration(logits, labels, flagged, target=target, gates=gates)
    judged = judge_halves(logits, labels, flagged, target=target)
    confidence, correct = confidence_and_hits(judged.probabilities, labels)
    raw_confidence, _ = confidence_and_hits(calibrated(logits, 1.0), labels)
    n, right = len(labels), int(correct.sum())
    metrics: dict[str, Any] = {
        "validation_images": n,
        "top1": right / n,
        "top1_interval_95": list(wilson_interval(right, n)),
        "top5": top_k_accuracy(logits, labels, 5),
        "macro_f1": macro_f1(logits.argmax(axis=1), labels, logits.shape[1]),
        "nll": negative_log_likelihood(judged.probabilities, labels),
        "ece_before": expected_calibration_error(raw_confidence, correct),
        "ece": expected_calibration_error(confidence, correct),
        "ece_of_perfect": calibration_floor(confidence),
        "coverage_of_90": float(judged.sets[np.arange(n), labels].mean()),
        "mean_size_of_90": float(judged.sets.sum(axis=1).mean()),
        "below_threshold": float(judged.below_threshold.mean()),
        "flagged": float(judged.flagged.mean()),
        "unflagged_accuracy": _mean(correct[~judged.flagged]),
        "most_confused": _most_confused(judged.probabilities.argmax(axis=1), labels, names),
    }
    return calibration, judged, metrics


def _most_confused(
    predicted: NDArray[np.int64], labels: NDArray[np.int64], names: Sequence[str]
) -> list[list[str | int]]:
    """The MOST_CONFUSED most frequent mistakes: true label, answer, how often, of how many images."""
    wrong = predicted != labels
    pairs = Counter(zip(labels[wrong].tolist(), predicted[wrong].tolist(), strict=True))
    support = Counter(labels.tolist())
    return [
        [names[truth], names[answer], count, support[truth]]
        for (truth, answer), count in pairs.most_common(MOST_CONFUSED)
    ]


def _mean(values: Flags) -> float | None:
    return float(values.mean()) if len(values) else None


def _out_of_scope(gates: tuple[ScopeGate, ...], pooled: Floats) -> Flags:
    return np.array([scope_margin(gates, row) < 0 for row in pooled])


def _gates(
    models: Mapping[str, ImageModel],
    specs: Mapping[str, InputSpec],
    device: str,
    train_data: LabelledImages,
    outside_data: LabelledImages | None,
    held_out: Mapping[str, Outputs],
) -> dict[str, tuple[ScopeGate, ...]]:
    """Each variant's gates, none without images from outside the task."""
    if outside_data is None:
        return dict.fromkeys(models, ())
    most = IMAGES_PER_WEIGHT * max(outputs.pooled.shape[1] for outputs in held_out.values())
    inside, outside = (
        run_models(models, _sample(data, most), specs, device) for data in (train_data, outside_data)
    )
    stand_ins = {
        kind: run_models(models, data, specs, device)
        for kind, data in stand_in_images(_sample(train_data, most // 2)).items()
    }
    return {
        name: fit_scope_gates(
            inside[name].pooled,
            outside[name].pooled,
            {kind: outputs[name].pooled for kind, outputs in stand_ins.items()},
            held_out[name].pooled,
        )
        for name in models
    }


def _sample(data: LabelledImages, most: int) -> LabelledImages:
    """At most that many images, evenly spaced through the classes."""
    step = max(1, -(-len(data.images) // most))
    return LabelledImages(data.labels, data.images[::step], data.targets[::step], data.skipped)


def git_commit() -> str:
    """The commit that this program was run from, or "unknown" outside a checkout."""
    try:
        return subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
