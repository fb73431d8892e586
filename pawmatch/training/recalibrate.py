"""A checkpoint's calibration fitted anew on other images, without training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pawmatch.calibration import Calibration
from pawmatch.checkpoint import Checkpoint, load_task
from pawmatch.training.data import ANSWERED_SIDE, Images, decode_all, find_split, list_images, relabelled
from pawmatch.training.finish import Story, finish, git_commit
from pawmatch.training.recipe import RECIPES, read_recipe, training_command


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
