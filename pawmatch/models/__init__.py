"""The architectures: two families, three variants each, built from plain config values."""

from __future__ import annotations

from typing import Any

from pawmatch.errors import BadOption, UnknownVariant
from pawmatch.models.backbone import VARIANTS, ImageModel
from pawmatch.models.chae import Chae, ChaeConfig
from pawmatch.models.hybrid import Hybrid, HybridConfig
from pawmatch.strict import Refused, decode

FAMILIES: dict[str, tuple[type[ImageModel], type[Any]]] = {
    "hybrid": (Hybrid, HybridConfig),
    "chae": (Chae, ChaeConfig),
}
MAX_CLASSES = 20_000

__all__ = ["FAMILIES", "MAX_CLASSES", "VARIANTS", "Chae", "Hybrid", "ImageModel", "build_model"]


def build_model(*, family: str, variant: str, num_classes: int, **config: Any) -> ImageModel:
    """Build a model with random weights from the values that a checkpoint's config holds.

    Raises BadOption for an unknown family, an unknown config value or one out of its range, UnknownVariant
    and UnsupportedBackbone as their names say.
    """
    if family not in FAMILIES:
        raise BadOption(f"Family {family!r} is unknown; use one of {', '.join(FAMILIES)}.")
    if variant not in VARIANTS:
        raise UnknownVariant(f"Variant {variant!r} is unknown; use one of {', '.join(VARIANTS)}.")
    if type(num_classes) is not int or not 1 <= num_classes <= MAX_CLASSES:
        raise BadOption(f"num_classes is {num_classes!r}; a classifier needs 1 to {MAX_CLASSES:,} classes.")
    network, kind = FAMILIES[family]
    try:
        values = decode(kind, config, optional=None)
    except Refused as exc:
        raise BadOption(exc.sentence(f"The architecture of family {family}")) from exc
    return network(values, variant=variant, num_classes=num_classes)
