"""Engines by name, and engine="auto": agreement with torch, and one line that says why."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from pawmatch import load
from pawmatch.engines import choose, create_engine
from pawmatch.engines import openvino as openvino_engine
from pawmatch.engines import torch as torch_engine
from pawmatch.engines.choose import candidates, choose_engine, resolve_device
from pawmatch.engines.torch import has_bfloat16, limit_torch_threads
from pawmatch.errors import BadOption
from pawmatch.images import InputSpec
from pawmatch.models import ImageModel


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
    [({"amx_bf16": True}, True), ({"avx512_bf16": True, "avx2": True}, False), ({}, False)],
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


@pytest.mark.parametrize(
    ("name", "engine", "count", "device"),
    [
        ("auto", "auto", 0, "cpu"),
        ("auto", "auto", 1, "cuda"),
        ("auto", "openvino", 1, "cpu"),
        ("auto", "openvino float32", 1, "cpu"),
        ("cuda:1", "torch", 2, "cuda:1"),
    ],
)
def test_a_device_is_one_that_is_there_and_that_the_engine_uses(
    name: str, engine: str, count: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert resolve_device(name, engine) == device


@pytest.mark.parametrize(
    ("name", "count", "said"),
    [
        *[(name, 1, "is unknown; use auto, cpu, cuda or") for name in ("mps", "meta", "", "cuda:-1", "gpu")],
        ("cuda", 0, "'cuda' was asked for, and no CUDA device can be used here"),
        ("cuda:7", 1, "'cuda:7' was asked for, and 1 CUDA device can be used here"),
    ],
)
def test_another_device_is_refused_in_words(
    name: str, count: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(BadOption, match=said):
        resolve_device(name)


@dataclass
class Pretend:
    """An engine that makes of torch's map what a test wants."""

    model: ImageModel
    change: Callable[[Tensor], Tensor] = lambda feature_map: feature_map
    name: str = "pretend"
    precision: str = "float32"

    def features(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            return self.change(self.model.forward_features(images))


@pytest.fixture
def costly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny model counts as one that takes long enough for a choice to be worth the while."""
    monkeypatch.setattr(choose, "MIN_FLOPS", 0)


def offer(patch: pytest.MonkeyPatch, **rivals: Callable[[], object]) -> list[str]:
    patch.setattr(choose, "_made", lambda name, *_: rivals[name]())
    return list(rivals)


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
    costly: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    names = offer(monkeypatch, rival=lambda: rival(model))
    with caplog.at_level(logging.INFO):
        engine = choose_engine([model], "cpu", SPEC, names)
    assert (engine.name, engine.precision) == ("torch", "float32")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message.startswith(f"Engine: torch, since rival {reason}")


def test_the_first_that_agrees_is_taken_however_busy_the_machine_is(
    model: ImageModel, costly: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def slow(feature_map: Tensor) -> Tensor:
        time.sleep(0.2)
        return feature_map

    names = offer(
        monkeypatch, wrong=lambda: Pretend(model, lambda m: m.flip(0)), right=lambda: Pretend(model, slow)
    )
    with caplog.at_level(logging.INFO):
        assert choose_engine([model], "cpu", SPEC, names).name == "pretend"
    assert [record.message for record in caplog.records] == ["Engine: right, in agreement with torch."]


def test_a_small_model_is_not_worth_a_choice(model: ImageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    names = offer(monkeypatch, rival=lambda: pytest.fail("tried"))
    assert choose_engine([model], "cpu", SPEC, names).name == "torch"


def test_without_rivals_torch_is_chosen_in_silence(
    model: ImageModel, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "has_bfloat16", lambda device: False)
    with caplog.at_level(logging.INFO):
        assert create_engine("auto", [model], "cpu", SPEC).name == "torch"
    assert caplog.records == []


@pytest.mark.parametrize(
    ("bfloat16", "installed", "expected"),
    [
        (False, False, []),
        (True, False, ["torch bfloat16"]),
        (False, True, ["openvino float32"]),
        (True, True, ["openvino bfloat16", "openvino float32"]),
    ],
)
def test_what_is_tried_depends_on_processor_and_packages(
    bfloat16: bool, installed: bool, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "has_bfloat16", lambda device: bfloat16)
    monkeypatch.setattr(openvino_engine, "is_installed", lambda: installed)
    assert candidates("cpu") == expected
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert candidates("cpu") == []


def test_openvino_is_chosen_and_answers_alike(
    openvino: object,
    folder: Path,
    costly: None,
    tiny_checkpoints: Callable[..., Path],
    photo: Image.Image,
) -> None:
    source = tiny_checkpoints("breed") / "cnn"
    fast, plain = load("breed", source), load("breed", source, engine="torch")
    assert set(fast.engines.values()) <= {"openvino float32", "openvino bfloat16"}
    assert set(plain.engines.values()) == {"torch float32"}
    assert openvino_engine.default_folder() == folder
    ours, theirs = fast.explain(photo), plain.explain(photo)
    assert ours.label == theirs.label
    for variant, heatmap in ours.heatmaps.items():
        assert heatmap.confidence == pytest.approx(theirs.heatmaps[variant].confidence, abs=0.01)
