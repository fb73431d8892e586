"""From trained models to a checkpoint: calibrate and measure on the validation images, then write."""

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
from pawmatch.checkpoint import Answers, Checkpoint, CheckpointConfig, save_again, save_task
from pawmatch.checkpoint.format import ONLY
from pawmatch.confidence import scope_margin, tempered
from pawmatch.evaluation.intervals import perfect_calibration_errors
from pawmatch.evaluation.metrics import (
    expected_calibration_error,
    macro_f1,
    negative_log_likelihood,
    top_k_accuracy,
    wilson_interval,
)
from pawmatch.models import ImageModel
from pawmatch.training.calibrate import fit_temperature
from pawmatch.training.calibration_plot import draw_calibration
from pawmatch.training.card import plot_file, write_card
from pawmatch.training.crossfit import Judged, confidence_and_hits, fit_calibration, judge_halves
from pawmatch.training.data import Images
from pawmatch.training.outputs import Outputs, run_models
from pawmatch.training.refit import add_offsets, class_offsets, estimate_statistics
from pawmatch.training.scope import fit_scope_gates, stand_in_images

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]

# How often unflagged answers are to be right on data like the validation set. 85 and 95 % are wanted; the aim
# is a point higher, because a threshold picked on some hundred images misses its aim by about as much.
REVIEW_TARGETS = {"breed": 0.86, "artist": 0.96}
OTHER_REVIEW_TARGET = 0.9
MOST_CONFUSED = 8  # mistakes that the card names
# Images on each side of a gate, for every weight that is fitted; against stand-ins, where weights are
# penalised more, half as many.
IMAGES_PER_WEIGHT = 12
STATISTICS_IMAGES = 512  # for BatchNorm; all their views and positions count


@dataclass(frozen=True)
class Story:
    """What a card tells beside the figures: what the weights are, and the command that makes them again."""

    about: str
    again: str


def finish(
    models: Mapping[str, ImageModel],
    configs: Mapping[str, CheckpointConfig],
    folder: Path,
    images: Images,
    story: Story,
    device: str,
    *,
    refit: bool = False,
    loaded: Sequence[Checkpoint] = (),
) -> None:
    """Calibrate and measure the variants of one task, then write them into one folder, with their card.

    `configs` say all of a checkpoint but its calibration, metrics and which variant answers: the one with the
    lowest negative log-likelihood. Where the models are those of `loaded` checkpoints, and there is no
    `refit`, the files of weights are copied as they are. The scope gates learn from the images
    from elsewhere; without them there are none. `refit` first fits BatchNorm's statistics and the class
    offsets, in place, to training images as they are seen when answering.
    """
    specs = {name: config.input for name, config in configs.items()}
    if refit:
        estimate_statistics(models, images.train.sample(STATISTICS_IMAGES), specs, device)
    outputs = run_models(models, images.val, configs, device)
    labels = np.asarray(images.val.targets)
    most = IMAGES_PER_WEIGHT * max(entry.pooled.shape[1] for entry in outputs.values())
    own_data = images.train.sample(most)
    inside = run_models(models, own_data, configs, device) if refit or images.outside else {}
    if refit:
        outputs = _without_favour(models, inside, np.asarray(own_data.targets), outputs, labels)
    gates: dict[str, tuple[ScopeGate, ...]] = dict.fromkeys(models, ())
    if images.outside:
        elsewhere = run_models(models, images.outside.sample(most), configs, device)
        stand_ins = {
            kind: run_models(models, data, configs, device)
            for kind, data in stand_in_images(images.train.sample(most // 2)).items()
        }
        gates = {
            name: fit_scope_gates(
                inside[name].pooled,
                elsewhere[name].pooled,
                {kind: made[name].pooled for kind, made in stand_ins.items()},
                outputs[name].pooled,
            )
            for name in models
        }
    task = next(iter(configs.values())).task.name
    target = REVIEW_TARGETS.get(task, OTHER_REVIEW_TARGET)
    choices = np.stack([entry.logits.argmax(axis=1) for entry in outputs.values()])
    disagree = (choices != choices[0]).any(axis=0)
    done: dict[str, CheckpointConfig] = {}
    plots: dict[str, Judged] = {}
    for name in models:
        own = outputs[name]
        out_of_scope = _out_of_scope(gates[name], own.pooled)
        calibration, judged, metrics = calibrate_and_measure(
            own.logits,
            labels,
            target=target,
            flagged=disagree | out_of_scope,
            gates=gates[name],
            names=images.val.labels,
        )
        if gates[name]:
            metrics["own_out_of_scope"] = float(out_of_scope.mean())
        done[name] = replace(configs[name], calibration=calibration, metrics=metrics)
        plots[name] = judged
    answers = choose_answers({name: config.metrics["nll"] for name, config in done.items()}, len(labels))
    done = {name: replace(config, answers=answers) for name, config in done.items()}
    if loaded and not refit:
        save_again(folder, loaded, done)
    else:
        save_task(folder, models, done)
    for name, judged in plots.items():
        draw_calibration(judged, labels, name, folder / plot_file(name))
    write_card(folder, list(done.values()), story.about, story.again)


def choose_answers(losses: Mapping[str, float], images: int) -> Answers:
    """Which variant answers: the one with the lowest negative log-likelihood on so many validation images."""
    best = min(losses, key=losses.__getitem__)
    if len(losses) == 1:
        return Answers(best, ONLY)
    measured = ", ".join(f"{name} {loss:.3f}" for name, loss in losses.items())
    return Answers(best, f"lowest negative log-likelihood on {images} validation images: {measured}")


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
    raw_confidence, _ = confidence_and_hits(tempered(logits, 1.0), labels)
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
        "ece_of_perfect": float(perfect_calibration_errors(confidence).mean()),
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


def _without_favour(
    models: Mapping[str, ImageModel],
    inside: Mapping[str, Outputs],
    targets: NDArray[np.int64],
    outputs: Mapping[str, Outputs],
    labels: NDArray[np.int64],
) -> dict[str, Outputs]:
    """Give every model the class offsets that its training images ask for; the outputs with them."""
    changed: dict[str, Outputs] = {}
    for name, own in outputs.items():
        offsets = class_offsets(inside[name].logits, targets, fit_temperature(own.logits, labels))
        add_offsets(models[name], offsets)
        changed[name] = replace(own, logits=own.logits + offsets)
    return changed


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
