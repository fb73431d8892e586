"""Engines run the costly `forward_features`; the head, and so the heatmap, always runs in torch."""

from pawmatch.engines.choose import ENGINES, create_engine, resolve_device
from pawmatch.engines.torch import Engine, limit_torch_threads

__all__ = ["ENGINES", "Engine", "create_engine", "limit_torch_threads", "resolve_device"]
