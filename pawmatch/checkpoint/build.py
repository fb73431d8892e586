"""The model that a config describes, built so that every failure is the config's fault."""

from __future__ import annotations

import torch
from torch import nn

from pawmatch.checkpoint.config import CheckpointConfig
from pawmatch.errors import BadOption, NotACheckpoint, UnsupportedBackbone
from pawmatch.models import ImageModel, build_model


def empty_model(config: CheckpointConfig, source: str) -> ImageModel:
    """The model that `config` describes, on the meta device: shapes without memory.

    Also checks the scope gate and the input size against it.
    """
    with torch.device("meta"):
        model = build(config, source)
        size = config.input.size
        try:
            with torch.no_grad():
                feature_map = model.eval().forward_features(torch.empty(1, 3, size, size))
        except (RuntimeError, ValueError) as exc:
            raise NotACheckpoint(
                f"{source}: the model cannot read images of input.size {size} pixels."
            ) from exc
    for index, gate in enumerate(config.calibration.scope_gates):
        if len(gate.weight) != feature_map.shape[1]:
            raise NotACheckpoint(
                f"{source}: calibration.scope_gates[{index}].weight has {len(gate.weight)} values "
                f"and the feature map {feature_map.shape[1]} channels; fit the gate again."
            )
    return model


def build(config: CheckpointConfig, source: str) -> ImageModel:
    """The model that `config` describes; every failure to build it is the config's fault."""
    try:
        return build_model(
            family=config.family,
            variant=config.variant,
            num_classes=len(config.labels),
            **config.architecture,
        )
    except UnsupportedBackbone:
        raise
    except (BadOption, ArithmeticError, AssertionError, AttributeError) as exc:
        raise refused(source, exc) from exc
    except (LookupError, RuntimeError, TypeError, ValueError) as exc:
        raise refused(source, exc) from exc


def refused(source: str, exc: Exception) -> NotACheckpoint:
    """The error for an architecture that cannot be built."""
    reason = str(exc) if isinstance(exc, BadOption) else f"it cannot be built ({type(exc).__name__})."
    return NotACheckpoint(f"{source}: the architecture in config.json does not work: {reason}")


def derived_buffers(model: nn.Module) -> list[str]:
    """Names of the buffers that are computed when a model is built and so are in no weights file."""
    kept = model.state_dict().keys()
    return [name for name, _ in model.named_buffers() if name not in kept]
