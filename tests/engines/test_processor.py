"""How torch is to use the processors."""

from __future__ import annotations

import pytest
import torch

from pawmatch.engines import processor
from pawmatch.engines.processor import limit_torch_threads


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
