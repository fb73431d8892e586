"""A random head: new behind the feature map, untouched before it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pawmatch.checkpoint import load_checkpoint
from pawmatch.evaluation.faithfulness import with_random_head

CASES = [("breed", "cnn_transformer_mfe"), ("artist", "cnn_transformer"), ("breed", "cnn")]


@pytest.mark.parametrize(("task", "variant"), CASES)
def test_only_the_head_is_new(tiny_checkpoints: Callable[..., Path], task: str, variant: str) -> None:
    model = load_checkpoint(tiny_checkpoints(task) / variant).model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    twin = with_random_head(model, seed=0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert getattr(twin, model.features_module) is getattr(model, model.features_module)
    changed = {name for name, value in twin.named_parameters() if not torch.equal(value, before[name])}
    head = {
        name
        for name, value in model.named_parameters()
        if not name.startswith(f"{model.features_module}.") and value.std(correction=0) > 0
    }
    assert changed == head
    size = 64 if task == "breed" else 32
    features = model.forward_features(torch.randn(2, 3, size, size))
    assert not torch.allclose(twin.forward_head(features), model.forward_head(features))
    assert twin.forward_head(features).isfinite().all()


def test_seeds_give_different_heads(tiny_checkpoints: Callable[..., Path]) -> None:
    model = load_checkpoint(tiny_checkpoints("breed") / "cnn").model
    weights = [with_random_head(model, seed).state_dict()["classifier.2.weight"] for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    kept = model.state_dict()["classifier.2.weight"]
    assert weights[0].std() == pytest.approx(float(kept.std()), rel=0.3)
