"""From a trained model to a checkpoint: calibrate on half of the validation images, measure on the rest."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pawmatch.calibration import Calibration, ScopeGate
from pawmatch.checkpoint import CheckpointConfig, save_checkpoint
from pawmatch.confidence import calibrated, scope_score
from pawmatch.evaluation.metrics import (
    expected_calibration_error,
    macro_f1,
    negative_log_likelihood,
    top_k_accuracy,
    wilson_interval,
)
from pawmatch.models import ImageModel
from pawmatch.preprocess import InputSpec
from pawmatch.training.calibrate import (
    confidence_and_hits,
    conformal_quantile,
    fit_scope_gate,
    fit_temperature,
    review_threshold,
)
from pawmatch.training.card import write_card
from pawmatch.training.data import LabelledImages, eval_batches
from pawmatch.training.recipe import Recipe

Floats = NDArray[np.float32]

# What the review flag promises on data like the validation set: unflagged answers right at this rate.
REVIEW_TARGETS = {"breed": 0.85, "artist": 0.95}
OTHER_REVIEW_TARGET = 0.9
OUT_OF_SCOPE_FLAGGED = 0.03  # share of the task's own validation images that the gate may turn away
GATE_IMAGES = 1000  # of each side, several for every weight that is fitted


@dataclass(frozen=True)
class Outputs:
    """Logits (N, classes) and average-pooled feature maps (N, C) of a set of images."""

    logits: Floats
    pooled: Floats


@torch.inference_mode()
def run_model(model: ImageModel, batches: Sequence[Tensor], device: str) -> Outputs:
    """Logits and pooled features of prepared batches, in evaluation mode."""
    model.eval()
    logits, pooled = [], []
    for batch in batches:
        feature_map = model.forward_features(batch.to(device))
        logits.append(model.forward_head(feature_map).float().cpu())
        pooled.append(feature_map.float().mean(dim=(2, 3)).cpu())
    return Outputs(torch.cat(logits).numpy(), torch.cat(pooled).numpy())


@dataclass(frozen=True)
class Terms:
    """What the checkpoints of one run have in common."""

    recipe: Recipe
    spec: InputSpec
    training: dict[str, Any]
    backbone_group: str | None
    device: str


def finish(
    model: ImageModel,
    variant: str,
    terms: Terms,
    train_data: LabelledImages,
    val_data: LabelledImages,
    outside_data: LabelledImages | None,
    out: Path,
) -> None:
    """Calibrate and measure one variant, then write its checkpoint folder with its card."""
    recipe, spec, device = terms.recipe, terms.spec, terms.device
    outputs = run_model(model, eval_batches(val_data, spec), device)
    labels = np.asarray(val_data.targets)
    gate = None
    if outside_data is not None:
        gate = _gate(model, spec, train_data, outside_data, outputs.pooled, device)
    target = REVIEW_TARGETS.get(recipe.task, OTHER_REVIEW_TARGET)
    calibration, metrics = calibrate_and_measure(outputs.logits, labels, target=target, gate=gate)
    if gate is not None:
        metrics["own_out_of_scope"] = float(
            np.mean([scope_score(gate, row[:, None, None]) < gate.threshold for row in outputs.pooled])
        )
    config = CheckpointConfig(
        task=recipe.task,
        family=recipe.family,
        variant=variant,
        architecture=dict(recipe.architecture),
        labels=val_data.labels,
        input=spec,
        calibration=calibration,
        metrics=metrics,
        training=terms.training,
        license=recipe.license,
        backbone_group=terms.backbone_group,
    )
    save_checkpoint(out, model, config)
    write_card(out, config, recipe)


def calibrate_and_measure(
    logits: Floats, labels: NDArray[np.int64], *, target: float, gate: ScopeGate | None
) -> tuple[Calibration, dict[str, Any]]:
    """Fit the calibration on every second image and measure everything it promises on the others.

    The files are listed class by class, so every second image is a half with the same classes.
    """
    fit, test = slice(0, None, 2), slice(1, None, 2)
    temperature = fit_temperature(logits[fit], labels[fit])
    confidence, correct = confidence_and_hits(logits[fit], labels[fit], temperature)
    threshold = review_threshold(confidence, correct, target)
    quantile = conformal_quantile(calibrated(logits[fit], temperature), labels[fit])
    calibration = Calibration(
        temperature=temperature,
        review_threshold=threshold,
        review_rule=(
            f"lowest confidence at which answers are right at a rate of {target:.0%} or more, read off the "
            f"risk-coverage curve of {len(labels[fit])} validation images"
        ),
        conformal_quantile=quantile,
        scope_gate=gate,
    )
    confidence, correct = confidence_and_hits(logits[test], labels[test], temperature)
    raw_confidence, _ = confidence_and_hits(logits[test], labels[test], 1.0)
    probabilities = calibrated(logits[test], temperature)
    sets = 1 - probabilities <= quantile
    kept = confidence >= threshold
    n = len(labels)
    right = int((logits.argmax(axis=1) == labels).sum())
    metrics: dict[str, Any] = {
        "validation_images": n,
        "top1": right / n,
        "top1_interval_95": list(wilson_interval(right, n)),
        "top5": top_k_accuracy(logits, labels, 5),
        "macro_f1": macro_f1(logits.argmax(axis=1), labels, logits.shape[1]),
        "calibration_test_images": len(confidence),
        "nll": negative_log_likelihood(probabilities, labels[test]),
        "ece_before": expected_calibration_error(raw_confidence, correct),
        "ece": expected_calibration_error(confidence, correct),
        "coverage_of_90": float(sets[np.arange(len(sets)), labels[test]].mean()),
        "mean_size_of_90": float(sets.sum(axis=1).mean()),
        "below_threshold": float(1 - kept.mean()),
        "accuracy_above_threshold": float(correct[kept].mean()) if kept.any() else None,
    }
    return calibration, metrics


def _gate(
    model: ImageModel,
    spec: InputSpec,
    train_data: LabelledImages,
    outside_data: LabelledImages,
    held_out: Floats,
    device: str,
) -> ScopeGate:
    inside = run_model(model, eval_batches(_sample(train_data), spec), device).pooled
    outside = run_model(model, eval_batches(_sample(outside_data), spec), device).pooled
    return fit_scope_gate(
        inside,
        outside,
        held_out,
        flagged=OUT_OF_SCOPE_FLAGGED,
        fitted_on=f"{len(inside)} training images against {len(outside)} images of another kind",
    )


def _sample(data: LabelledImages) -> LabelledImages:
    """At most GATE_IMAGES images, evenly spaced through the classes."""
    step = max(1, -(-len(data.images) // GATE_IMAGES))
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
