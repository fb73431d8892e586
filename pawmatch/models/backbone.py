"""What every architecture offers: a network cut in two at its last map, and timm's CNNs below the cut."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn

from pawmatch.errors import BadOption, UnsupportedBackbone


class Parts(NamedTuple):
    """Which modules a variant has beside feature extractor and classifier."""

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
LAYER_COUNTS = ("depths", "layers")
MAX_WIDTH = 8_192
MAX_STAGES = 16
MAX_LAYERS = 80  # each costs time to build, even where only shapes are computed: 512 took a minute


class ImageModel(nn.Module):
    """A classifier cut in two at its last feature map: all that prediction and explanation use of one."""

    feature_dim: int  # width of the pooled feature vector

    def features(self) -> nn.Module:
        """The module that holds all parameters of `forward_features`."""
        raise NotImplementedError

    @property
    def features_module(self) -> str:
        """The attribute that `features` is, with which the names of its tensors begin."""
        own = self.features()
        return next(name for name, child in self.named_children() if child is own)

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
    not (N, C, h, w); raises BadOption for an argument outside BACKBONE_ARGUMENTS or out of its range.
    """
    options = dict(arguments or {})
    check_arguments(options)
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
    # Whatever timm stumbles over in arguments that it was not written for.
    except Exception as exc:
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
    shapes_only = torch.empty(0).device.type == "meta"
    backbone: nn.Module = probe.train() if shapes_only else timm.create_model(name, num_classes=0, **options)
    return backbone


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Raise BadOption, naming it, for a backbone argument that is unknown or that no sensible CNN has."""
    if unknown := sorted(set(arguments) - BACKBONE_ARGUMENTS):
        known = ", ".join(sorted(BACKBONE_ARGUMENTS))
        raise BadOption(f"Backbone argument {unknown[0]!r} is not accepted; use one of {known}.")
    for key, value in arguments.items():
        entries = value if isinstance(value, list | tuple) else [value]
        if len(entries) > MAX_STAGES:
            raise BadOption(f"Backbone argument {key} has more than {MAX_STAGES} entries.")
        for entry in entries:
            is_number = isinstance(entry, int | float) and 0 <= entry <= MAX_WIDTH
            if not is_number and not (isinstance(entry, str) and len(entry) <= 20):
                raise BadOption(f"Backbone argument {key} must hold numbers from 0 to {MAX_WIDTH:,}.")
        if key in LAYER_COUNTS and sum(n for n in entries if isinstance(n, int)) > MAX_LAYERS:
            raise BadOption(f"Backbone argument {key} asks for more than {MAX_LAYERS} layers.")
