"""From trained models to a checkpoint: calibrate and measure on the validation images, then write."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pawmatch.calibration.decide import Observed
from pawmatch.calibration.fit import Evidence
from pawmatch.calibration.measure import Fitted, fit_and_measure
from pawmatch.calibration.parameters import ScopeGate
from pawmatch.calibration.scope import fit_scope_gates
from pawmatch.checkpoint import Answers, Checkpoint, CheckpointConfig, save_again, save_task
from pawmatch.checkpoint.backbone import imagenet_classes, subject_classes
from pawmatch.checkpoint.format import ONLY
from pawmatch.errors import TrainingError
from pawmatch.models import ImageModel
from pawmatch.training.calibration_plot import draw_calibration
from pawmatch.training.card import plot_file, write_card
from pawmatch.training.data import Images, LabelledImages
from pawmatch.training.outputs import Outputs, run_models
from pawmatch.training.refit import estimate_statistics, without_favor
from pawmatch.training.stand_ins import stand_in_images

# Images on each side of a gate, for every weight that is fitted; against stand-ins, where weights are
# penalised more, half as many.
IMAGES_PER_WEIGHT = 12
MAX_GATE_IMAGES = 1600  # each costs a pass of the backbone for every view
STATISTICS_IMAGES = 512  # for BatchNorm; all their views and positions count
FEWEST_UNKNOWN = 20  # images of unknown classes from which anything can be learnt

AllOutputs = Mapping[str, Outputs]
Run = Callable[[Mapping[str, ImageModel], LabelledImages], dict[str, Outputs]]


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
    engine: str = "torch",
    loaded: Sequence[Checkpoint] = (),
) -> None:
    """Calibrate and measure the variants of one task, then write them into one folder, with their card.

    `configs` say all of a checkpoint but its calibration, metrics and which variant answers: the one with the
    lowest negative log-likelihood. Where the models are those of `loaded` checkpoints, and there is no
    `refit`, the files of weights are copied as they are. `refit` first fits BatchNorm's statistics and the
    class offsets, in place, to training images as they are seen when answering. Raises TrainingError where
    there are too few images of unknown classes.
    """
    if images.unknown and len(images.unknown.images) < FEWEST_UNKNOWN:
        raise TrainingError(
            f"{len(images.unknown.images)} images of unknown classes are too few; "
            f"give {FEWEST_UNKNOWN} or more."
        )
    if refit:
        specs = {name: config.input for name, config in configs.items()}
        estimate_statistics(models, images.train.sample(STATISTICS_IMAGES), specs, device)
    run = partial(run_models, configs=configs, device=device, engine=engine)
    own = run(models, images.val)
    labels = np.asarray(images.val.targets)
    if refit:
        training = images.train.sample(_most(own))
        inside = run(models, training)
        own = without_favor(models, inside, np.asarray(training.targets), own, labels)
    fitted = {
        name: fit_and_measure(evidence)
        for name, evidence in _gather(models, images, run, own, labels).items()
    }
    done = {
        name: replace(configs[name], calibration=fit.calibration, metrics=fit.metrics)
        for name, fit in fitted.items()
    }
    answers = choose_answers({name: config.metrics["nll"] for name, config in done.items()}, len(labels))
    done = {name: replace(config, answers=answers) for name, config in done.items()}
    if loaded and not refit:
        save_again(folder, loaded, done)
    else:
        save_task(folder, models, done)
    _write_about(folder, fitted, done, labels, story)


def choose_answers(losses: Mapping[str, float], images: int) -> Answers:
    """Which variant answers: the one with the lowest negative log-likelihood on so many validation images."""
    best = min(losses, key=losses.__getitem__)
    if len(losses) == 1:
        return Answers(best, ONLY)
    measured = ", ".join(f"{name} {loss:.3f}" for name, loss in losses.items())
    return Answers(best, f"lowest negative log-likelihood on {images} validation images: {measured}")


def _write_about(
    folder: Path,
    fitted: Mapping[str, Fitted],
    configs: Mapping[str, CheckpointConfig],
    labels: NDArray[np.int64],
    story: Story,
) -> None:
    for name, fit in fitted.items():
        draw_calibration(fit.halves, labels, name, folder / plot_file(name))
    write_card(folder, list(configs.values()), story.about, story.again)


def _gather(
    models: Mapping[str, ImageModel],
    images: Images,
    run: Run,
    own: AllOutputs,
    labels: NDArray[np.int64],
) -> dict[str, Evidence]:
    """The evidence for each variant's calibration.

    Where a variant's backbone has no ImageNet head to tell what a picture shows, scope gates learn it from
    the images from outside.
    """
    names = images.val.labels
    subject = subject_classes(names)
    own_classes = tuple(sorted(set(imagenet_classes(names).values()))) if subject else ()
    unknown = run(models, images.unknown) if images.unknown else None
    outside = run(models, images.outside) if images.outside else None
    blind = {name: model for name, model in models.items() if not subject or own[name].imagenet is None}
    gates = _fit_gates(blind, images, run, own) if images.outside and blind else {}
    return {
        name: Evidence(
            own=_observed(own, name),
            labels=labels,
            names=names,
            unknown=_observed(unknown, name) if unknown else None,
            outside=_observed(outside, name) if outside else None,
            own_classes=own_classes,
            subject_classes=subject,
            gates=gates.get(name, ()),
        )
        for name in models
    }


def _fit_gates(
    models: Mapping[str, ImageModel],
    images: Images,
    run: Run,
    own: AllOutputs,
) -> dict[str, tuple[ScopeGate, ...]]:
    assert images.outside is not None
    most = _most(own)
    inside = run(models, images.train.sample(most))
    elsewhere = run(models, images.outside.sample(most))
    stand_ins = {
        kind: run(models, data) for kind, data in stand_in_images(images.train.sample(most // 2)).items()
    }
    return {
        name: fit_scope_gates(
            inside[name].pooled,
            elsewhere[name].pooled,
            {kind: made[name].pooled for kind, made in stand_ins.items()},
            own[name].pooled,
        )
        for name in models
    }


def _most(outputs: AllOutputs) -> int:
    """How many images a gate or the class offsets learn from."""
    asked = IMAGES_PER_WEIGHT * max(int(entry.pooled.shape[1]) for entry in outputs.values())
    return min(asked, MAX_GATE_IMAGES)


def _observed(outputs: AllOutputs, name: str) -> Observed:
    """What one variant gave, with the first choices of all."""
    one = outputs[name]
    choices = np.stack([entry.logits.argmax(axis=1) for entry in outputs.values()])
    return Observed(one.logits, choices, one.pooled, one.imagenet)


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
