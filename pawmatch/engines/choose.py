"""engine="auto": the fastest engine that gives the answers and heatmaps of torch in float32.

What a processor says of itself is where the choice begins, not where it ends: each candidate must show on a
few pictures that it agrees with torch, and that it is faster here and now.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from pawmatch.engines import openvino
from pawmatch.engines.openvino import OpenVinoEngine
from pawmatch.engines.torch import Engine, TorchEngine, has_bfloat16
from pawmatch.errors import BadOption
from pawmatch.heatmaps import evidence, run_head
from pawmatch.images import InputSpec
from pawmatch.models import ImageModel
from pawmatch.settings import on_lent_gpu

log = logging.getLogger(__name__)

PICTURES = 4
LEAST_CORRELATION = 0.99  # of each heatmap with that of torch in float32
LEAST_GAIN = 1.1  # times as fast; a smaller gain is within what a busy machine makes up
ROUNDS = 5
TIMING_SECONDS = 2.0  # a slow model shows in fewer rounds what it takes
QUICK_SECONDS = 0.004  # a picture in less than this leaves nothing to gain that a user would notice


class Outcome(NamedTuple):
    """What a head makes of feature maps: classes (N,) and heatmaps (N, h * w) of those classes."""

    top: Tensor
    maps: Tensor


def choose_engine(models: Sequence[ImageModel], device: str, spec: InputSpec) -> Engine:
    """The engine for models that share one feature extractor, the first model's.

    Says in one line of the log what was chosen and why, unless there was nothing to choose from.
    """
    plain = TorchEngine(models[0], device)
    rivals = dict(candidates(models[0], device, spec))
    if not rivals:
        return plain
    images = pictures(spec)
    seconds(plain, images[:1])
    if min(seconds(plain, images[:1]) for _ in range(3)) < QUICK_SECONDS:
        return plain
    reference = plain.features(images)
    expected = [outcome(model, reference) for model in models]
    refusals, level = [], logging.INFO
    for label, make in rivals.items():
        try:
            engine = make()
            feature_map = engine.features(images).to(reference.device)
            found = [outcome(model, feature_map) for model in models]
            if problem := disagreement(expected, found):
                refusals.append(f"{label} {problem}")
                level = logging.WARNING
                continue
            gain = speed_up(plain, engine, images[:1])
        # Whatever a foreign library stumbles over must not keep the service from starting.
        except Exception as exc:
            log.debug("The %s engine failed.", label, exc_info=True)
            refusals.append(f"{label} failed ({type(exc).__name__})")
            level = logging.WARNING
            continue
        if gain >= LEAST_GAIN:
            log.info("Engine: %s, %.1f times as fast as torch and in agreement with it.", label, gain)
            return engine
        refusals.append(f"{label} is no faster ({gain:.2f} times)")
    log.log(level, "Engine: torch, since %s.", ", ".join(refusals))
    return plain


def candidates(model: ImageModel, device: str, spec: InputSpec) -> Iterator[tuple[str, Callable[[], Engine]]]:
    """What may be faster than torch in float32 here, the likeliest first, each made when it is called."""
    if on_lent_gpu():
        return  # nothing can be tried before a request brings the GPU
    if torch.device(device).type == "cpu" and openvino.is_installed():
        for precision in ("bfloat16", "float32") if openvino.has_fast_bfloat16() else ("float32",):
            yield (
                f"openvino ({precision})",
                partial(
                    OpenVinoEngine,
                    model,
                    spec.size,
                    precision=precision,
                    folder=openvino.default_folder(),
                ),
            )
    if has_bfloat16(device):
        yield "torch (bfloat16)", partial(TorchEngine, model, device, precision="bfloat16")


def pictures(spec: InputSpec) -> Tensor:
    """Pictures of soft coloured patches, always the same, as the model takes them: (N, 3, size, size)."""
    patches = torch.rand(PICTURES, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(patches, size=(spec.size, spec.size), mode="bilinear")
    return spec.normalise((255 * smooth).to(torch.uint8).permute(0, 2, 3, 1))


def outcome(model: ImageModel, feature_map: Tensor, classes: Tensor | None = None) -> Outcome:
    """The classes that a model chooses from feature maps (N, C, h, w), and their heatmaps, not scaled.

    The maps are for `classes` (N,), or for the chosen ones.
    """
    head = run_head(model, feature_map)
    top = head.logits.argmax(dim=1)
    maps = evidence(head, top if classes is None else classes)
    return Outcome(top, maps.flatten(1))


def disagreement(expected: Sequence[Outcome], found: Sequence[Outcome]) -> str | None:
    """What differs between two engines' outcomes, in words, or None."""
    for wanted, given in zip(expected, found, strict=True):
        if not torch.equal(wanted.top, given.top):
            return "gives other answers"
        for one, other in zip(wanted.maps, given.maps, strict=True):
            if torch.allclose(one, other, rtol=1e-3):
                continue  # maps of a single value have no correlation
            correlation = float(torch.corrcoef(torch.stack([one, other]))[0, 1])
            if not correlation >= LEAST_CORRELATION:  # NaN, too, is no agreement
                return f"gives other heatmaps (correlation {correlation:.3f})"
    return None


def speed_up(plain: Engine, engine: Engine, images: Tensor) -> float:
    """How many times as fast as `plain` an engine is: the ratio of medians, taken in turns."""
    seconds(engine, images)
    times: list[tuple[float, float]] = []
    started = time.perf_counter()
    while len(times) < ROUNDS and (not times or time.perf_counter() - started < TIMING_SECONDS):
        times.append((seconds(plain, images), seconds(engine, images)))
    return statistics.median(one for one, _ in times) / statistics.median(other for _, other in times)


def seconds(engine: Engine, images: Tensor) -> float:
    """How long an engine takes, the map back on the CPU."""
    started = time.perf_counter()
    engine.features(images).cpu()
    return time.perf_counter() - started


ENGINES = ("auto", "torch", "torch-compile", "openvino")
PRECISIONS = ("float32", "bfloat16")


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
    if not openvino.is_installed():
        raise BadOption("Engine 'openvino' needs a package; run `pip install openvino`, or use engine torch.")
    precision = precision or ("bfloat16" if openvino.has_fast_bfloat16() else "float32")
    try:
        return OpenVinoEngine(model, spec.size, precision=precision, folder=openvino.default_folder())
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
