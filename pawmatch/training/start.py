"""Where the weights of a run start from: random values, the Hub's pretrained ones, or a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from pawmatch.checkpoint import load_checkpoint
from pawmatch.checkpoint.weights import WEIGHTS_FILE
from pawmatch.errors import HubUnavailable, PawMatchError
from pawmatch.models import ImageModel, build_model
from pawmatch.training.recipe import Recipe

PRETRAINED = "pretrained_backbone"  # of an architecture; a checkpoint's config may not have it


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
    A run that resumes downloads nothing. Raises HubUnavailable if pretrained weights cannot be had.
    """
    torch.manual_seed(recipe.seed)
    models: dict[str, ImageModel] = {}
    for name in names:
        # Variants that train together share the first one's backbone.
        pretrained = bool(recipe.architecture.get(PRETRAINED)) and not resuming and not models
        models[name] = _build(recipe, name, classes, pretrained=pretrained)
        if pretrained:
            report(f"{name}: the backbone starts from timm's pretrained weights")
    if init is not None:
        for name, model in models.items():
            own = Path(init) / name
            source = str(own) if (own / WEIGHTS_FILE).is_file() else init
            share = take_over(model, load_checkpoint(source).model)
            report(f"{name}: {share:.0%} of the parameters start from {source}")
    return models


def take_over(model: nn.Module, source: nn.Module) -> float:
    """Copy every tensor whose name and shape agree into `model`; returns the share of values taken."""
    theirs, ours = source.state_dict(), model.state_dict()
    shared = {
        key: theirs[key] for key, value in ours.items() if key in theirs and theirs[key].shape == value.shape
    }
    model.load_state_dict(shared, strict=False)
    taken = sum(value.numel() for value in shared.values())
    return float(taken / sum(value.numel() for value in ours.values()))


def plain_architecture(recipe: Recipe) -> dict[str, object]:
    """The recipe's architecture as a checkpoint holds it: nothing in it asks for a download."""
    return {key: value for key, value in recipe.architecture.items() if key != PRETRAINED}


def _build(recipe: Recipe, name: str, classes: int, *, pretrained: bool) -> ImageModel:
    values = plain_architecture(recipe)
    if not pretrained:
        return build_model(family=recipe.family, variant=name, num_classes=classes, **values)
    try:
        return build_model(
            family=recipe.family, variant=name, num_classes=classes, pretrained_backbone=True, **values
        )
    except PawMatchError:
        raise
    except Exception as exc:  # timm passes on whatever the Hub's library and its HTTP client raise
        raise HubUnavailable(
            f"The pretrained weights of {values.get('backbone')} could not be had from the Hub; check the "
            f"connection, or start from random ones with --set architecture.{PRETRAINED}=false."
        ) from exc
