"""Where the weights of a run start from: random values, the Hub's pretrained ones, or a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import timm
import torch
from safetensors.torch import load_file
from torch import nn

from pawmatch.checkpoint import Checkpoint, load_checkpoint
from pawmatch.checkpoint.backbone import Backbone, backbone_folder, load_backbone
from pawmatch.checkpoint.hub import HubSource, fetch
from pawmatch.checkpoint.weights import WEIGHTS_FILE
from pawmatch.errors import HubError, HubUnavailable, TrainingError, UnknownVariant
from pawmatch.models import Hybrid, ImageModel, build_model
from pawmatch.training.recipe import Recipe

PRETRAINED = "pretrained_backbone"  # in a recipe's architecture; a checkpoint's config may not have it


def build_models(
    recipe: Recipe,
    names: tuple[str, ...],
    labels: Sequence[str],
    *,
    init: str | None,
    resuming: bool,
    report: Callable[[str], None],
) -> dict[str, ImageModel]:
    """The variants to train, by name.

    `init` is a pretrained backbone, or a checkpoint whose own variant, or else the one that answers, gives
    its tensors wherever they agree in name and shape. A run that resumes downloads nothing. Raises
    HubUnavailable if pretrained weights cannot be had, and TrainingError if there are none or they do not
    fit.
    """
    torch.manual_seed(recipe.seed)
    values = plain_architecture(recipe)
    models = {
        name: build_model(family=recipe.family, variant=name, num_classes=len(labels), **values)
        for name in names
    }
    if recipe.architecture.get(PRETRAINED) and not resuming:
        first = models[names[0]]  # variants that train together share its backbone
        source = load_pretrained(first.features(), str(values.get("backbone")))
        report(f"the backbone starts from {source}")
    folder = backbone_folder(init) if init is not None else None
    if init is not None and folder is not None:
        backbone = load_backbone(folder, init)
        for model in models.values():
            start_from_backbone(model, backbone, labels, seed=recipe.seed)
        report(f"the backbone starts from {init}")
    elif init is not None:
        for name, model in models.items():
            start = own_or_main(init, name)
            share = take_over(model, start.model)
            report(f"{name}: {share:.0%} of the parameters start from {init}, {start.config.variant}")
    return models


@torch.no_grad()
def start_from_backbone(model: ImageModel, backbone: Backbone, labels: Sequence[str], *, seed: int) -> None:
    """Give a hybrid the pretrained backbone and, of labels that ImageNet has, the head's own rows.

    The projection starts as an orthonormal basis whose first directions span those rows: what told the
    labels apart at the map's full width does so at the smaller one. Where the pooled vector reaches the
    classifier unchanged at the start, the classifier's rows are the head's. Raises TrainingError where the
    model has another network.
    """
    if not isinstance(model, Hybrid) or take_over(model.backbone, backbone.network) < 1:
        raise TrainingError(
            f"{backbone.source} is a {backbone.timm_name}; use --set architecture.backbone="
            f'"{backbone.timm_name}", or leave out --init.'
        )
    known = backbone.classes(labels)
    rows = backbone.head.weight[list(known.values())]
    rows = rows - rows.mean(dim=0)  # a vector added to all rows changes no answer
    if model.projection is not None:
        generator = torch.Generator().manual_seed(seed)
        weight = model.projection.weight
        assert isinstance(weight, torch.Tensor)
        width = weight.shape[0]
        directions = torch.linalg.svd(rows, full_matrices=False).Vh[: max(0, min(len(known) - 1, width))]
        filler = torch.randn(width - len(directions), weight.shape[1], generator=generator)
        basis = torch.linalg.qr(torch.cat([directions, filler]).T).Q.T
        basis[: len(directions)] = directions  # QR may turn a direction around
        weight.copy_(basis[:, :, None, None])
        rows = rows @ basis.T
    last = model.classifier[-1]
    assert isinstance(last, nn.Linear)
    unchanged = model.feature_fusion is None and (model.attention is None or model.tokens)
    if unchanged and last.in_features == rows.shape[1]:  # some networks widen the vector once more
        places = [index for index, label in enumerate(labels) if label in known]
        last.weight[places] = rows
        last.bias[places] = 0


def own_or_main(source: str, variant: str) -> Checkpoint:
    """The source's checkpoint of that variant, or else the one that answers."""
    try:
        return load_checkpoint(source, variant)
    except UnknownVariant:
        return load_checkpoint(source)


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
