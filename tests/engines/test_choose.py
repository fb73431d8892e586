"""Engines by name: what is known, with a precision or without, and what is not.

How torch is to use the processors.

engine="auto": agreement first, then speed, and one line that says why.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pawmatch import load
from pawmatch.engines import choose, create_engine
from pawmatch.engines import openvino as openvino_engine
from pawmatch.engines import torch as torch_engine
from pawmatch.engines.choose import choose_engine, outcome, pictures
from pawmatch.engines.torch import TorchEngine, has_bfloat16, limit_torch_threads
from pawmatch.errors import BadOption
from pawmatch.heatmaps import grad_cam
from pawmatch.images import InputSpec
from pawmatch.models import ImageModel, build_model


@pytest.mark.parametrize(
    ("name", "precision"),
    [("torch", "float32"), ("torch float32", "float32"), ("torch bfloat16", "bfloat16")],
)
def test_a_name_may_end_in_a_precision(name: str, precision: str, model: ImageModel) -> None:
    engine = create_engine(name, [model], "cpu", InputSpec(size=64))
    assert (engine.name, engine.precision) == ("torch", precision)


@pytest.mark.parametrize("name", ["", "onnx", "auto float32", "torch float8"])
def test_others_are_refused(name: str, model: ImageModel) -> None:
    with pytest.raises(BadOption, match="is unknown; use one of auto, torch"):
        create_engine(name, [model], "cpu", InputSpec(size=64))


def test_threads_are_lowered_and_never_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        monkeypatch.setattr(torch_engine, "usable_cores", lambda: 1)
        torch.set_num_threads(2)
        limit_torch_threads()
        assert torch.get_num_threads() == 1
        monkeypatch.setattr(torch_engine, "usable_cores", lambda: 8)
        limit_torch_threads()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [({"amx_bf16": True}, True), ({"avx512_bf16": False, "avx2": True}, False), ({}, False)],
)
def test_bfloat16_is_for_processors_that_have_it(
    capabilities: dict[str, bool], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert has_bfloat16("cpu") is expected


def test_a_torch_that_does_not_say_runs_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert has_bfloat16("cpu") is False


SPEC = InputSpec(size=32)


@dataclass
class Pretend:
    """An engine that makes of torch's map what a test wants, in the time that it wants."""

    model: ImageModel
    change: Callable[[Tensor], Tensor] = lambda feature_map: feature_map
    name: str = "pretend"
    precision: str = "float32"

    def features(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return self.change(self.model.forward_features(images))


@pytest.fixture
def slow_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch takes long enough for a choice to be worth the while."""
    real = TorchEngine.features

    def features(self: TorchEngine, images: Tensor) -> Tensor:
        time.sleep(0.01)
        return real(self, images)

    monkeypatch.setattr(TorchEngine, "features", features)


def offer(patch: pytest.MonkeyPatch, **rivals: Callable[[], object]) -> None:
    patch.setattr(choose, "candidates", lambda *_: iter(rivals.items()))
    # Timing is left to what each test says of it.
    patch.setattr(choose, "speed_up", lambda plain, engine, images: getattr(engine, "gain", 3.0))


def broken() -> None:
    raise RuntimeError("no such operation")


@pytest.mark.parametrize(
    ("rival", "reason"),
    [
        (lambda model: Pretend(model, lambda m: m.flip(1)), "gives other"),
        (lambda model: Pretend(model, lambda m: m.flip(3)), "gives other heatmaps (correlation "),
        (lambda model: Pretend(model, lambda m: m * float("nan")), "gives other"),
        (lambda model: broken(), "failed (RuntimeError)"),
    ],
)
def test_what_does_not_agree_or_work_is_refused_with_one_warning(
    rival: Callable[[ImageModel], object],
    reason: str,
    model: ImageModel,
    slow_torch: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    offer(monkeypatch, rival=lambda: rival(model))
    with caplog.at_level(logging.INFO):
        engine = choose_engine([model], "cpu", SPEC)
    assert (engine.name, engine.precision) == ("torch", "float32")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message.startswith(f"Engine: torch, since rival {reason}")


def test_a_rival_that_agrees_and_is_faster_is_taken(
    model: ImageModel,
    slow_torch: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    offer(monkeypatch, wrong=lambda: Pretend(model, lambda m: m.flip(0)), right=lambda: Pretend(model))
    with caplog.at_level(logging.INFO):
        assert choose_engine([model], "cpu", SPEC).name == "pretend"
    assert [record.message for record in caplog.records] == [
        "Engine: right, 3.0 times as fast as torch and in agreement with it."
    ]


def test_a_rival_that_is_no_faster_is_left(
    model: ImageModel,
    slow_torch: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    rival = Pretend(model)
    rival.gain = 1.0  # type: ignore[attr-defined]
    offer(monkeypatch, rival=lambda: rival)
    with caplog.at_level(logging.INFO):
        assert choose_engine([model], "cpu", SPEC).name == "torch"
    assert [(record.levelno, record.message) for record in caplog.records] == [
        (logging.INFO, "Engine: torch, since rival is no faster (1.00 times).")
    ]


def test_gain_is_the_ratio_of_medians_taken_in_turns(
    model: ImageModel, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, rival = Pretend(model), Pretend(model)
    asked = []

    def seconds(engine: Pretend, images: Tensor) -> float:
        asked.append(engine)
        disturbed = len(asked) == 2
        return 9.0 if disturbed else 0.3 if engine is plain else 0.1

    monkeypatch.setattr(choose, "seconds", seconds)
    assert choose.speed_up(plain, rival, images) == pytest.approx(3)
    assert asked == [rival] + [plain, rival] * choose.ROUNDS


def test_a_quick_model_is_not_worth_a_choice(model: ImageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "seconds", lambda *_: 0.001)
    offer(monkeypatch, rival=lambda: pytest.fail("tried"))
    assert choose_engine([model], "cpu", SPEC).name == "torch"


def test_without_rivals_torch_is_chosen_in_silence(
    model: ImageModel, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "has_bfloat16", lambda device: False)
    with caplog.at_level(logging.INFO):
        assert create_engine("auto", [model], "cpu", SPEC).name == "torch"
    assert caplog.records == []


def test_a_cpu_with_bfloat16_offers_it_in_torch(model: ImageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "has_bfloat16", lambda device: True)
    offered = dict(choose.candidates(model, "cpu", SPEC))
    assert list(offered) == ["torch (bfloat16)"]
    assert offered["torch (bfloat16)"]().precision == "bfloat16"
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert dict(choose.candidates(model, "cpu", SPEC)) == {}


def test_maps_are_those_of_grad_cam(model: ImageModel) -> None:
    with torch.no_grad():
        feature_map = model.forward_features(pictures(SPEC))
    found = outcome(model, feature_map)
    for row, index in enumerate(found.top.tolist()):
        cam = grad_cam(model, feature_map[row : row + 1], index)
        assert float(found.maps[row].max()) == pytest.approx(cam.raw_max, rel=1e-4, abs=1e-7)
        if cam.raw_max:
            scaled = found.maps[row].reshape(cam.values.shape) - found.maps[row].min()
            torch.testing.assert_close(scaled / scaled.max(), torch.from_numpy(cam.values), rtol=0, atol=1e-4)


def test_openvino_is_chosen_and_answers_alike(
    openvino: object,
    folder: Path,
    slow_torch: None,
    tiny_checkpoints: Callable[..., Path],
    photo: Image.Image,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = tiny_checkpoints("breed") / "cnn"
    monkeypatch.setattr(choose, "speed_up", lambda *_: 3.0)
    fast, plain = load("breed", source), load("breed", source, engine="torch")
    assert set(fast.engines.values()) <= {"openvino float32", "openvino bfloat16"}
    assert set(plain.engines.values()) == {"torch float32"}
    assert openvino_engine.default_folder() == folder
    ours, theirs = fast.explain(photo), plain.explain(photo)
    assert ours.label == theirs.label
    for variant, heatmap in ours.heatmaps.items():
        assert heatmap.confidence == pytest.approx(theirs.heatmaps[variant].confidence, abs=0.01)


def test_a_batch_of_heatmaps_has_the_shape_of_those_that_are_shown() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        backbone = {"channels": [4, 4, 8, 8], "stem_width": 4, "output_stride": 8}
        model = build_model(
            family="hybrid",
            variant="cnn_transformer",
            num_classes=5,
            backbone="resnet18d",
            backbone_config=backbone,
        )
        feature_map = torch.rand(6, 8, 4, 4)
    model.eval().requires_grad_(False)
    classes = torch.tensor([0, 1, 2, 3, 4, 0])
    seen = 0
    for row, found in enumerate(outcome(model, feature_map, classes).maps.numpy()):
        shown = grad_cam(model, feature_map[row : row + 1], int(classes[row]))
        np.testing.assert_allclose(found.max(), shown.raw_max, rtol=1e-4, atol=1e-7)
        if shown.raw_max:
            seen += 1
            span = found.max() - found.min()
            np.testing.assert_allclose((found - found.min()) / span, shown.values.ravel(), atol=1e-3)
    assert seen
