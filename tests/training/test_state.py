"""A run folder goes on with its own run and refuses any other, in one sentence."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pawmatch.errors import TrainingError
from pawmatch.models import build_model
from pawmatch.training.loop import STATE_FILE, Epoch, RunState
from pawmatch.training.optim import Optimisation
from pawmatch.training.recipe import Recipe
from tests.support.training import RECIPE

HISTORY = [Epoch(1, 32, 1.0, 2.0, 0.5, 0.9, 0.4, 1.5)]
IDENTITY = {"variant": "cnn", "data": "0123"}


def model(variant: str = "cnn", classes: int = 2) -> nn.Module:
    return build_model(family="chae", variant=variant, num_classes=classes, **RECIPE.architecture)


def state(
    run: Path, net: nn.Module, recipe: Recipe = RECIPE, identity: dict[str, str] = IDENTITY
) -> RunState:
    return RunState(run, recipe, identity, net, Optimisation(net, recipe, steps=10))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    state(tmp_path, model()).save(HISTORY)
    return tmp_path


def test_a_run_goes_on(run: Path) -> None:
    first, again = model(), model()
    saved = state(run, first)
    saved.best = first.state_dict()
    saved.save(HISTORY)
    resumed = state(run, again)
    assert resumed.resume() == HISTORY
    assert resumed.best is not None
    for key, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
        assert torch.equal(value, resumed.best[key])
    assert state(run / "elsewhere", again).resume() == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"recipe": replace(RECIPE, epochs=5)}, "another recipe"),
        ({"identity": {**IDENTITY, "variant": "all"}}, "of variant cnn, not all"),
        ({"identity": {**IDENTITY, "data": "4567"}}, "on other images"),
    ],
)
def test_another_run_is_refused(run: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(TrainingError, match=f"{said}; name another --out"):
        state(run, model(), **change).resume()


@pytest.mark.parametrize("net", [model("cnn_transformer"), model(classes=3)])
def test_weights_that_do_not_fit_are_refused_even_where_the_state_says_little(
    run: Path, net: nn.Module
) -> None:
    values = torch.load(run / STATE_FILE, weights_only=True)
    del values["identity"]
    torch.save(values, run / STATE_FILE)
    with pytest.raises(TrainingError, match="another variant or number of classes"):
        state(run, net).resume()


def test_a_state_with_the_keys_of_the_first_version_is_taken(run: Path) -> None:
    values = torch.load(run / STATE_FILE, weights_only=True)
    kept = {key: values[key] for key in ("model", "optimizer", "schedule", "averaged", "recipe", "history")}
    for key in ("learning_rate", "skipped_steps"):
        del kept["history"][0][key]
    for key in ("focal_gamma", "patience", "unfreeze"):
        del kept["recipe"][key]
    torch.save(kept, run / STATE_FILE)
    assert state(run, model()).resume() == HISTORY


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"nothing of the kind"])
def test_a_broken_state_is_refused(run: Path, content: bytes) -> None:
    (run / STATE_FILE).write_bytes(content)
    with pytest.raises(TrainingError, match="cannot be read; name another --out"):
        state(run, model()).resume()
