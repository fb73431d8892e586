"""Tiny models for the engines, and openvino where it is installed."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
import torch

from pawmatch.engines import openvino as openvino_engine
from pawmatch.engines.openvino import import_openvino
from pawmatch.images import InputSpec
from pawmatch.models import ImageModel, build_model

SPEC = InputSpec(size=32)


@pytest.fixture(scope="session")
def real_openvino(clean_session: None) -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(sys.modules, "openvino")
        if find_spec("openvino") is None:
            pytest.skip("openvino is not installed")
        return import_openvino()


@pytest.fixture
def openvino(real_openvino: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Openvino as the engines find it; the other tests' setup hides it."""
    monkeypatch.setitem(sys.modules, "openvino", real_openvino)
    return real_openvino


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where converted models are kept during a test."""
    monkeypatch.setattr(openvino_engine, "default_folder", lambda: tmp_path / "kept")
    return tmp_path / "kept"


@pytest.fixture(scope="session")
def model() -> ImageModel:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        made = build_model(
            family="hybrid",
            variant="cnn_transformer",
            num_classes=5,
            backbone="resnet18d",
            backbone_config={"channels": [4, 4, 8, 8], "stem_width": 4, "output_stride": 8},
        )
    return made.eval().requires_grad_(False)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
