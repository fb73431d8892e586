"""From trained models to a checkpoint: calibrate and measure on the validation images, then write."""

from __future__ import annotations

import json
import random
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm

from pawmatch.calibration import Calibration
from pawmatch.calibration.apply import ScopeGate
from pawmatch.calibration.decide import Observed
from pawmatch.calibration.fit import Evidence, fit_temperature
from pawmatch.calibration.measure import Fitted, fit_and_measure
from pawmatch.calibration.scope import fit_scope_gates, minimise
from pawmatch.checkpoint import Answers, Checkpoint, CheckpointConfig, load_task, save_again, save_task
from pawmatch.checkpoint.backbone import imagenet_classes, subject_classes
from pawmatch.checkpoint.config import ONLY
from pawmatch.classifier import Classifier
from pawmatch.errors import PawMatchError, TrainingError
from pawmatch.images import InputSpec
from pawmatch.models import ImageModel
from pawmatch.training.card import draw_calibration, plot_file, write_card
from pawmatch.training.data import (
    ANSWERED_SIDE,
    Images,
    LabelledImages,
    decode_all,
    find_split,
    list_images,
    relabelled,
    view_batches,
)
from pawmatch.training.loop import CURVE_FILE, Epoch, best_epoch, stopped_early
from pawmatch.training.recipe import RECIPES, Recipe, read_recipe, training_command

SUMMARY_FILE = "summary.json"
NAMED = 5  # skipped images that are named on the terminal; the file names all


@dataclass(frozen=True)
class Summary:
    """What was trained on what, how it went, and which weights were kept.

    `smallest_class` and `largest_class` count training images; `seconds` covers all epochs, those before
    a cut too.
    """

    recipe: dict[str, Any]
    variants: tuple[str, ...]
    init: str
    teacher: str | None
    commit: str
    processes: int
    precision: str
    device: str
    classes: int
    train_images: int
    val_images: int
    smallest_class: int
    largest_class: int
    skipped_images: tuple[str, ...]
    epochs: int
    epochs_planned: int
    stopped_early: bool
    best_epoch: int
    kept: str
    skipped_steps: int
    seconds: float
    history: tuple[Epoch, ...]

    def lines(self) -> list[str]:
        """The summary as the lines that a run ends with."""
        best = self.history[self.best_epoch - 1]
        early = ", stopped early" if self.stopped_early else ""
        epochs = f"{self.epochs} of {self.epochs_planned} epochs{early}"
        text = [
            f"{self.recipe['name']}: {', '.join(self.variants)}; {epochs}, {duration(self.seconds)}",
            f"kept {self.kept}; lowest validation loss {best.val_loss:.3f}, top-1 {best.top1:.1%}, "
            f"in epoch {best.number}",
        ]
        if self.skipped_images:
            more = len(self.skipped_images) - NAMED
            named = "; ".join(line.rstrip(".") for line in self.skipped_images[:NAMED])
            text.append(
                f"{len(self.skipped_images)} images skipped: {named}" + (f"; {more} more" if more > 0 else "")
            )
        if self.skipped_steps:
            text.append(f"{self.skipped_steps} steps skipped: their gradients were no finite numbers")
        text.append(f"learning curve in {CURVE_FILE}, all of this in {SUMMARY_FILE}")
        return text

    def write(self, folder: Path) -> None:
        """Write the summary as JSON into `folder`."""
        text = json.dumps(asdict(self), indent=1, ensure_ascii=False)
        (folder / SUMMARY_FILE).write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def kept_weights(history: Sequence[Epoch], recipe: Recipe) -> str:
    """Which weights the run kept, in words."""
    number = best_epoch(history).number if recipe.keep_best else len(history)
    return f"the moving average at epoch {number}" if recipe.ema else f"epoch {number}"


def summarise(
    recipe: Recipe,
    history: Sequence[Epoch],
    train_data: LabelledImages,
    val_data: LabelledImages,
    *,
    variants: tuple[str, ...],
    init: str,
    teacher: str | None,
    commit: str,
    processes: int,
    precision: str,
    device: str,
    skipped_images: Sequence[str],
) -> Summary:
    """The summary of a run that has ended."""
    counts = Counter(train_data.targets)
    sizes = [counts[index] for index in range(len(train_data.labels))]
    return Summary(
        recipe=recipe.to_dict(),
        variants=variants,
        init=init,
        teacher=teacher,
        commit=commit,
        processes=processes,
        precision=precision or "float32",
        device=device,
        classes=len(train_data.labels),
        train_images=len(train_data.images),
        val_images=len(val_data.images),
        smallest_class=min(sizes),
        largest_class=max(sizes),
        skipped_images=tuple(skipped_images),
        epochs=len(history),
        epochs_planned=recipe.epochs,
        stopped_early=stopped_early(history, recipe),
        best_epoch=best_epoch(history).number,
        kept=kept_weights(history, recipe),
        skipped_steps=sum(epoch.skipped_steps for epoch in history),
        seconds=round(sum(epoch.seconds for epoch in history), 1),
        history=tuple(history),
    )


def duration(seconds: float) -> str:
    """Seconds as a person says them: 42 s, 12 min, 3 h 5 min."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Outputs:
    """Logits (N, classes) and average-pooled feature maps (N, C) of N images, averaged over their views.

    `imagenet` (N, 1000) are the probabilities of the backbone's own head, where it has one.
    """

    logits: Floats
    pooled: Floats
    imagenet: Floats | None


def run_models(
    models: Mapping[str, ImageModel],
    data: LabelledImages,
    configs: Mapping[str, CheckpointConfig],
    device: str,
    engine: str = "torch",
) -> dict[str, Outputs]:
    """Every variant's outputs for all images, in the order of `models`; the models are put to evaluation."""
    checkpoints = [
        Checkpoint(configs[name], model.eval().requires_grad_(False), "training")
        for name, model in models.items()
    ]
    task = checkpoints[0].config.task.name
    classifier = Classifier(task, checkpoints, engine=engine, device=device)
    logits: dict[str, list[Floats]] = {name: [] for name in models}
    pooled: dict[str, list[Floats]] = {name: [] for name in models}
    imagenet: list[Floats] = []
    for entry in classifier.examine_batch(Image.fromarray(image) for image in data.images):
        if isinstance(entry, PawMatchError):  # decoded before, so that it is no image's fault
            raise entry
        for name in models:
            logits[name].append(entry.logits[name])
            pooled[name].append(entry.pooled[name])
        if entry.imagenet is not None:
            imagenet.append(entry.imagenet)
    seen = np.stack(imagenet) if imagenet else None
    return {name: Outputs(np.stack(logits[name]), np.stack(pooled[name]), seen) for name in models}


PIECES = (2, 3, 4)  # rows and columns into which a scrambled image is cut
CORNER = (0.15, 0.3)  # share of width and height that a corner shows


def stand_in_images(data: LabelledImages, seed: int = 0) -> dict[str, LabelledImages]:
    """For each kind of stand-in one image made of each image: cut into tiles in another order, or a corner.

    Other animals and objects share the tiles' textures, and not their arrangement; a corner rarely shows
    more than what is around the subject.
    """
    rng = random.Random(seed)
    tiles = tuple(shuffle_tiles(image, rng.choice(PIECES), rng) for image in data.images)
    corners = tuple(corner(image, rng.uniform(*CORNER), rng) for image in data.images)
    return {"corners of": replace(data, images=corners), "scrambled": replace(data, images=tiles)}


def shuffle_tiles(image: NDArray[np.uint8], count: int, rng: random.Random) -> NDArray[np.uint8]:
    """Cut an image (H, W, 3) into count x count equal tiles and put them back in random order."""
    height, width = image.shape[0] // count, image.shape[1] // count
    places = [(row * height, column * width) for row in range(count) for column in range(count)]
    tiles = [image[top : top + height, left : left + width] for top, left in places]
    rng.shuffle(tiles)
    mixed = np.empty((height * count, width * count, 3), dtype=np.uint8)
    for (top, left), tile in zip(places, tiles, strict=True):
        mixed[top : top + height, left : left + width] = tile
    return mixed


def corner(image: NDArray[np.uint8], share: float, rng: random.Random) -> NDArray[np.uint8]:
    """One of the four corners of an image (H, W, 3), `share` of its height and width."""
    height, width = (max(8, round(share * side)) for side in image.shape[:2])
    rows = slice(None, height) if rng.random() < 0.5 else slice(-height, None)
    columns = slice(None, width) if rng.random() < 0.5 else slice(-width, None)
    return image[rows, columns]


BATCH = 16  # images, each in all its views: enough for the statistics of one step
OFFSET_PENALTY = 1e-4


@torch.no_grad()
def estimate_statistics(
    models: Mapping[str, ImageModel], data: LabelledImages, specs: Mapping[str, InputSpec], device: str
) -> None:
    """Set the running statistics of every BatchNorm to the mean over `data`, in place.

    Each variant sees the images as it does when answering. A feature extractor that variants share gets them
    from the first of those.
    """
    done: set[int] = set()
    for name, model in models.items():
        layers = [
            layer for layer in model.modules() if isinstance(layer, _BatchNorm) and id(layer) not in done
        ]
        done.update(id(layer) for layer in layers)
        if not layers:
            continue
        model.eval()
        momenta = [layer.momentum for layer in layers]
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None  # torch then keeps the plain mean over the batches
            layer.train()
        for batch in view_batches(data, specs[name], BATCH):
            if len(batch) > 1:  # one row has no variance
                model(batch.to(device))
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        model.eval()


def without_favor(
    models: Mapping[str, ImageModel],
    training: Mapping[str, Outputs],
    targets: NDArray[np.int64],
    outputs: Mapping[str, Outputs],
    labels: NDArray[np.int64],
) -> dict[str, Outputs]:
    """Give every model the class offsets that its training images ask for; the `outputs` with them.

    `training` is what the models say of training images of classes `targets` (N,), `outputs` of validation
    images of classes `labels` (M,).
    """
    changed: dict[str, Outputs] = {}
    for name, own in outputs.items():
        offsets = class_offsets(training[name].logits, targets, fit_temperature(own.logits, labels))
        add_offsets(models[name], offsets)
        changed[name] = replace(own, logits=own.logits + offsets)
    return changed


def class_offsets(logits: Floats, labels: NDArray[np.int64], temperature: float) -> Floats:
    """Offsets (classes,) to add to logits, so that no class is favoured.

    They minimise the mean negative log-likelihood of softmax((logits + offsets) / temperature) over training
    images, logits (N, classes) and labels (N,), plus OFFSET_PENALTY times the squared offsets / temperature.
    """
    scores = torch.from_numpy(logits.astype(np.float64)) / temperature
    target = torch.from_numpy(labels)
    offsets = torch.zeros(logits.shape[1], dtype=torch.float64, requires_grad=True)
    minimise(
        lambda: cross_entropy(scores + offsets, target) + OFFSET_PENALTY * offsets.square().sum(), [offsets]
    )
    found: Floats = (offsets.detach().numpy() * temperature).astype(np.float32)
    return found


@torch.no_grad()
def add_offsets(model: ImageModel, offsets: Floats) -> None:
    """Add offsets (classes,) to a model's logits, in the bias of its last layer."""
    classifier = model.classifier
    last = classifier[-1] if isinstance(classifier, nn.Sequential) else classifier
    assert isinstance(last, nn.Linear)
    last.bias.add_(torch.from_numpy(offsets).to(last.bias))


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


def recalibrate(
    task: str,
    source: str | None,
    data: Sequence[Path],
    out: Path,
    *,
    val: Sequence[Path] = (),
    outside: Sequence[Path] = (),
    unknown: Sequence[Path] = (),
    refit: bool = False,
    device: str = "cpu",
    engine: str = "torch",
    report: Callable[[str], None] = print,
) -> Path:
    """Fit confidence, review threshold, candidate sets and scope gates of every variant that `source` has.

    All are fitted on the validation half of the folders `data`, or on the folders `val`. `outside` are
    folders of images that do not belong to the task, and `unknown` of classes that have no label, for the
    rules that say so; where the backbone has no ImageNet head, scope gates learn from `outside` and from the
    training half of `data`. The files of weights stay the same, byte by byte, but that `refit` fits
    BatchNorm's statistics and the class offsets to training images as they are seen when answering. Writes
    the checkpoint to `out`, which is returned.
    Raises CheckpointError or HubError where the source cannot be loaded, and TrainingError where the data
    does not have the source's classes.
    """
    checkpoints = load_task(source, task, device, strict=True)
    labels = checkpoints[0].config.labels
    train_files, val_files = (relabelled(half, labels) for half in find_split(data or val, val))
    outside_files = list_images(outside) if outside else None
    unknown_files = list_images(unknown) if unknown else None
    side = max(ANSWERED_SIDE, *(2 * checkpoint.config.input.size for checkpoint in checkpoints))
    val_data = decode_all(val_files, long_side=side)
    # Nothing else looks at training images, and the gates need the images from outside too.
    asked = data and (outside_files or refit)
    train_data = decode_all(train_files, long_side=side) if asked else val_data
    outside_data = decode_all(outside_files, long_side=side) if outside_files else None
    unknown_data = decode_all(unknown_files, long_side=side) if unknown_files else None
    missing = len(set(labels)) - len(set(val_data.targets))
    report(
        f"{len(val_data.images)} validation images of {len(labels) - missing} of {len(labels)} classes, "
        f"{len(val_data.skipped)} skipped"
    )
    training = _in_common([checkpoint.config.training for checkpoint in checkpoints])
    configs = {
        checkpoint.config.variant: replace(
            checkpoint.config,
            calibration=Calibration(),
            training={**training, "calibration_commit": git_commit()},
        )
        for checkpoint in checkpoints
    }
    models = {checkpoint.config.variant: checkpoint.model for checkpoint in checkpoints}
    images = Images(train_data, val_data, outside_data, unknown_data)
    story = _story(checkpoints[0], refit)
    finish(models, configs, out, images, story, device, refit=refit, engine=engine, loaded=checkpoints)
    report(f"wrote {out}")
    return out


def _in_common(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the variants' records of training agree on; those of one run agree on everything."""
    return {
        key: value
        for key, value in records[0].items()
        if all(key in record and record[key] == value for record in records)
    }


def _story(checkpoint: Checkpoint, refit: bool) -> Story:
    """What the card tells: the recipe's words where a bundled recipe made the weights."""
    name = checkpoint.config.training.get("recipe")
    task, flag = checkpoint.config.task.name, " --refit" if refit else ""
    again = (
        f"`pawmatch calibrate --task {task} --source SRC --data DIR --outside DIR --unknown DIR "
        f"--out DIR{flag}` for the calibration"
    )
    # A name out of a stranger's config: looked up among ours, never made into a path.
    if not isinstance(name, str) or name not in {path.stem for path in RECIPES.glob("*.toml")}:
        return Story("", again)
    recipe = read_recipe(name)
    variant = "all" if checkpoint.config.training.get("together") else checkpoint.config.variant
    return Story(" ".join(recipe.about.split()), f"{training_command(recipe, variant)}, then {again}")
