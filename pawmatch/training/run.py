"""One training run from a recipe to checkpoint folders, the run of its base recipe first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from pawmatch.checkpoint import load_checkpoint
from pawmatch.checkpoint.weights import WEIGHTS_FILE
from pawmatch.errors import TrainingError, UnknownVariant
from pawmatch.models import VARIANTS, ImageModel, build_model
from pawmatch.preprocess import InputSpec
from pawmatch.training.data import LabelledImages, decode_all, find_split, list_classes
from pawmatch.training.finish import Terms, finish, git_commit
from pawmatch.training.loop import Settings, train
from pawmatch.training.recipe import Recipe, read_recipe
from pawmatch.training.together import Together

DEFAULTS = Settings()
DECODED_SIDE = 288  # pixels; a random crop of a third of the area still has more than the model sees
ALL = "all"  # in place of a variant: all of them, on one shared feature extractor


def run_training(
    recipe: Recipe,
    variant: str,
    data: Path,
    out: Path,
    *,
    init: str | None = None,
    outside: Path | None = None,
    settings: Settings = DEFAULTS,
    report: Callable[[str], None] = print,
) -> list[Path]:
    """Train `variant` on the folder `data` and return the checkpoint folders written.

    One variant is written to `out` itself; "all" trains the three together on one shared feature extractor
    and writes `out/<variant>` each. `init` is a checkpoint whose weights are taken over wherever name and
    shape agree, or a folder that holds one for each variant; without it, a recipe with a base trains that
    first, beside `out`, or takes it from there. `outside` is a folder of images that do not belong to the
    task, for the scope gate. Cut at any moment, the same call goes on.
    """
    names = _variants(recipe, variant)
    train_files, val_files = find_split(data)
    if init is None and recipe.base:
        init = str(_base(read_recipe(recipe.base), data, out.parent, settings, report))
    side = max(DECODED_SIDE, int(recipe.input.get("size", 224)))
    train_data = decode_all(train_files, long_side=side)
    val_data = decode_all(val_files, long_side=side)
    outside_data = decode_all(list_classes(outside), long_side=side) if outside else None
    _report_data(train_data, val_data, report)
    spec = InputSpec.from_dict(recipe.input)
    models = _models(recipe, names, len(train_data.labels), init, report)
    model: nn.Module = Together(models) if len(models) > 1 else models[names[0]]
    backgrounds = outside_data.images if outside_data is not None else ()
    history = train(model, recipe, spec, train_data, val_data, out, settings, report, backgrounds)
    terms = Terms(
        recipe=recipe,
        spec=spec,
        training={
            "recipe": recipe.name,
            "commit": git_commit(),
            "epochs": len(history),
            "seed": recipe.seed,
            "init": Path(init).name if init else "random",
            "together": list(names) if len(names) > 1 else None,
            "train_images": len(train_data.images),
            "skipped_images": len(train_data.skipped) + len(val_data.skipped),
            "seconds": round(sum(epoch.seconds for epoch in history)),
        },
        backbone_group=f"{recipe.name}-{recipe.seed}" if len(names) > 1 else None,
        device=settings.device,
    )
    folders = {name: out / name if len(names) > 1 else out for name in names}
    finish(models, terms, train_data, val_data, outside_data, folders)
    for folder in folders.values():
        report(f"wrote {folder}")
    return list(folders.values())


def take_over(model: nn.Module, source: nn.Module) -> float:
    """Copy every tensor whose name and shape agree into `model`; returns the share of values taken."""
    theirs, ours = source.state_dict(), model.state_dict()
    shared = {
        key: theirs[key]
        for key, value in ours.items()
        if key in theirs and theirs[key].shape == value.shape
    }
    model.load_state_dict(shared, strict=False)
    taken = sum(value.numel() for value in shared.values())
    return float(taken / sum(value.numel() for value in ours.values()))


def _variants(recipe: Recipe, variant: str) -> tuple[str, ...]:
    """The variants that the run trains; raises where the recipe is for another one."""
    if recipe.variant and variant != recipe.variant:
        raise TrainingError(f"Recipe {recipe.name} is for --variant {recipe.variant}, not {variant}.")
    if variant == ALL:
        return tuple(VARIANTS)
    if variant not in VARIANTS:
        raise UnknownVariant(f"Variant {variant!r} is unknown; use one of {', '.join([*VARIANTS, ALL])}.")
    return (variant,)


def _base(
    base: Recipe, data: Path, parent: Path, settings: Settings, report: Callable[[str], None]
) -> Path:
    """The checkpoint folder of the base recipe's run, trained first where it is not there yet."""
    place = parent / base.name
    names = _variants(base, base.variant)
    written = [place / name for name in names] if len(names) > 1 else [place]
    if not all((folder / WEIGHTS_FILE).is_file() for folder in written):
        report(f"training {base.name} ({base.variant}) first, into {place}")
        run_training(base, base.variant, data, place, settings=settings, report=report)
    return place


def _models(
    recipe: Recipe, names: tuple[str, ...], classes: int, init: str | None, report: Callable[[str], None]
) -> dict[str, ImageModel]:
    torch.manual_seed(recipe.seed)
    models = {
        name: build_model(family=recipe.family, variant=name, num_classes=classes, **recipe.architecture)
        for name in names
    }
    if init is not None:
        for name, model in models.items():
            own = Path(init) / name
            source = str(own) if (own / WEIGHTS_FILE).is_file() else init
            share = take_over(model, load_checkpoint(source).model)
            report(f"{name}: {share:.0%} of the parameters start from {source}")
    return models


def _report_data(
    train_data: LabelledImages, val_data: LabelledImages, report: Callable[[str], None]
) -> None:
    skipped = len(train_data.skipped) + len(val_data.skipped)
    report(
        f"{len(train_data.labels)} classes, {len(train_data.images)} training and "
        f"{len(val_data.images)} validation images, {skipped} skipped"
    )
