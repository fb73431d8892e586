"""Engines by name, and engine="auto": what suits the processor and agrees with torch in float32.

The choice depends on the processor, on what is installed and on the model, never on the clock: what is
written down must not change with how busy a machine is. Each candidate must show on a few pictures that it
gives torch's answers and heatmaps.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pawmatch.engines import openvino
from pawmatch.engines.openvino import OpenVinoEngine
from pawmatch.engines.torch import Engine, TorchEngine, has_bfloat16
from pawmatch.errors import BadOption
from pawmatch.heatmaps import evidence, run_head
from pawmatch.images import InputSpec
from pawmatch.models import ImageModel
from pawmatch.models.compiler import without_compiler
from pawmatch.settings import on_lent_gpu

log = logging.getLogger(__name__)

ENGINES = ("auto", "torch", "torch-compile", "openvino")
PRECISIONS = ("float32", "bfloat16")
PICTURES = 4
MIN_CORRELATION = 0.99  # of each heatmap with that of torch in float32
MIN_FLOPS = 10**8  # of a picture: less leaves nothing to gain that a user would notice


class Outcome(NamedTuple):
    """What a head makes of feature maps: classes (N,) and heatmaps (N, h * w) of those classes."""

    top: Tensor
    maps: Tensor


def create_engine(name: str, models: Sequence[ImageModel], device: str, spec: InputSpec) -> Engine:
    """The engine `name` for models that are on `device` and share one feature extractor, the first model's.

    "auto" takes OpenVINO on a CPU where it is installed, else torch; "torch-compile" pays on a GPU. A name
    may end in a precision, "openvino bfloat16", which leaves nothing to choose; else "auto" and "openvino"
    take bfloat16 where the processor has units for it and the answers agree. Raises BadOption for an engine
    that does not exist, is not installed, or cannot run the model.
    """
    kind, _, precision = name.partition(" ")
    if kind not in ENGINES or (precision and (kind == "auto" or precision not in PRECISIONS)):
        raise BadOption(f"Engine {name!r} is unknown; use one of {', '.join(ENGINES)}.")
    if kind == "auto":
        return choose_engine(models, device, spec, candidates(device))
    if kind != "openvino":
        compiled = kind == "torch-compile"
        return TorchEngine(models[0], device, precision=precision or "float32", compiled=compiled)
    if torch.device(device).type != "cpu":
        raise BadOption(
            f"The openvino engine runs on the CPU, not on {device}; give device cpu or engine torch."
        )
    if not openvino.is_installed():
        raise BadOption("Engine 'openvino' needs a package; run `pip install openvino`, or use engine torch.")
    if not precision and has_bfloat16(device):
        chosen = choose_engine(models, device, spec, ["openvino bfloat16"])
        if isinstance(chosen, OpenVinoEngine):
            return chosen
    try:
        return _made(f"openvino {precision or 'float32'}", models[0], device, spec)
    # The library raises RuntimeError and its own kinds for what it cannot translate.
    except Exception as exc:
        raise BadOption(f"OpenVINO cannot run this model ({type(exc).__name__}); use engine torch.") from exc


def _made(name: str, model: ImageModel, device: str, spec: InputSpec) -> Engine:
    """The engine of a name that ends in a precision; what openvino raises is not translated."""
    kind, _, precision = name.partition(" ")
    if kind == "openvino":
        return OpenVinoEngine(model, spec.size, precision=precision, folder=openvino.default_folder())
    return TorchEngine(model, device, precision=precision)


def candidates(device: str) -> list[str]:
    """What "auto" prefers to torch in float32 on a device, the best first, by name and precision."""
    if on_lent_gpu():
        return []  # nothing can be tried before a request brings the GPU
    precisions = ["bfloat16"] if has_bfloat16(device) else []
    if torch.device(device).type == "cpu" and openvino.is_installed():
        return [f"openvino {precision}" for precision in [*precisions, "float32"]]
    return [f"torch {precision}" for precision in precisions]


def choose_engine(models: Sequence[ImageModel], device: str, spec: InputSpec, names: Sequence[str]) -> Engine:
    """The first of `names` that agrees with torch for models of one feature extractor, else torch itself.

    Says in one line of the log what was chosen and why, unless there was nothing to choose from.
    """
    plain = TorchEngine(models[0], device)
    if not names:
        return plain
    images = pictures(spec)
    with without_compiler(), FlopCounterMode(display=False) as counter:
        reference = in_pairs(plain, images)
    if counter.get_total_flops() < MIN_FLOPS * len(images):
        return plain
    expected = [outcome(model, reference) for model in models]
    refusals: list[str] = []
    for name in names:
        try:
            engine = _made(name, models[0], device, spec)
            feature_map = in_pairs(engine, images).to(reference.device)
            problem = disagreement(expected, [outcome(model, feature_map) for model in models])
        # Whatever a foreign library stumbles over must not keep the service from starting.
        except Exception as exc:
            log.debug("The engine %s failed.", name, exc_info=True)
            problem = f"failed ({type(exc).__name__})"
        if problem is None:
            log.info("Engine: %s, in agreement with torch.", name)
            return engine
        refusals.append(f"{name} {problem}")
    log.warning("Engine: torch, since %s.", ", ".join(refusals))
    return plain


def pictures(spec: InputSpec) -> Tensor:
    """Pictures of soft colored patches, always the same, as the model takes them: (N, 3, size, size)."""
    patches = torch.rand(PICTURES, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(patches, size=(spec.size, spec.size), mode="bilinear")
    return spec.normalise((255 * smooth).to(torch.uint8).permute(0, 2, 3, 1))


def in_pairs(engine: Engine, images: Tensor) -> Tensor:
    """Feature maps of images, two at a time: memory for the largest batch ever is kept, 11 MB an image."""
    return torch.cat([engine.features(image) for image in torch.split(images, 2)])


def outcome(model: ImageModel, feature_map: Tensor) -> Outcome:
    """The classes that a model chooses from feature maps (N, C, h, w), and their heatmaps, not scaled."""
    head = run_head(model, feature_map)
    top = head.logits.argmax(dim=1)
    return Outcome(top, evidence(head, top).flatten(1))


def disagreement(expected: Sequence[Outcome], found: Sequence[Outcome]) -> str | None:
    """What differs between two engines' outcomes, in words, or None."""
    for wanted, given in zip(expected, found, strict=True):
        if not torch.equal(wanted.top, given.top):
            return "gives other answers"
        for one, other in zip(wanted.maps, given.maps, strict=True):
            if torch.allclose(one, other, rtol=1e-3):
                continue  # maps of a single value have no correlation
            correlation = float(torch.corrcoef(torch.stack([one, other]))[0, 1])
            if not correlation >= MIN_CORRELATION:  # NaN, too, is no agreement
                return f"gives other heatmaps (correlation {correlation:.3f})"
    return None


def resolve_device(name: str, engine: str = "auto") -> str:
    """The torch device for `name`; "auto" takes a CUDA device where there is one and the engine uses it.

    Raises BadOption for a device that is none of cpu, cuda and cuda:N, or that this machine does not have.
    """
    if on_lent_gpu() and name in ("auto", "cuda"):
        return "cpu"  # until a request brings the GPU, CUDA must not be asked for anything
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return "cuda" if count and engine.partition(" ")[0] != "openvino" else "cpu"
    if not re.fullmatch(r"cpu|cuda(:\d{1,3})?", name):
        raise BadOption(f"Device {name!r} is unknown; use auto, cpu, cuda or cuda:1.")
    if name != "cpu" and int(name.partition(":")[2] or 0) >= count:
        found = f"{count} CUDA device{'s' * (count > 1)}" if count else "no CUDA device"
        raise BadOption(f"Device {name!r} was asked for, and {found} can be used here; use auto or cpu.")
    return name
