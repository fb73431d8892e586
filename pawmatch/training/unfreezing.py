"""Progressive unfreezing: the head learns first, then the feature extractor, its last stages first."""

from __future__ import annotations

from itertools import chain

from timm.models._manipulate import group_with_matcher
from torch import nn

from pawmatch.models import ImageModel
from pawmatch.training.together import Together


def feature_extractor(model: nn.Module) -> nn.Module:
    """The module that holds all parameters of `forward_features`."""
    member = next(iter(model.variants().values())) if isinstance(model, Together) else model
    assert isinstance(member, ImageModel)
    return member.features()


def stages(features: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters of a feature extractor, stage by stage from the image on.

    timm knows the stages of its networks; those of a plain sequence are its members. What timm counts to
    no stage, such as a last norm, belongs to the head and is left out.
    """
    matcher = getattr(features, "group_matcher", None)
    if matcher is None:
        return [list(child.parameters()) for child in features.children()]
    nowhere = ("-", None)  # falls into the group of what matches no stage
    named = chain(features.named_parameters(), [nowhere])
    groups = group_with_matcher(named, matcher(coarse=True), return_values=True)
    return [group for _, group in sorted(groups.items()) if None not in group]


def train_stages(model: nn.Module, count: int | None) -> tuple[int, int]:
    """Let the last `count` stages of the feature extractor learn, None for all; the head always does.

    Returns how many learn, of how many.
    """
    everything = stages(feature_extractor(model))
    learning = len(everything) if count is None else min(count, len(everything))
    model.requires_grad_(True)
    for group in everything[: len(everything) - learning]:
        for parameter in group:
            parameter.requires_grad_(False)
    return learning, len(everything)


def training_mode(model: nn.Module) -> None:
    """Set training mode, except for frozen modules: their BatchNorm statistics stay as they are."""
    model.train()
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if own and not any(parameter.requires_grad for parameter in own):
            module.training = False  # this module alone, not what is in it
