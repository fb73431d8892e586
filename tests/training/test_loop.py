"""The loop: early stopping, the epoch that is kept, precision, curves."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pawmatch.checkpoint.backbone import load_backbone
from pawmatch.images import InputSpec
from pawmatch.models import VARIANTS, ImageModel, build_model
from pawmatch.training import loop
from pawmatch.training.augment import normalise
from pawmatch.training.data import LabelledImages, decode_all, find_split
from pawmatch.training.distill import Teachers
from pawmatch.training.init import start_from_backbone
from pawmatch.training.loop import Epoch, Scores, Settings, train
from pawmatch.training.optim import Together
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
Halves = tuple[LabelledImages, LabelledImages]


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Halves:
    files = find_split([write_colours(tmp_path_factory.mktemp("data"), train=8, val=4)])
    return decode_all(files[0], long_side=64), decode_all(files[1], long_side=64)


def fresh() -> ImageModel:
    torch.manual_seed(0)
    return build_model(family="chae", variant="cnn", num_classes=2, **RECIPE.architecture)


def run(
    recipe: Recipe, halves: Halves, folder: Path, settings: Settings = SETTINGS
) -> tuple[ImageModel, list[Epoch], list[dict[str, Tensor]]]:
    """The trained model, its history, and its weights after each epoch."""
    model = fresh()
    after: list[dict[str, Tensor]] = []

    def note(line: str) -> None:
        after.append({key: value.clone() for key, value in model.state_dict().items()})

    history = train(model, recipe, SPEC, *halves, folder, settings, note)
    return model, history, after


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Validation losses that the epochs are given, first to last."""
    losses: list[float] = []
    monkeypatch.setattr(loop, "score", lambda logits, targets: Scores(losses.pop(0), 0.5, 0.5, 0.5))
    return losses


def test_a_run_stops_early_and_keeps_its_best_epoch(
    halves: Halves, tmp_path: Path, planned: list[float]
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
    halves: Halves, tmp_path: Path, planned: list[float]
) -> None:
    planned += [1.0, 2.0]
    model, _, after = run(replace(RECIPE, epochs=2), halves, tmp_path)
    kept = model.state_dict()
    assert all(torch.equal(kept[key], after[1][key]) for key in kept)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_learns_too(precision: str, halves: Halves, tmp_path: Path) -> None:
    settings = replace(SETTINGS, autocast=precision)
    model, history, _ = run(replace(RECIPE, epochs=2), halves, tmp_path, settings)
    assert all(value.dtype == torch.float32 for value in model.parameters())
    assert history[0].learning_rate > 0
    assert history[1].train_loss < 1.5
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    assert bool(saved["scaler"]) == (precision == "float16")


def test_a_step_that_is_skipped_is_counted(
    halves: Halves, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = 0

    def spoil_one(images: Tensor, spec: InputSpec) -> Tensor:
        nonlocal batches
        batches += 1
        return normalise(images, spec) * (float("nan") if batches == 2 else 1.0)

    monkeypatch.setattr(loop, "normalise", spoil_one)
    model, history, _ = run(replace(RECIPE, epochs=2, batch_size=4), halves, tmp_path)
    assert [epoch.skipped_steps for epoch in history] == [1, 0]
    assert "1 steps skipped" in history[0].line(2)
    assert all(value.isfinite().all() for value in model.state_dict().values())
    assert all(epoch.train_loss == epoch.train_loss for epoch in history)


def test_stages_thaw_during_the_run(halves: Halves, tmp_path: Path) -> None:
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


def test_the_curve_goes_to_tensorboard_if_asked(halves: Halves, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="an optional package")
    run(replace(RECIPE, epochs=1), halves, tmp_path, replace(SETTINGS, tensorboard=True))
    assert list((tmp_path / "tensorboard").glob("events*"))
    assert (tmp_path / "history.csv").read_text().count("\n") == 2


@pytest.mark.parametrize("cached_views", [0, 2])
def test_variants_together_on_a_frozen_backbone_learn_what_each_learns_alone(
    cached_views: int, halves: Halves, tmp_path: Path
) -> None:
    """Separately and alike: heads of one start, on the same batches, under one teacher, gradients clipped."""
    labels = ("beagle", "boxer")
    data = (replace(halves[0], labels=labels), replace(halves[1], labels=labels))
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
        train(model, recipe, SPEC, *data, tmp_path / place, SETTINGS, silently, teachers=teachers)
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
