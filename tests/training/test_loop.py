"""The loop: early stopping, the epoch that is kept, precision, curves."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pawmatch.checkpoint.backbone import load_backbone
from pawmatch.errors import TrainingError
from pawmatch.images import InputSpec
from pawmatch.models import VARIANTS, ImageModel, build_model
from pawmatch.training import loop
from pawmatch.training.data import Images, decode_all, find_split
from pawmatch.training.distill import Teachers
from pawmatch.training.init import start_from_backbone
from pawmatch.training.loop import (
    STATE_FILE,
    Epoch,
    RunState,
    Settings,
    best_epoch,
    score,
    stopped_early,
    tensorboard,
    train,
)
from pawmatch.training.optim import Optimization, Together
from pawmatch.training.recipe import Recipe
from tests.support.training import (
    RECIPE,
    SETTINGS,
    silently,
    without_dropout,
    write_backbone,
    write_colours,
)

SPEC = InputSpec.from_dict(RECIPE.input)


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Images:
    files = find_split([write_colours(tmp_path_factory.mktemp("data"), train=8, val=4)])
    return Images(decode_all(files[0], long_side=64), decode_all(files[1], long_side=64))


def fresh() -> ImageModel:
    torch.manual_seed(0)
    return build_model(family="chae", variant="cnn", num_classes=2, **RECIPE.architecture)


def run(
    recipe: Recipe, halves: Images, folder: Path, settings: Settings = SETTINGS
) -> tuple[ImageModel, list[Epoch], list[dict[str, Tensor]]]:
    """The trained model, its history, and its weights after each epoch."""
    model = fresh()
    after: list[dict[str, Tensor]] = []

    def note(line: str) -> None:
        after.append({key: value.clone() for key, value in model.state_dict().items()})

    history = train(model, recipe, SPEC, halves, folder, settings, note)
    return model, history, after


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Validation losses that the epochs are given, first to last."""
    losses: list[float] = []
    monkeypatch.setattr(
        loop,
        "score",
        lambda logits, targets: {"val_loss": losses.pop(0), "top1": 0.5, "top5": 0.5, "macro_f1": 0.5},
    )
    return losses


def test_a_run_stops_early_and_keeps_its_best_epoch(
    halves: Images, tmp_path: Path, planned: list[float]
) -> None:
    recipe = replace(RECIPE, epochs=9, patience=2, keep_best=True)
    planned += [3.0, 1.0, 2.0, 2.0]
    model, history, after = run(recipe, halves, tmp_path)
    assert len(history) == 4
    kept = model.state_dict()
    assert all(torch.equal(kept[key], after[1][key]) for key in kept)
    assert not torch.equal(kept["classifier.weight"], after[3]["classifier.weight"])
    # Given again, the command trains nothing and keeps the same.
    again, history, _ = run(recipe, halves, tmp_path)
    assert len(history) == 4
    assert all(torch.equal(kept[key], again.state_dict()[key]) for key in kept)


def test_without_keep_best_the_last_epoch_counts(
    halves: Images, tmp_path: Path, planned: list[float]
) -> None:
    planned += [1.0, 2.0]
    model, _, after = run(replace(RECIPE, epochs=2), halves, tmp_path)
    kept = model.state_dict()
    assert all(torch.equal(kept[key], after[1][key]) for key in kept)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_learns_too(precision: str, halves: Images, tmp_path: Path) -> None:
    settings = replace(SETTINGS, autocast=precision)
    model, history, _ = run(replace(RECIPE, epochs=2), halves, tmp_path, settings)
    assert all(value.dtype == torch.float32 for value in model.parameters())
    assert history[0].learning_rate > 0
    assert history[1].train_loss is not None
    assert history[1].train_loss < 1.5
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    assert bool(saved["scaler"]) == (precision == "float16")


def test_a_step_that_is_skipped_is_counted(
    halves: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = 0

    def spoil_one(images: Tensor, mean: list[float], std: list[float]) -> Tensor:
        nonlocal batches
        batches += 1
        return images * (float("nan") if batches == 2 else 1.0)

    monkeypatch.setattr(loop, "normalize", spoil_one)
    model, history, _ = run(replace(RECIPE, epochs=2, batch_size=4), halves, tmp_path)
    assert [epoch.skipped_steps for epoch in history] == [1, 0]
    assert "1 steps skipped" in history[0].line(2)
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert all(epoch.train_loss is not None for epoch in history)


def test_stages_thaw_during_the_run(halves: Images, tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=2, unfreeze=((0.0, 0), (0.5, 4)))
    start = fresh().state_dict()
    model, _, after = run(recipe, halves, tmp_path)
    # note() is called for "from epoch 1", epoch 1, "from epoch 2", epoch 2
    assert len(after) == 4
    for key, value in start.items():
        if key.startswith("stem."):
            assert torch.equal(after[1][key], value), key
    weight = "stem.0.1.weight"
    assert not torch.equal(model.state_dict()[weight], start[weight])
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("cached_views", [0, 2])
def test_variants_together_on_a_frozen_backbone_learn_what_each_learns_alone(
    cached_views: int, halves: Images, tmp_path: Path
) -> None:
    """Separately and alike: heads of one start, on the same batches, under one teacher, gradients clipped."""
    labels = ("beagle", "boxer")
    data = Images(replace(halves.train, labels=labels), replace(halves.val, labels=labels))
    folder = write_backbone(tmp_path / "backbone", mean=0.0)
    architecture = {"backbone": "tf_efficientnet_lite0", "projection": 16, "attention_mode": "tokens"}
    recipe = replace(
        RECIPE,
        family="hybrid",
        architecture={**architecture, "morphology_channels": 4, "morphology_width": 8},
        unfreeze=((0.0, 0),),
        cached_views=cached_views,
        epochs=3,
        batch_size=4,
        learning_rate=3e-3,
        clip_gradient=0.2,
        distillation=0.5,
        ema=0.5,
    )
    torch.manual_seed(0)
    apart: dict[str, ImageModel] = {}
    for name in VARIANTS:
        apart[name] = build_model(family="hybrid", variant=name, num_classes=2, **recipe.architecture)
        start_from_backbone(apart[name], load_backbone(folder, "it"), labels, seed=0)
        without_dropout(apart[name])
    teachers = Teachers([str(folder)], labels, SPEC)
    joined = Together({name: deepcopy(model) for name, model in apart.items()})
    starts = deepcopy(apart)

    def learn(model: nn.Module, place: str) -> None:
        train(model, recipe, SPEC, data, tmp_path / place, SETTINGS, silently, teachers=teachers)
        model.eval()

    learn(joined, "joined")
    images = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for name, model in apart.items():
        learn(model, name)
        with torch.no_grad():
            ours, theirs, start = (
                one(images) for one in (model, joined.variants()[name], starts[name].eval())
            )
        torch.testing.assert_close(theirs, ours, rtol=1e-3, atol=1e-3)
        assert (ours - start).abs().max() > 0.05
        backbone = starts[name].features().state_dict()
        assert all(torch.equal(value, backbone[key]) for key, value in model.features().state_dict().items())


def curve(losses: Sequence[float]) -> list[Epoch]:
    return [Epoch(i + 1, 32, 1.0, loss, 0.5, 0.9, 0.4, 1.5) for i, loss in enumerate(losses)]


def recipe(patience: int) -> Recipe:
    return Recipe("r", "breed", "hybrid", epochs=6, patience=patience)


def test_the_best_epoch_is_the_first_of_the_lowest_losses() -> None:
    assert best_epoch(curve([3, 1, 2, 1])).number == 2


@pytest.mark.parametrize(
    ("losses", "patience", "early"),
    [
        ([], 2, False),
        ([3, 2, 2.5], 2, False),
        ([3, 2, 2.5, 2.4], 2, True),
        ([3, 2, 2.5, 2.4], 0, False),
        ([6, 5, 4, 3, 3.5, 3.4], 2, False),  # the last epoch of all
    ],
)
def test_a_run_stops_when_patience_ends(losses: list[float], patience: int, early: bool) -> None:
    history = curve(losses)
    assert stopped_early(history, recipe(patience)) == early


def test_scores_are_means_over_the_variants() -> None:
    targets = np.array([0, 1])
    right = np.array([[9, 0, 0], [0, 9, 0]], dtype=np.float32)
    wrong = right[::-1]
    assert score(right, targets)["top1"] == 1
    both = score(np.stack([right, wrong]), targets)
    assert both["top1"] == 0.5
    assert both["val_loss"] == pytest.approx(
        (score(right, targets)["val_loss"] + score(wrong, targets)["val_loss"]) / 2
    )


EPOCHS = [Epoch(i, 32, 1.0 / i, 2.0, 0.5, 0.9, 0.4, 1.5) for i in (1, 2, 3)]


def test_a_resumed_run_goes_on_in_the_same_curve(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="an optional package")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for done, shown in ((0, EPOCHS[:2]), (1, EPOCHS[1:])):  # the second epoch was not saved
        with tensorboard(tmp_path, done=done, report=pytest.fail) as plot:
            for epoch in shown:
                plot(epoch)
    events = EventAccumulator(str(tmp_path)).Reload()
    curve = events.Scalars("train_loss")
    assert [(event.step, round(event.value, 3)) for event in curve] == [(1, 1.0), (2, 0.5), (3, 0.333)]


def test_without_the_package_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    lines: list[str] = []
    with tensorboard(tmp_path / "curves", done=0, report=lines.append) as plot:
        plot(EPOCHS[0])
    assert len(lines) == 1
    assert "pip install tensorboard" in lines[0]
    assert not (tmp_path / "curves").exists()


HISTORY = [Epoch(1, 32, 1.0, 2.0, 0.5, 0.9, 0.4, 1.5)]
IDENTITY = {"variant": "cnn", "data": "0123"}


def model(variant: str = "cnn", classes: int = 2) -> nn.Module:
    return build_model(family="chae", variant=variant, num_classes=classes, **RECIPE.architecture)


def state(
    folder: Path, net: nn.Module, recipe: Recipe = RECIPE, identity: dict[str, str] = IDENTITY
) -> RunState:
    return RunState(folder, recipe, identity, net, Optimization(net, recipe, steps=10))


@pytest.fixture
def saved_run(tmp_path: Path) -> Path:
    state(tmp_path, model()).save(HISTORY)
    return tmp_path


def test_a_run_goes_on(saved_run: Path) -> None:
    first, again = model(), model()
    saved = state(saved_run, first)
    saved.best = first.state_dict()
    saved.save(HISTORY)
    resumed = state(saved_run, again)
    assert resumed.resume() == HISTORY
    assert resumed.best is not None
    for key, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
        assert torch.equal(value, resumed.best[key])
    assert state(saved_run / "elsewhere", again).resume() == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"recipe": replace(RECIPE, epochs=5)}, "another recipe"),
        ({"identity": {**IDENTITY, "variant": "all"}}, "of variant cnn, not all"),
        ({"identity": {**IDENTITY, "data": "4567"}}, "on other images"),
    ],
)
def test_another_run_is_refused(saved_run: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(TrainingError, match=f"{said}; name another --out"):
        state(saved_run, model(), **change).resume()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"nothing of the kind"])
def test_a_broken_state_is_refused(saved_run: Path, content: bytes) -> None:
    (saved_run / STATE_FILE).write_bytes(content)
    with pytest.raises(TrainingError, match="cannot be read; name another --out"):
        state(saved_run, model()).resume()
