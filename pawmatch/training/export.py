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
from numpy.typing import NDArray
from PIL import Image

from pawmatch.calibration import Calibration
from pawmatch.calibration.apply import Floats, ScopeGate
from pawmatch.calibration.decide import Observed
from pawmatch.calibration.fit import Evidence, fit_scope_gates
from pawmatch.calibration.measure import fit_and_measure
from pawmatch.checkpoint import Answers, Checkpoint, CheckpointConfig, load_task, save_again, save_task
from pawmatch.checkpoint.backbone import imagenet_classes, subject_classes
from pawmatch.checkpoint.config import ONLY
from pawmatch.classifier import Classifier
from pawmatch.errors import PawMatchError
from pawmatch.models import ImageModel
from pawmatch.training.card import draw_calibration, plot_file, write_card
from pawmatch.training.data import (
    ANSWERED_SIDE,
    VAL_SHARE,
    Images,
    LabelledImages,
    check_held_out,
    decode_all,
    find_split,
    fingerprint,
    list_images,
    relabelled,
)
from pawmatch.training.distributed import sole_writer, world
from pawmatch.training.loop import CURVE_FILE, Epoch, Settings, best_epoch, stopped_early
from pawmatch.training.recipe import RECIPES, Recipe, read_recipe, training_command

SUMMARY_FILE = "summary.json"
MAX_NAMED = 5  # skipped images that are named on the terminal; the file names all
MAX_RECORDED = 20  # that a checkpoint's config names
# Images on each side of a gate, for every weight that is fitted; against stand-ins, where weights are
# penalised more, half as many.
IMAGES_PER_WEIGHT = 12
MAX_GATE_IMAGES = 1600  # each costs a pass of the backbone for every view
PIECES = (2, 3, 4)  # rows and columns into which a scrambled image is cut
CORNER = (0.15, 0.3)  # share of width and height that a corner shows

Run = Callable[[LabelledImages], dict[str, Observed]]


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
    engine: str = "torch",
    loaded: Sequence[Checkpoint] = (),
) -> None:
    """Calibrate and measure the variants of one task, then write them into one folder, with their card.

    `configs` say all of a checkpoint but its calibration, metrics and which variant answers: the one with the
    lowest negative log-likelihood. Where the models are those of `loaded` checkpoints, the files of weights
    are copied as they are.
    """
    run = partial(run_models, models, configs=configs, device=device, engine=engine)
    own, labels = run(images.val), np.asarray(images.val.targets)
    evidence = _gather(images, run, own, labels)
    fitted = {name: fit_and_measure(entry) for name, entry in evidence.items()}
    losses = {name: fit.metrics["nll"] for name, fit in fitted.items()}
    answers = choose_answers(losses, len(labels))
    done = {
        name: replace(configs[name], calibration=fit.calibration, metrics=fit.metrics, answers=answers)
        for name, fit in fitted.items()
    }
    if loaded:
        save_again(folder, loaded, done)
    else:
        save_task(folder, models, done)
    for name, fit in fitted.items():
        draw_calibration(fit.halves, labels, name, folder / plot_file(name))
    write_card(folder, list(done.values()), story.about, story.again)


def choose_answers(losses: Mapping[str, float], images: int) -> Answers:
    """Which variant answers: the one with the lowest negative log-likelihood on so many validation images."""
    best = min(losses, key=losses.__getitem__)
    if len(losses) == 1:
        return Answers(best, ONLY)
    measured = ", ".join(f"{name} {loss:.3f}" for name, loss in losses.items())
    return Answers(best, f"lowest negative log-likelihood on {images} validation images: {measured}")


def run_models(
    models: Mapping[str, ImageModel],
    data: LabelledImages,
    configs: Mapping[str, CheckpointConfig],
    device: str,
    engine: str = "torch",
) -> dict[str, Observed]:
    """Every variant's outputs for all images, averaged over their views, by the classifier that answers."""
    checkpoints = [
        Checkpoint(configs[name], model.eval().requires_grad_(False), "training")
        for name, model in models.items()
    ]
    classifier = Classifier(checkpoints[0].config.task.name, checkpoints, engine=engine, device=device)
    examined = []
    for entry in classifier.run_batches(Image.fromarray(image) for image in data.images):
        if isinstance(entry, PawMatchError):  # decoded before, so that it is no image's fault
            raise entry
        examined.append((entry.logits, entry.pooled, entry.imagenet, entry.doubted))
    *outputs, seen, doubted = zip(*examined, strict=True)
    logits, pooled = ({name: np.stack([row[name] for row in rows]) for name in models} for rows in outputs)
    choices = np.stack([values.argmax(axis=1) for values in logits.values()])
    imagenet = None if seen[0] is None else np.stack(seen)
    return {
        name: Observed(logits[name], choices, pooled[name], imagenet, doubted=np.array(doubted))
        for name in models
    }


def _gather(
    images: Images, run: Run, own: Mapping[str, Observed], labels: NDArray[np.int64]
) -> dict[str, Evidence]:
    """The evidence for each variant's calibration.

    Where a variant's backbone has no ImageNet head to tell what a picture shows, scope gates learn it from
    the images from outside.
    """
    names = images.val.labels
    subject = subject_classes(names)
    own_classes = tuple(sorted(set(imagenet_classes(names).values()))) if subject else ()
    unknown = run(images.unknown) if images.unknown else None
    outside = run(images.outside) if images.outside else None
    blind = [name for name, entry in own.items() if not subject or entry.imagenet is None]
    gates = _fit_gates(blind, images, images.outside, run, own) if images.outside and blind else {}
    return {
        name: Evidence(
            own=own[name],
            labels=labels,
            names=names,
            unknown=unknown[name] if unknown else None,
            unknown_groups=np.asarray(images.unknown.targets) if images.unknown else None,
            outside=outside[name] if outside else None,
            own_classes=own_classes,
            subject_classes=subject,
            gates=gates.get(name, ()),
        )
        for name in own
    }


def _fit_gates(
    names: Sequence[str], images: Images, outside: LabelledImages, run: Run, own: Mapping[str, Observed]
) -> dict[str, tuple[ScopeGate, ...]]:
    asked = IMAGES_PER_WEIGHT * max(_pooled(entry).shape[1] for entry in own.values())
    most = min(asked, MAX_GATE_IMAGES)
    inside, elsewhere = run(images.train.sample(most)), run(outside.sample(most))
    made = {kind: run(data) for kind, data in stand_in_images(images.train.sample(most // 2)).items()}
    return {
        name: fit_scope_gates(
            _pooled(inside[name]),
            _pooled(elsewhere[name]),
            {kind: _pooled(outputs[name]) for kind, outputs in made.items()},
            _pooled(own[name]),
        )
        for name in names
    }


def _pooled(observed: Observed) -> Floats:
    assert observed.pooled is not None
    return observed.pooled


def stand_in_images(data: LabelledImages, seed: int = 0) -> dict[str, LabelledImages]:
    """For each kind of stand-in one image made of each image: cut into tiles in another order, or a corner.

    They stand in for pictures of something else. Other animals and objects share the tiles' textures, and
    not their arrangement; a corner rarely shows more than what is around the subject.
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


def summarize(
    recipe: Recipe,
    history: Sequence[Epoch],
    images: Images,
    settings: Settings,
    *,
    variants: Sequence[str],
    init: str,
    teacher: str | None,
) -> dict[str, Any]:
    """What was trained on what, how it went, and which weights were kept, as JSON values.

    `smallest_class` and `largest_class` count training images; `seconds` covers all epochs, those before
    a cut too.
    """
    counts = Counter(images.train.targets)
    best = best_epoch(history).number
    kept = f"epoch {best if recipe.keep_best else len(history)}"
    return {
        "recipe": recipe.to_dict(),
        "variants": list(variants),
        "init": init,
        "teacher": teacher,
        "commit": git_commit(),
        "processes": world(),
        "precision": settings.autocast or "float32",
        "device": settings.device,
        "classes": len(images.train.labels),
        "train_images": len(images.train.images),
        "val_images": len(images.val.images),
        "smallest_class": min(counts.values()),
        "largest_class": max(counts.values()),
        "skipped_images": list(images.skipped),
        "epochs": len(history),
        "epochs_planned": recipe.epochs,
        "stopped_early": stopped_early(history, recipe),
        "best_epoch": best,
        "kept": f"the moving average at {kept}" if recipe.ema else kept,
        "skipped_steps": sum(epoch.skipped_steps for epoch in history),
        "seconds": round(sum(epoch.seconds for epoch in history), 1),
        "history": [asdict(epoch) for epoch in history],
    }


def summary_lines(summary: Mapping[str, Any]) -> list[str]:
    """A summary as the lines that a run ends with."""
    best, skipped = summary["history"][summary["best_epoch"] - 1], summary["skipped_images"]
    early = ", stopped early" if summary["stopped_early"] else ""
    epochs = f"{summary['epochs']} of {summary['epochs_planned']} epochs{early}"
    lines = [
        f"{summary['recipe']['name']}: {', '.join(summary['variants'])}; {epochs}, "
        f"{duration(summary['seconds'])}",
        f"kept {summary['kept']}; lowest validation loss {best['val_loss']:.3f}, top-1 {best['top1']:.1%}, "
        f"in epoch {best['number']}",
    ]
    if skipped:
        more = f"; {len(skipped) - MAX_NAMED} more" if len(skipped) > MAX_NAMED else ""
        named = "; ".join(line.rstrip(".") for line in skipped[:MAX_NAMED])
        lines.append(f"{len(skipped)} images skipped: {named}{more}")
    if summary["skipped_steps"]:
        lines.append(f"{summary['skipped_steps']} steps skipped: their gradients were no finite numbers")
    return [*lines, f"learning curve in {CURVE_FILE}, all of this in {SUMMARY_FILE}"]


def write_summary(summary: Mapping[str, Any], folder: Path) -> None:
    """Write a summary into a run's folder."""
    text = json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / SUMMARY_FILE).write_text(text + "\n", encoding="utf-8")


def training_record(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint's config tells of the run."""
    skipped, variants = summary["skipped_images"], summary["variants"]
    taken = ("commit", "epochs", "kept", "init", "teacher", "processes", "precision", "train_images")
    record = {
        "recipe": summary["recipe"]["name"],
        "seed": summary["recipe"]["seed"],
        **{key: summary[key] for key in taken},
        "together": variants if len(variants) > 1 else None,
        "skipped_images": len(skipped),
        "skipped_steps": summary["skipped_steps"],
        "seconds": round(summary["seconds"]),
    }
    return {**record, "skipped": skipped[:MAX_RECORDED]} if skipped else record


def duration(seconds: float) -> str:
    """Seconds as a person says them: 42 s, 12 min, 3 h 5 min."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def git_commit() -> str:
    """The commit that this program was run from, or "unknown" outside a checkout."""
    command = ["git", "rev-parse", "HEAD"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()


def recalibrate(
    task: str,
    source: str | None,
    data: Sequence[Path],
    out: Path,
    *,
    val: Sequence[Path] = (),
    val_share: float = VAL_SHARE,
    outside: Sequence[Path] = (),
    unknown: Sequence[Path] = (),
    device: str = "cpu",
    engine: str = "torch",
    report: Callable[[str], None] = print,
) -> Path:
    """Fit confidence, review threshold, candidate sets and scope gates of every variant that `source` has.

    All are fitted on the validation half of the folders `data`, or on the folders `val`. `outside` are
    folders of images that do not belong to the task, and `unknown` of classes that have no label, for the
    rules that say so; where the backbone has no ImageNet head, scope gates learn from `outside` and from the
    training half of `data`. The files of weights stay the same, byte by byte. Writes the checkpoint to `out`,
    which is returned.
    Raises CheckpointError or HubError where the source cannot be loaded, and TrainingError where the data
    does not have the source's classes.
    """
    checkpoints = load_task(source, task, device, strict=True)
    labels = checkpoints[0].config.labels
    halves = find_split(data or val, val, val_share)
    train_files, val_files = (relabelled(half, labels) for half in halves)
    side = max(ANSWERED_SIDE, *(2 * checkpoint.config.input.size for checkpoint in checkpoints))
    beyond = [decode_all(list_images(part), long_side=side) if part else None for part in (outside, unknown)]
    val_data = decode_all(val_files, long_side=side)
    # Nothing else looks at training images, and the gates need the images from outside too.
    train_data = decode_all(train_files, long_side=side) if data and outside else val_data
    images = Images(train_data, val_data, *beyond)
    check_held_out(images)
    report(
        f"{len(val_data.images)} validation images of {len(set(val_data.targets))} of {len(labels)} classes, "
        f"{len(val_data.skipped)} skipped"
    )
    first = checkpoints[0].config
    training = {
        key: value
        for key, value in first.training.items()
        if all(one.config.training.get(key, ...) == value for one in checkpoints)
    }
    configs = {
        one.config.variant: replace(
            one.config,
            calibration=Calibration(),
            training={
                **training,
                "calibration_commit": git_commit(),
                "calibrated_on": fingerprint(val_files),
            },
        )
        for one in checkpoints
    }
    models = {one.config.variant: one.model for one in checkpoints}
    with sole_writer(out):
        finish(models, configs, out, images, _story(first), device, engine=engine, loaded=checkpoints)
    report(f"wrote {out}")
    return out


def _story(config: CheckpointConfig) -> Story:
    """What the card tells: the recipe's words where a bundled recipe made the weights."""
    name = config.training.get("recipe")
    again = (
        f"`pawmatch calibrate --task {config.task.name} --source SRC --data DIR --outside DIR "
        "--unknown DIR --out DIR` for the calibration"
    )
    # A name out of a stranger's config: looked up among ours, never made into a path.
    if not isinstance(name, str) or name not in {path.stem for path in RECIPES.glob("*.toml")}:
        return Story("", again)
    recipe = read_recipe(name)
    variant = "all" if config.training.get("together") else config.variant
    return Story(" ".join(recipe.about.split()), f"{training_command(recipe, variant)}, then {again}")
