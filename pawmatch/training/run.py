"""One training run from a recipe to a checkpoint folder, the run of its base recipe first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from pawmatch.checkpoint import CheckpointConfig
from pawmatch.checkpoint.config import CONFIG_FILE
from pawmatch.errors import TrainingError, UnknownVariant
from pawmatch.images import InputSpec
from pawmatch.models import VARIANTS
from pawmatch.tasks import new_task
from pawmatch.training.data import (
    ANSWERED_SIDE,
    DECODED_SIDE,
    Images,
    decode_all,
    find_split,
    fingerprint,
    list_classes,
    list_images,
)
from pawmatch.training.distill import Teachers
from pawmatch.training.distributed import rank, silent, wait_for_all, world
from pawmatch.training.export import Story, Summary, finish, git_commit, summarise
from pawmatch.training.init import PRETRAINED, build_models, plain_architecture
from pawmatch.training.loop import STATE_FILE, Settings, train
from pawmatch.training.optim import Together
from pawmatch.training.recipe import Recipe, read_recipe, training_command

DEFAULTS = Settings()
ALL = "all"  # in place of a variant: all of them, on one shared feature extractor
MOST_NAMED = 20  # skipped images that a checkpoint's config names


def run_training(
    recipe: Recipe,
    variant: str,
    data: Path | Sequence[Path],
    out: Path,
    *,
    val: Sequence[Path] = (),
    init: str | None = None,
    teachers: Sequence[str] = (),
    outside: Path | None = None,
    unknown: Path | None = None,
    scenes: Path | None = None,
    settings: Settings = DEFAULTS,
    report: Callable[[str], None] = print,
) -> Path:
    """Train `variant` on one folder or several, and write the checkpoint to `out`, which is returned.

    "all" trains the three variants together on one shared feature extractor. `val` are folders to validate
    on instead of the data's own. `init` is a pretrained backbone, or a checkpoint whose weights are taken
    over wherever name and shape agree; without it, a recipe with a base trains that first, beside `out`, or
    takes it from there. `outside` is a folder of images that do not show the task's subject and `unknown` one
    of images that do, of classes without a label, for the rules that say so, and `scenes` one
    of images that a recipe with `zoom_out` shrinks others into; `teachers` are checkpoints or backbones from
    whose answers a recipe with `distillation` learns. Cut at any moment, the same call goes on. Where several
    processes share the run, the first one reports and writes.
    """
    if rank() != 0:
        report = silent
    names = _variants(recipe, variant)
    _check_teachers(recipe, teachers)
    if not recipe.license:  # a checkpoint must have one, and its run should not end on that
        raise TrainingError(f'Recipe {recipe.name} has no license; give one with --set license="...".')
    train_files, val_files = find_split([data] if isinstance(data, Path) else data, val)
    spec = InputSpec.from_dict(recipe.input)
    taught = Teachers(teachers, train_files.labels, spec, settings.device) if teachers else None
    init = init or recipe.init or None
    if init is None and recipe.base:
        init = str(_base(read_recipe(recipe.base), data, val, out.parent, settings, report))
    side = max(DECODED_SIDE, int(recipe.input.get("size", 224)))
    train_data = decode_all(train_files, long_side=side)
    answered = max(ANSWERED_SIDE, 2 * side)
    val_data = decode_all(val_files, long_side=answered)
    outside_data = decode_all(list_images([outside]), long_side=answered) if outside else None
    unknown_data = decode_all(list_images([unknown]), long_side=answered) if unknown else None
    halves = [half for half in (train_data, val_data, outside_data, unknown_data) if half is not None]
    skipped = [line for half in halves for line in half.skipped]
    report(
        f"{len(train_data.labels)} classes, {len(train_data.images)} training and "
        f"{len(val_data.images)} validation images, {len(skipped)} skipped"
    )
    resuming = (out / STATE_FILE).is_file()
    models = build_models(recipe, names, train_data.labels, init=init, resuming=resuming, report=report)
    model: nn.Module = Together(models) if len(models) > 1 else models[names[0]]
    backgrounds = decode_all(list_classes(scenes), long_side=side).images if scenes else ()
    identity = {"variant": variant, "data": fingerprint(train_files, val_files)}
    taught_by = " and ".join(Path(source).name for source in teachers) or None
    if taught_by:
        identity["teacher"] = taught_by
    history = train(
        model, recipe, spec, train_data, val_data, out, settings, report, backgrounds, identity, taught
    )
    if rank() != 0:
        return out
    pretrained = recipe.architecture.get(PRETRAINED)
    summary = summarise(
        recipe,
        history,
        train_data,
        val_data,
        variants=names,
        skipped_images=skipped,
        init=Path(init).name if init else "pretrained backbone" if pretrained else "random",
        teacher=taught_by,
        commit=git_commit(),
        processes=world(),
        precision=settings.autocast,
        device=settings.device,
    )
    configs = {
        name: CheckpointConfig(
            task=new_task(recipe.task),
            family=recipe.family,
            variant=name,
            architecture=plain_architecture(recipe),
            labels=val_data.labels,
            input=spec,
            training=_training_record(summary, recipe),
            license=recipe.license,
        )
        for name in names
    }
    story = Story(" ".join(recipe.about.split()), training_command(recipe, variant))
    images = Images(train_data, val_data, outside_data, unknown_data)
    finish(models, configs, out, images, story, settings.device, refit=recipe.refit, engine=settings.engine)
    report(f"wrote {out}")
    summary.write(out)
    for line in summary.lines():
        report(line)
    return out


def _training_record(summary: Summary, recipe: Recipe) -> dict[str, Any]:
    """What a checkpoint's config tells of the run."""
    record: dict[str, Any] = {
        "recipe": recipe.name,
        "commit": summary.commit,
        "epochs": summary.epochs,
        "kept": summary.kept,
        "seed": recipe.seed,
        "init": summary.init,
        "teacher": summary.teacher,
        "together": list(summary.variants) if len(summary.variants) > 1 else None,
        "processes": summary.processes,
        "precision": summary.precision,
        "train_images": summary.train_images,
        "skipped_images": len(summary.skipped_images),
        "skipped_steps": summary.skipped_steps,
        "seconds": round(summary.seconds),
    }
    if summary.skipped_images:
        record["skipped"] = list(summary.skipped_images[:MOST_NAMED])
    return record


def _variants(recipe: Recipe, variant: str) -> tuple[str, ...]:
    """The variants that the run trains; raises where the recipe is for another one."""
    if recipe.variant and variant != recipe.variant:
        raise TrainingError(f"Recipe {recipe.name} is for --variant {recipe.variant}, not {variant}.")
    if variant == ALL:
        return tuple(VARIANTS)
    if variant not in VARIANTS:
        raise UnknownVariant(f"Variant {variant!r} is unknown; use one of {', '.join([*VARIANTS, ALL])}.")
    return (variant,)


def _check_teachers(recipe: Recipe, teachers: Sequence[str]) -> None:
    """Raise TrainingError where a recipe lacks its teacher, or a teacher a recipe that listens."""
    if recipe.distillation and not teachers:
        raise TrainingError(f"Recipe {recipe.name} learns from a teacher; name a checkpoint with --teacher.")
    if teachers and not recipe.distillation:
        raise TrainingError(
            f"Recipe {recipe.name} has no use for a teacher; leave out --teacher, or give it a share of the "
            "loss with --set distillation=0.5."
        )


def _base(
    base: Recipe,
    data: Path | Sequence[Path],
    val: Sequence[Path],
    parent: Path,
    settings: Settings,
    report: Callable[[str], None],
) -> Path:
    """The checkpoint folder of the base recipe's run, trained first where it is not there yet."""
    place = parent / base.name
    if not (place / CONFIG_FILE).is_file():  # which is written last
        report(f"training {base.name} ({base.variant}) first, into {place}")
        run_training(base, base.variant, data, place, val=val, settings=settings, report=report)
        wait_for_all()
    return place
