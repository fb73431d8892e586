"""Engines run the costly `forward_features`; the head, and so the heatmap, always runs in torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pawmatch.engines import converted, openvino_engine
from pawmatch.engines.base import Engine
from pawmatch.engines.choose import choose_engine
from pawmatch.engines.openvino_engine import OpenVinoEngine
from pawmatch.engines.processor import limit_torch_threads
from pawmatch.engines.torch_engine import TorchEngine
from pawmatch.errors import BadOption
from pawmatch.images import InputSpec
from pawmatch.models import ImageModel

ENGINES = ("auto", "torch", "torch-compile", "openvino")
PRECISIONS = ("float32", "bfloat16")

__all__ = ["ENGINES", "Engine", "create_engine", "limit_torch_threads", "resolve_device"]


def create_engine(name: str, models: Sequence[ImageModel], device: str, spec: InputSpec) -> Engine:
    """The engine `name` for models that are on `device` and share one feature extractor, the first model's.

    "auto" picks one (pawmatch.engines.choose); "torch-compile" pays on a GPU. A name may end in a precision,
    "openvino bfloat16", which leaves nothing to choose. Raises BadOption for an engine that does not exist,
    is not installed, or cannot run the model.
    """
    kind, _, precision = name.partition(" ")
    if kind not in ENGINES or (precision and (kind == "auto" or precision not in PRECISIONS)):
        raise BadOption(f"Engine {name!r} is unknown; use one of {', '.join(ENGINES)}.")
    if kind == "auto":
        return choose_engine(models, device, spec)
    if kind == "openvino":
        return _openvino(models[0], device, spec, precision)
    compiled = kind == "torch-compile"
    return TorchEngine(models[0], device, precision=precision or "float32", compiled=compiled)


def _openvino(model: ImageModel, device: str, spec: InputSpec, precision: str) -> Engine:
    if torch.device(device).type != "cpu":
        raise BadOption(
            f"The openvino engine runs on the CPU, not on {device}; give device cpu or engine torch."
        )
    if not openvino_engine.is_installed():
        raise BadOption("Engine 'openvino' needs a package; run `pip install openvino`, or use engine torch.")
    precision = precision or ("bfloat16" if openvino_engine.has_fast_bfloat16() else "float32")
    try:
        return OpenVinoEngine(model, spec.size, precision=precision, folder=converted.default_folder())
    # The library raises RuntimeError and its own kinds for what it cannot translate.
    except Exception as exc:
        raise BadOption(f"OpenVINO cannot run this model ({type(exc).__name__}); use engine torch.") from exc


def resolve_device(name: str, engine: str = "auto") -> str:
    """The torch device for `name`; "auto" takes a CUDA device where there is one and the engine uses it.

    Raises BadOption for a device that this machine does not have.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() and engine != "openvino" else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as exc:
        raise BadOption(f"Device {name!r} is unknown; use auto, cpu or cuda.") from exc
    if device.type == "cuda" and not torch.cuda.is_available():
        raise BadOption("Device 'cuda' was asked for, and no CUDA device is here; use auto or cpu.")
    return name
