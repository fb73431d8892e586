"""Where the weights of a run start from: random values, the Hub's pretrained ones, or a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file
from torch import nn

from pawmatch.checkpoint import load_checkpoint
from pawmatch.checkpoint.weights import WEIGHTS_FILE
from pawmatch.errors import HubError, HubUnavailable, TrainingError
from pawmatch.hub import HubSource, fetch
from pawmatch.models import ImageModel, build_model
from pawmatch.training.recipe import Recipe
from pawmatch.training.unfreezing import feature_extractor

PRETRAINED = "pretrained_backbone"  # in a recipe's architecture; a checkpoint's config may not have it


def build_models(
    recipe: Recipe,
    names: tuple[str, ...],
    classes: int,
    *,
    init: str | None,
    resuming: bool,
    report: Callable[[str], None],
) -> dict[str, ImageModel]:
    """The variants to train, by name.

    Tensors of `init`, a checkpoint or a folder with one per variant, replace those that agree with them.
    A run that resumes downloads nothing. Raises HubUnavailable if pretrained weights cannot be had, and
    TrainingError if there are none or they do not fit.
    """
    torch.manual_seed(recipe.seed)
    values = plain_architecture(recipe)
    models = {
        name: build_model(family=recipe.family, variant=name, num_classes=classes, **values) for name in names
    }
    if recipe.architecture.get(PRETRAINED) and not resuming:
        first = models[names[0]]  # variants that train together share its backbone
        source = load_pretrained(feature_extractor(first), str(values.get("backbone")))
        report(f"the backbone starts from {source}")
    if init is not None:
        for name, model in models.items():
            own = Path(init) / name
            source = str(own) if (own / WEIGHTS_FILE).is_file() else init
            share = take_over(model, load_checkpoint(source).model)
            report(f"{name}: {share:.0%} of the parameters start from {source}")
    return models


def load_pretrained(backbone: nn.Module, name: str) -> str:
    """Load timm's pretrained weights of the network `name`; returns the place on the Hub they are from.

    timm can do it too, but waits and warns for a minute where the Hub is away, and takes pickles.
    """
    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if config is None or not config.hf_hub_id:
        raise TrainingError(
            f"timm has no pretrained weights for {name}; use --set architecture.{PRETRAINED}=false."
        )
    place = HubSource(config.hf_hub_id)
    try:
        folder, _ = fetch(place, [WEIGHTS_FILE])
    except HubError as exc:
        raise HubUnavailable(
            f"The pretrained weights of {name} could not be had from the Hub; check the connection, or "
            f"start from random ones with --set architecture.{PRETRAINED}=false."
        ) from exc
    if take_over(backbone, load_file(folder / WEIGHTS_FILE)) < 1:
        raise TrainingError(
            f"The pretrained weights of {name} do not fit its backbone_config; change that, or use "
            f"--set architecture.{PRETRAINED}=false."
        )
    return str(place)


def take_over(model: nn.Module, source: nn.Module | dict[str, torch.Tensor]) -> float:
    """Copy every tensor whose name and shape agree into `model`; returns the share of values taken.

    Counters are not counted: weights from elsewhere may come without them.
    """
    theirs = source.state_dict() if isinstance(source, nn.Module) else source
    ours = model.state_dict()
    shared = {
        key: theirs[key] for key, value in ours.items() if key in theirs and theirs[key].shape == value.shape
    }
    model.load_state_dict(shared, strict=False)
    taken, everything = (
        sum(value.numel() for value in tensors.values() if value.is_floating_point())
        for tensors in (shared, ours)
    )
    return float(taken / everything)


def plain_architecture(recipe: Recipe) -> dict[str, object]:
    """The recipe's architecture as a checkpoint holds it: nothing in it asks for a download."""
    return {key: value for key, value in recipe.architecture.items() if key != PRETRAINED}
