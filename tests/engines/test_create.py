"""Engines by name: what is known, with a precision or without, and what is not."""

from __future__ import annotations

import pytest

from pawmatch.engines import create_engine
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
