"""What a model costs, judged on shapes alone: before memory is taken for it and before anything is computed.

A config may come from a stranger, and numbers that are each within their range can ask for terabytes, or for
hours, together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from pawmatch.checkpoint.config import CheckpointConfig
from pawmatch.errors import BadOption, NotACheckpoint, UnsupportedBackbone
from pawmatch.models import Hybrid, ImageModel, build_model
from pawmatch.models.backbone import NoInit, check_map
from pawmatch.models.compiler import without_compiler

MAX_PARAMETERS = 2**30  # of one model; the largest ConvNeXt V2 has 660 million
# Of one image. The largest ConvNeXt V2 at 384 pixels makes 1.4e9 numbers by 6.8e11 operations.
MAX_OPERATIONS = 10**12  # multiplications and additions; ten seconds or more of two cores
MAX_NUMBERS = 2**33  # in all tensors together
# In the largest tensor: so many for each pixel, of which a batch has a million or two, but for small inputs.
MAX_PER_PIXEL, MIN_LARGEST, MAX_LARGEST = 256, 2**24, 2**27


class Cost(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what is computed meanwhile: numbers in the largest tensor, in all together, and operations."""

    largest = total = operations = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, Tensor):
                self.largest = max(self.largest, tensor.numel())
                self.total += tensor.numel()
        if count := flop_registry.get(func._overloadpacket):
            self.operations += count(*args, **(kwargs or {}), out_val=made)
        return made


def empty_model(config: CheckpointConfig, source: str) -> ImageModel:
    """The model that `config` describes, on the meta device: shapes without memory.

    Raises NotACheckpoint where it has too many parameters, or would compute too much for the declared input,
    and where the scope gates do not fit it; UnsupportedBackbone and what `build` raises.
    """
    with torch.device("meta"), without_compiler():
        with NoInit():
            model = build(config, source).eval()
        count = sum(parameter.numel() for parameter in model.parameters())
        if count > MAX_PARAMETERS:
            raise _too_much(source, f"has {count:,} parameters", MAX_PARAMETERS)
        channels = _check_cost(model, config, source)
    for index, gate in enumerate(config.calibration.scope_gates):
        if len(gate.weight) != channels:
            raise NotACheckpoint(
                f"{source}: calibration.scope_gates[{index}].weight has {len(gate.weight)} values "
                f"and the feature map {channels} channels; fit the gate again."
            )
    return model


def _check_cost(model: ImageModel, config: CheckpointConfig, source: str) -> int:
    """Raise NotACheckpoint for more work than is accepted; gives the number of channels of the map."""
    size = config.input.size
    try:
        # Attention in its plain form, which makes the matrix of weights that others hide.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), Cost() as cost:  # type: ignore[no-untyped-call]
            feature_map = model.forward_features(torch.empty(1, 3, size, size))
            if isinstance(model, Hybrid):
                channels = int(model.backbone.num_features)  # type: ignore[arg-type]
                check_map(str(config.architecture.get("backbone")), feature_map, channels)
            model.forward_head(feature_map)
    except UnsupportedBackbone:
        raise
    # Whatever a network stumbles over in values that it was not written for.
    except Exception as exc:
        raise NotACheckpoint(f"{source}: the model cannot read images of input.size {size} pixels.") from exc
    for made, limit, words in (
        (cost.largest, min(MAX_LARGEST, max(MIN_LARGEST, MAX_PER_PIXEL * size**2)), "numbers at once"),
        (cost.total, MAX_NUMBERS, "numbers"),
        (cost.operations, MAX_OPERATIONS, "operations"),
    ):
        if made > limit:
            raise _too_much(source, f"takes {made:,} {words} for an image of input.size {size}", limit)
    return int(feature_map.shape[1])


def _too_much(source: str, what: str, limit: int) -> NotACheckpoint:
    return NotACheckpoint(f"{source}: the architecture in config.json {what}; {limit:,} are the limit.")


def build(config: CheckpointConfig, source: str) -> ImageModel:
    """The model that `config` describes; raises NotACheckpoint for a value out of its range."""
    try:
        return build_model(
            family=config.family,
            variant=config.variant,
            num_classes=len(config.labels),
            **config.architecture,
        )
    except BadOption as exc:
        raise NotACheckpoint(f"{source}: the architecture in config.json does not work: {exc}") from exc
