"""One training run, from a folder of images to a checkpoint folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from pawmatch.checkpoint import CheckpointConfig
from pawmatch.checkpoint.budget import empty_model
from pawmatch.checkpoint.config import WeightsFile, config_bytes
from pawmatch.errors import TrainingError, UnknownVariant
from pawmatch.images import InputSpec
from pawmatch.labels import new_task
from pawmatch.models import VARIANTS
from pawmatch.training.data import (
    ANSWERED_SIDE,
    DECODED_SIDE,
    VAL_SHARE,
    Images,
    check_images,
    decode_all,
    find_split,
    fingerprint,
    list_images,
    share_of,
)
from pawmatch.training.distill import Teachers
from pawmatch.training.distributed import rank, silent, sole_writer
from pawmatch.training.export import (
    Story,
    finish,
    summarize,
    summary_lines,
    training_record,
    write_summary,
)
from pawmatch.training.init import PRETRAINED, build_models, plain_architecture
from pawmatch.training.loop import STATE_FILE, Settings, train
from pawmatch.training.optim import Together
from pawmatch.training.recipe import Recipe, pick_recipe, training_command

DEFAULTS = Settings()
ALL = "all"  # in place of a variant: all of them, on one shared feature extractor
WORDS = ("title", "subject", "noun", "plural")


def recipe_for(
    task: str,
    data: Path | Sequence[Path],
    *,
    val: Sequence[Path] = (),
    val_share: float = VAL_SHARE,
    device: str = "cpu",
    overrides: Sequence[str] = (),
) -> Recipe:
    """The recipe for folders that no recipe was made for, by what is in them and by this machine."""
    train_files, _ = find_split(data, val, val_share)
    return pick_recipe(
        task,
        images=len(train_files.files),
        classes=len(train_files.labels),
        cores=torch.get_num_threads(),
        gpu=device.startswith("cuda"),
        overrides=overrides,
    )


def run_training(
    recipe: Recipe,
    variant: str,
    data: Path | Sequence[Path],
    out: Path,
    *,
    val: Sequence[Path] = (),
    val_share: float = VAL_SHARE,
    init: str | None = None,
    teachers: Sequence[str] = (),
    outside: Sequence[Path] = (),
    unknown: Sequence[Path] = (),
    scenes: Path | None = None,
    settings: Settings = DEFAULTS,
    report: Callable[[str], None] = print,
) -> Path:
    """Train `variant` on one folder or several, and write the checkpoint to `out`, which is returned.

    "all" trains the three variants together on one shared feature extractor. `val` are folders to validate
    on instead of the data's own, `val_share` is how much of data without a split is held out. `init` is a
    pretrained backbone, or a checkpoint whose weights are taken over wherever name and shape agree.
    `outside` are folders of images that do not show the task's subject and `unknown` of images that do, of
    classes without a label, for the rules that say so, and `scenes` is one of images that a recipe with
    `zoom_out` shrinks others into; `teachers` are checkpoints or backbones from whose answers a recipe with
    `distillation` learns. Whatever can be known is checked before the first epoch. Cut at any moment, the
    same call goes on. Where several processes share the run, the first one reports and writes.
    """
    if rank() != 0:
        report = silent
    names = _variants(recipe, variant)
    _check_teachers(recipe, teachers)
    if not recipe.license:  # a checkpoint must have one
        raise TrainingError(f'Recipe {recipe.name} has no license; give one with --set license="...".')
    if not 0 < val_share < 1:
        raise TrainingError(f"The share that is held out is {val_share}; it must be above 0 and below 1.")
    train_files, val_files = find_split(data, val, val_share)
    train_files = share_of(train_files, recipe.label_share, recipe.seed)
    spec = InputSpec.from_dict(recipe.input)
    configs = _configs(recipe, names, train_files.labels, spec)
    taught = Teachers(teachers, train_files.labels, spec, settings.device) if teachers else None
    with sole_writer(out):
        side = max(DECODED_SIDE, spec.size)
        answered = max(ANSWERED_SIDE, 2 * side)
        images = Images(
            decode_all(train_files, long_side=side, stream=settings.stream),
            decode_all(val_files, long_side=answered, stream=settings.stream),
            decode_all(list_images(outside), long_side=answered) if outside else None,
            decode_all(list_images(unknown), long_side=answered) if unknown else None,
        )
        backgrounds = decode_all(list_images([scenes]), long_side=side).images if scenes else ()
        report(
            f"{len(images.train.labels)} classes, {len(images.train.images)} training and "
            f"{len(images.val.images)} validation images, {len(images.skipped)} skipped"
        )
        check_images(images)
        init = init or recipe.init or None
        resuming = (out / STATE_FILE).is_file()
        models = build_models(recipe, names, train_files.labels, init=init, resuming=resuming, report=report)
        model: nn.Module = Together(models) if len(models) > 1 else models[names[0]]
        teacher = " and ".join(Path(source).name for source in teachers) or None
        identity = {"variant": variant, "data": f"{fingerprint(images.train)} {fingerprint(images.val)}"}
        if teacher:
            identity["teacher"] = teacher
        history = train(
            model,
            recipe,
            spec,
            images,
            out,
            settings,
            report,
            backgrounds=backgrounds,
            identity=identity,
            teachers=taught,
        )
        if rank() != 0:
            return out
        start = "pretrained backbone" if recipe.architecture.get(PRETRAINED) else "random"
        summary = summarize(
            recipe,
            history,
            images,
            settings,
            variants=names,
            init=Path(init).name if init else start,
            teacher=teacher,
        )
        record = {**training_record(summary), "calibrated_on": fingerprint(val_files)}
        configs = {name: replace(config, training=record) for name, config in configs.items()}
        story = Story(" ".join(recipe.about.split()), training_command(recipe, variant))
        finish(models, configs, out, images, story, settings.device, engine=settings.engine)
        report(f"wrote {out}")
        write_summary(summary, out)
        for line in summary_lines(summary):
            report(line)
    return out


def _configs(
    recipe: Recipe, names: Sequence[str], labels: tuple[str, ...], spec: InputSpec
) -> dict[str, CheckpointConfig]:
    """What the checkpoint will say of each variant, checked as far as it is known before the run."""
    if odd := sorted(set(recipe.words) - set(WORDS)):
        raise TrainingError(f"Recipe key 'words.{odd[0]}' is unknown; use {', '.join(WORDS)}.")
    configs = {
        name: CheckpointConfig(
            task=replace(new_task(recipe.task), **recipe.words),  # type: ignore[arg-type]
            family=recipe.family,
            variant=name,
            architecture=plain_architecture(recipe),
            labels=labels,
            input=spec,
            license=recipe.license,
        )
        for name in names
    }
    for size in {spec.size, *(recipe.size_at(epoch) for epoch in range(recipe.epochs))}:
        for config in configs.values():
            empty_model(replace(config, input=replace(spec, size=size)), f"Recipe {recipe.name}")
    # Raises as writing it in the end would; the files are yet to come.
    config_bytes(
        [replace(config, files=(WeightsFile("later.safetensors", "0" * 64),)) for config in configs.values()]
    )
    return configs


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
