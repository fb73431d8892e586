"""What every architecture offers: a network cut in two at its last map, and timm's CNNs below the cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import torch
from annotated_types import Interval, Len
from pydantic import AfterValidator
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pawmatch.errors import UnsupportedBackbone
from pawmatch.models.compiler import without_compiler

with without_compiler():
    import timm


class Parts(NamedTuple):
    """Which modules a variant has beside feature extractor and classifier."""

    attention: bool
    morphology: bool


VARIANTS: dict[str, Parts] = {
    "cnn": Parts(attention=False, morphology=False),
    "cnn_transformer": Parts(attention=True, morphology=False),
    "cnn_transformer_mfe": Parts(attention=True, morphology=True),
}

# By which timm's and torch's initializers draw values.
FILLS = {Tensor.normal_, Tensor.uniform_, Tensor.erfinv_, Tensor.clamp_, Tensor.fill_, Tensor.zero_}
MAX_LAYERS = 80  # each costs time to build, even where only shapes are computed


def _few(layers: tuple[int, ...]) -> tuple[int, ...]:
    if sum(layers) > MAX_LAYERS:
        raise ValueError(f"asks for more than {MAX_LAYERS} layers")
    return layers


Width = Annotated[int, Interval(ge=1, le=8_192)]
Widths = Annotated[tuple[Width, ...], Len(1, 16)]
Layers = Annotated[
    tuple[Annotated[int, Interval(ge=1, le=MAX_LAYERS)], ...], Len(1, 16), AfterValidator(_few)
]


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Arguments by which the shape of a CNN of timm's differs from its default; None leaves it as it is.

    A config from a stranger must not reach those that make timm download or unpickle a file.
    """

    avg_down: bool | None = None
    channels: Widths | None = None
    depths: Layers | None = None
    dims: Widths | None = None
    drop_path_rate: Annotated[float, Interval(ge=0, lt=1)] | None = None
    layers: Layers | None = None
    output_stride: Literal[8, 16, 32] | None = None
    stem_type: Literal["", "deep", "deep_tiered"] | None = None
    stem_width: Width | None = None


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


def create_backbone(name: str, config: BackboneConfig | None = None) -> nn.Module:
    """Create timm's CNN `name` with random weights and without its classifier.

    Raises UnsupportedBackbone if timm does not know the name, or if the network's last feature map is
    not (N, C, h, w), at which nobody looks within the meta device.
    """
    options = {key: value for key, value in vars(config or BackboneConfig()).items() if value is not None}
    if ":" in name or not timm.is_model(name):
        raise UnsupportedBackbone(
            f"timm knows no model named {name[:64]!r}; pick a CNN that timm.list_models() names."
        )
    shapes_only = torch.empty(0).device.type == "meta"
    try:
        # The meta device computes shapes only: a look at the map costs no arithmetic.
        with torch.device("meta"), NoInit(), without_compiler():
            probe: Any = timm.create_model(name, num_classes=0, **options).eval()
            if not shapes_only:
                size = probe.pretrained_cfg.get("input_size", (3, 224, 224))
                check_map(name, probe.forward_features(torch.empty(1, *size)), probe.num_features)
    except UnsupportedBackbone:
        raise
    # Whatever timm stumbles over in arguments that it was not written for.
    except Exception as exc:
        raise UnsupportedBackbone(
            f"Backbone {name!r} cannot be built with {options or 'its defaults'}; "
            "use a timm CNN such as convnextv2_base."
        ) from exc
    backbone: nn.Module = probe.train() if shapes_only else timm.create_model(name, num_classes=0, **options)
    return backbone


def check_map(name: str, feature_map: object, channels: int) -> None:
    """Raise UnsupportedBackbone unless what a backbone gave is a map (N, C, h, w) of so many channels."""
    if not isinstance(feature_map, Tensor) or feature_map.ndim != 4 or feature_map.shape[1] != channels:
        raise UnsupportedBackbone(
            f"Backbone {name!r} gives no (N, C, h, w) feature map; "
            "use a CNN such as convnextv2_base, not a vision transformer."
        )


class NoInit(TorchFunctionMode):
    """Leaves out random initial values: on the meta device they cost time, and most of it, for nothing."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if getattr(func, "__module__", None) == "torch.nn.init" or func in FILLS:
            return args[0] if args else given["tensor"]
        return func(*args, **given)
