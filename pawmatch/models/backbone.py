"""What every architecture offers: a network cut in two at its last map, and timm's CNNs below the cut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import timm
import torch
from torch import Tensor, nn

from pawmatch.errors import BadOption, UnsupportedBackbone


class Parts(NamedTuple):
    """Which modules a variant has beside backbone and classifier."""

    attention: bool
    morphology: bool


VARIANTS: dict[str, Parts] = {
    "cnn": Parts(attention=False, morphology=False),
    "cnn_transformer": Parts(attention=True, morphology=False),
    "cnn_transformer_mfe": Parts(attention=True, morphology=True),
}

# Shape arguments of timm's CNNs. A config from a stranger must not reach the arguments that make timm
# download or unpickle a file.
BACKBONE_ARGUMENTS = frozenset(
    {
        "avg_down",
        "channels",
        "depths",
        "dims",
        "drop_path_rate",
        "layers",
        "output_stride",
        "stem_type",
        "stem_width",
    }
)


class ImageModel(nn.Module):
    """A classifier cut in two at its last feature map."""

    features_module: ClassVar[str]  # attribute that holds all parameters of forward_features
    feature_dim: int  # width of the pooled feature vector

    def features(self) -> nn.Module:
        """The module that holds all parameters of `forward_features`."""
        module: nn.Module = getattr(self, self.features_module)
        return module

    def forward_features(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> feature map (N, C, h, w): the costly part."""
        raise NotImplementedError

    def forward_head(self, feature_map: Tensor) -> Tensor:
        """Feature map (N, C, h, w) -> logits (N, classes): cheap and differentiable."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> logits (N, classes)."""
        return self.forward_head(self.forward_features(images))


def create_backbone(name: str, arguments: Mapping[str, Any] | None = None) -> nn.Module:
    """Create timm's CNN `name` with random weights and without its classifier.

    Raises UnsupportedBackbone if timm does not know the name, or if the network's last feature map is
    not (N, C, h, w); raises BadOption for an argument outside BACKBONE_ARGUMENTS.
    """
    options = dict(arguments or {})
    if unknown := sorted(set(options) - BACKBONE_ARGUMENTS):
        known = ", ".join(sorted(BACKBONE_ARGUMENTS))
        raise BadOption(f"Backbone argument {unknown[0]!r} is not accepted; use one of {known}.")
    if not isinstance(name, str) or ":" in name or not timm.is_model(name):
        raise UnsupportedBackbone(
            f"timm knows no model named {name!r}; pick a CNN that timm.list_models() names."
        )
    try:
        # The meta device computes shapes only: a look at the map costs no arithmetic.
        with torch.device("meta"):
            probe: Any = timm.create_model(name, num_classes=0, **options).eval()
            image = torch.empty(1, *probe.pretrained_cfg.get("input_size", (3, 224, 224)))
            feature_map = probe.forward_features(image)
    except (RuntimeError, TypeError, ValueError, AttributeError, AssertionError) as exc:
        raise UnsupportedBackbone(
            f"Backbone {name!r} cannot be built with {options or 'its defaults'}; "
            "use a timm CNN such as convnextv2_base."
        ) from exc
    is_nchw = (
        isinstance(feature_map, Tensor)
        and feature_map.ndim == 4
        and feature_map.shape[1] == probe.num_features
    )
    if not is_nchw:
        raise UnsupportedBackbone(
            f"Backbone {name!r} gives no (N, C, h, w) feature map; "
            "use a CNN such as convnextv2_base, not a vision transformer."
        )
    backbone: nn.Module = timm.create_model(name, num_classes=0, **options)
    return backbone
