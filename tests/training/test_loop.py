"""The loop: early stopping, the epoch that is kept, precision, curves."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pawmatch.models import ImageModel, build_model
from pawmatch.preprocess import InputSpec
from pawmatch.training import loop
from pawmatch.training.batches import normalise
from pawmatch.training.data import LabelledImages, decode_all, find_split
from pawmatch.training.history import Epoch, Scores
from pawmatch.training.loop import Settings, train
from pawmatch.training.recipe import Recipe
from tests.support.training import RECIPE, SETTINGS, write_colours

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
