"""How torch is to use the processors."""

from __future__ import annotations

import pytest
import torch

from pawmatch.engines import processor
from pawmatch.engines.processor import has_bfloat16, limit_torch_threads


def test_threads_are_lowered_and_never_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        monkeypatch.setattr(processor, "usable_cores", lambda: 1)
        torch.set_num_threads(2)
        limit_torch_threads()
        assert torch.get_num_threads() == 1
        monkeypatch.setattr(processor, "usable_cores", lambda: 8)
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
