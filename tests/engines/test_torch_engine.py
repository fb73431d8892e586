"""The torch engine: float32 out whatever goes on inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pawmatch.engines import create_engine
from pawmatch.engines import torch as torch_engine
from pawmatch.engines.torch import TorchEngine
from pawmatch.images import InputSpec
from pawmatch.models import ImageModel


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_map_is_float32_and_without_gradient(model: ImageModel, images: Tensor, precision: str) -> None:
    found = TorchEngine(model, "cpu", precision=precision).features(images)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    exact = model.forward_features(images)
    assert torch.corrcoef(torch.stack([found.flatten(), exact.flatten()]))[0, 1] > 0.99
    assert torch.equal(found, exact) is (precision == "float32")


def test_a_large_batch_is_run_in_parts(
    model: ImageModel, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = TorchEngine(model, "cpu").features(images)
    monkeypatch.setattr(torch_engine, "MAX_PIXELS", 2 * 32 * 32)
    counts: list[int] = []
    engine = TorchEngine(model, "cpu")

    def counted(part: Tensor) -> Tensor:
        counts.append(len(part))
        return model.forward_features(part)

    monkeypatch.setattr(engine, "_run", counted)
    torch.testing.assert_close(engine.features(images), whole)
    assert counts == [2, 1]


def test_compiling_is_asked_for_and_never_done_on_zerogpu(
    model: ImageModel, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = []

    def pretend(function: Callable[..., Any]) -> Callable[..., Any]:
        compiled.append(function)
        return function

    monkeypatch.setattr(torch, "compile", pretend)
    spec = InputSpec(size=32)
    assert create_engine("torch", [model], "cpu", spec).name == "torch"
    assert compiled == []
    engine = create_engine("torch-compile", [model], "cpu", spec)
    assert (engine.name, len(compiled)) == ("torch-compile", 1)
    assert engine.features(images).shape[0] == 3
    monkeypatch.setenv("SPACES_ZERO_GPU", "1")
    assert create_engine("torch-compile", [model], "cpu", spec).name == "torch"
    assert len(compiled) == 1
