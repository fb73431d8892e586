"""The architectures: two families, three variants each, built from plain config values."""

from __future__ import annotations

from typing import Any

from pawmatch.errors import BadOption
from pawmatch.models.backbone import VARIANTS, ImageModel
from pawmatch.models.chae import Chae
from pawmatch.models.hybrid import Hybrid

FAMILIES: dict[str, type[Hybrid] | type[Chae]] = {"hybrid": Hybrid, "chae": Chae}

__all__ = ["FAMILIES", "VARIANTS", "Chae", "Hybrid", "ImageModel", "build_model"]


def build_model(*, family: str, variant: str, num_classes: int, **config: Any) -> ImageModel:
    """Build a model with random weights from the values that a checkpoint's config holds.

    Raises BadOption for an unknown family, an unknown config value or an impossible one,
    UnknownVariant and UnsupportedBackbone as their names say.
    """
    if family not in FAMILIES:
        raise BadOption(f"Family {family!r} is unknown; use one of {', '.join(FAMILIES)}.")
    if num_classes < 1:
        raise BadOption(f"num_classes is {num_classes}; a classifier needs at least one class.")
    try:
        return FAMILIES[family](variant=variant, num_classes=num_classes, **config)
    except TypeError as exc:
        raise BadOption(f"The {family} family does not take these values: {exc}.") from exc
