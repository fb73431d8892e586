"""A checkpoint's calibration fitted anew on other images, without training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from pawmatch.calibration import Calibration
from pawmatch.checkpoint import Checkpoint, load_task
from pawmatch.models import ImageModel
from pawmatch.training.data import DECODED_SIDE, Images, decode_all, find_split, list_classes, relabelled
from pawmatch.training.finish import Story, finish, git_commit
from pawmatch.training.recipe import RECIPES, read_recipe, training_command


def recalibrate(
    task: str,
    source: str | None,
    data: Path,
    out: Path,
    *,
    outside: Path | None = None,
    refit: bool = False,
    device: str = "cpu",
    report: Callable[[str], None] = print,
) -> list[Path]:
    """Fit confidence, review threshold, candidate sets and scope gates of every variant that `source` has.

    All are fitted on the validation half of the folder `data`, the gates on its training half and on
    `outside`, a folder of images that do not belong to the task; without one there are no gates. The weights
    stay as they are, but that `refit` fits BatchNorm's statistics and the class offsets to training images
    as they are seen when answering. Writes `out/<variant>` each and returns these folders. Raises
    CheckpointError or HubError where the source cannot be loaded, and TrainingError where the data does not
    have the source's classes.
    """
    checkpoints = load_task(source, task, device, strict=True)
    labels = checkpoints[0].config.labels
    train_files, val_files = (relabelled(half, labels) for half in find_split([data]))
    outside_files = list_classes(outside) if outside else None
    side = max(DECODED_SIDE, *(checkpoint.config.input.size for checkpoint in checkpoints))
    val_data = decode_all(val_files, long_side=side)
    # Nothing else looks at training images, and the gates need the images from outside too.
    train_data = decode_all(train_files, long_side=side) if outside_files or refit else val_data
    outside_data = decode_all(outside_files, long_side=side) if outside_files else None
    missing = len(set(labels)) - len(set(val_data.targets))
    report(
        f"{len(val_data.images)} validation images of {len(labels) - missing} of {len(labels)} classes, "
        f"{len(val_data.skipped)} skipped"
    )
    configs = {
        checkpoint.config.variant: replace(
            checkpoint.config,
            calibration=Calibration(),
            training={**checkpoint.config.training, "calibration_commit": git_commit()},
        )
        for checkpoint in checkpoints
    }
    folders = {name: out / name for name in configs}
    images = Images(train_data, val_data, outside_data)
    finish(_models(checkpoints), configs, folders, images, _story(checkpoints[0], refit), device, refit=refit)
    for folder in folders.values():
        report(f"wrote {folder}")
    return list(folders.values())


def _models(checkpoints: Sequence[Checkpoint]) -> dict[str, ImageModel]:
    """The models by variant; those with equal feature extractors share the module, which then runs once."""
    models: dict[str, ImageModel] = {}
    shared: dict[str, torch.nn.Module] = {}
    for checkpoint in checkpoints:
        model, group = checkpoint.model, checkpoint.config.backbone_group
        if group is not None:
            own = getattr(model, model.features_module)
            setattr(model, model.features_module, shared.setdefault(group, own))
        models[checkpoint.config.variant] = model
    return models


def _story(checkpoint: Checkpoint, refit: bool) -> Story:
    """What the card tells: the recipe's words where a bundled recipe made the weights."""
    name = checkpoint.config.training.get("recipe")
    task, flag = checkpoint.config.task, " --refit" if refit else ""
    again = (
        f"`pawmatch calibrate --task {task} --source SRC --data DIR --outside DIR --out DIR{flag}` "
        "for the calibration"
    )
    # A name out of a stranger's config: looked up among ours, never made into a path.
    if not isinstance(name, str) or name not in {path.stem for path in RECIPES.glob("*.toml")}:
        return Story("", again)
    recipe = read_recipe(name)
    variant = "all" if checkpoint.config.training.get("together") else checkpoint.config.variant
    return Story(" ".join(recipe.about.split()), f"{training_command(recipe, variant)}, then {again}")
