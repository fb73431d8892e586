"""Maps of what never learns: the same as without them, cut at any stage, refused where something changes."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pawmatch.checkpoint.backbone import load_backbone
from pawmatch.errors import TrainingError
from pawmatch.images import InputSpec
from pawmatch.models import Hybrid, ImageModel, build_model
from pawmatch.training.augment import TrainingBatches
from pawmatch.training.data import Images, LabelledImages
from pawmatch.training.distill import Teachers
from pawmatch.training.feature_cache import FeatureCache, split
from pawmatch.training.init import start_from_backbone
from pawmatch.training.loop import train, validation_logits
from pawmatch.training.optim import Together, stages, train_stages
from pawmatch.training.recipe import Recipe
from tests.support.training import SETTINGS, normalized, silently, without_dropout, write_backbone

LABELS = ("beagle", "boxer", "my own dog")
RECIPE = Recipe(
    "r",
    "breed",
    "hybrid",
    input={"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3},
    unfreeze=((0.0, 0),),
    cached_views=2,
    epochs=4,
    batch_size=4,
    crop_scale=(0.5, 1.0),
)
SPEC = InputSpec.from_dict(RECIPE.input)
SMALL: dict[str, Any] = {
    "backbone": "resnet18d",
    "backbone_config": {"channels": [8, 8, 16, 16], "stem_width": 8},
}
EFFICIENT: dict[str, Any] = {
    "backbone": "tf_efficientnet_lite0",
    "projection": 16,
    "attention_mode": "tokens",
}


def build(variant: str = "cnn", **architecture: Any) -> Hybrid:
    torch.manual_seed(0)
    model = build_model(
        family="hybrid",
        variant=variant,
        num_classes=len(LABELS),
        morphology_channels=4,
        morphology_width=8,
        **(architecture or SMALL),
    )
    assert isinstance(model, Hybrid)
    return model


def images(count: int) -> LabelledImages:
    pixels = np.random.default_rng(count).integers(0, 256, (count, 40, 40, 3), dtype=np.uint8)
    return LabelledImages(LABELS, tuple(pixels), tuple(n % len(LABELS) for n in range(count)), ())


def cached(model: nn.Module, recipe: Recipe = RECIPE, teachers: Teachers | None = None) -> FeatureCache:
    batches = TrainingBatches(images(10), recipe)
    spec = InputSpec.from_dict(recipe.input)
    with TemporaryDirectory() as folder:
        return FeatureCache(
            model,
            batches,
            recipe,
            spec,
            teachers,
            Path(folder),
            engine="torch",
            device="cpu",
            report=silently,
        )


def prepared(number: int, recipe: Recipe = RECIPE) -> Tensor:
    """The images that epoch `number` of the cache stands for."""
    views = torch.cat(list(TrainingBatches(images(10), recipe).in_order(number)))
    return normalized(views, InputSpec.from_dict(recipe.input))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backbone(tmp_path_factory.mktemp("backbone"))


def started(folder: Path) -> Hybrid:
    model = build(**EFFICIENT)
    start_from_backbone(model, load_backbone(folder, "it"), LABELS, seed=0)
    return model


@torch.no_grad()
def test_maps_are_those_of_the_frozen_part() -> None:
    model = build()
    cache = cached(model)
    for number in range(2):
        (batch,) = cache.epoch([list(range(10))], number)
        expected = model.eval().forward_features(prepared(number))
        torch.testing.assert_close(batch.maps, expected, rtol=2e-3, atol=2e-3)  # kept in 16 bits
        assert batch.maps.dtype == torch.float32
        assert batch.taught is None


def test_epochs_take_turns_with_the_views_and_have_the_rows_that_are_asked_for() -> None:
    cache = cached(build())
    order = [[3, 1, 4, 1], [5, 9]]
    epochs = [list(cache.epoch(order, number)) for number in range(4)]
    everything = [next(cache.epoch([list(range(10))], number)) for number in range(2)]
    for number, epoch in enumerate(epochs):
        for batch, rows in zip(epoch, order, strict=True):
            assert torch.equal(batch.maps, everything[number % 2].maps[rows])
            assert batch.targets.tolist() == [row % 3 for row in rows]
    assert not torch.equal(epochs[0][0].maps, epochs[1][0].maps)


@torch.no_grad()
@pytest.mark.parametrize("together", [False, True])
def test_heads_say_of_a_map_what_the_model_says_of_the_image(together: bool) -> None:
    variants = ("cnn", "cnn_transformer", "cnn_transformer_mfe")
    members: dict[str, ImageModel] = {name: build(name) for name in variants}
    model = Together(members) if together else members["cnn_transformer_mfe"]
    cache = cached(model)
    (batch,) = cache.epoch([list(range(10))], 0)
    model.eval()
    logits, expected = cache.heads(model)(batch.maps), model(prepared(0))
    assert logits.shape == ((3, 10, 3) if together else (10, 3))
    torch.testing.assert_close(logits, expected, rtol=1e-2, atol=1e-2)
    (held_out,) = cache.maps_of([prepared(0)])
    assert torch.equal(cache.heads(model)(held_out), logits)


@torch.no_grad()
@pytest.mark.parametrize("learning", [0, 1, 3, 7])
def test_a_network_cut_at_any_stage_is_the_same_network(learning: int) -> None:
    model = build(**EFFICIENT).eval()
    frozen, tail = split(model, learning)
    batch = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(tail(frozen(batch)), model.forward_features(batch))
    train_stages(model, learning)
    learns = {name for name, parameter in model.backbone.named_parameters() if parameter.requires_grad}
    in_tail = {id(parameter) for parameter in tail.parameters()}
    assert learns == {name for name, value in model.backbone.named_parameters() if id(value) in in_tail}
    assert bool(learns) == (learning > 0)


def test_the_last_stages_learn_on_maps_too(tmp_path: Path) -> None:
    model = build(**EFFICIENT)
    before = deepcopy(model.state_dict())
    recipe = replace(RECIPE, unfreeze=((0.0, 2),), epochs=1)
    train(model, recipe, SPEC, Images(images(8), images(4)), tmp_path, SETTINGS, silently)
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    in_backbone = {key.split(".")[1] + "." + key.split(".")[2] for key in changed if "backbone." in key}
    # the last two stages, and the widening convolution that goes with the last
    assert in_backbone == {"blocks.5", "blocks.6", "conv_head.weight"} | {
        f"bn2.{name}" for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }


@pytest.mark.parametrize(
    "change",
    [
        {"unfreeze": ()},
        {"unfreeze": ((0.0, 0), (0.5, 1))},
        {"unfreeze": ((0.5, 1),)},
        {"sizes": ((0.0, 24), (0.5, 32))},
        {"mixup": 0.2},
        {"cutmix": 1.0},
    ],
)
def test_recipes_that_change_what_is_frozen_or_seen_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(TrainingError, match="cached_views needs layers that never learn, and images of"):
        cached(build(), replace(RECIPE, **change))


def test_networks_that_cannot_be_cut_are_refused() -> None:
    efficient = build(**EFFICIENT)
    everything = len(stages(efficient.features()))
    for model, learning in ((build(), 1), (efficient, everything)):
        with pytest.raises(TrainingError, match="works for EfficientNets, and not for all of their stages"):
            cached(model, replace(RECIPE, unfreeze=((0.0, learning),)))


@pytest.mark.parametrize("variant", ["cnn", "cnn_transformer_mfe"])
def test_a_run_on_maps_learns_what_a_run_on_images_learns(variant: str, tmp_path: Path) -> None:
    """Where every epoch sees the same view, that is, and but for the rounding of maps to 16 bits."""
    still = replace(
        RECIPE, crop_scale=(1.0, 1.0), flip=0.0, color_jitter=0.0, optimizer="sgd", learning_rate=0.1
    )
    held_out = [prepared(0)]
    first = without_dropout(build(variant))
    start = validation_logits(first, held_out, "cpu")
    logits = []
    for views in (0, 1):
        model = deepcopy(first)
        recipe = replace(still, cached_views=views)
        history = train(
            model, recipe, SPEC, Images(images(12), images(6)), tmp_path / str(views), SETTINGS, silently
        )
        logits.append((validation_logits(model, held_out, "cpu"), history[-1].train_loss))
    np.testing.assert_allclose(logits[0][0], logits[1][0], atol=2e-2)
    assert logits[0][1] == pytest.approx(logits[1][1], rel=1e-2)
    assert np.abs(logits[0][0] - start).max() > 0.2


def test_the_backbone_as_teacher_answers_from_the_students_map(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, teachers = started(folder).eval(), Teachers([str(folder)], LABELS, SPEC)
    expected = teachers.logits(prepared(1))
    assert teachers.on_map(model) is not None
    monkeypatch.setattr(teachers, "logits", None)  # nothing runs the network a second time
    cache = cached(model, teachers=teachers)
    (batch,) = cache.epoch([list(range(10))], 1)
    assert batch.taught is not None
    torch.testing.assert_close(batch.taught, expected, rtol=1e-3, atol=1e-4)
    (some,) = cache.epoch([[7, 2]], 1)
    assert some.taught is not None
    # But for rounding: a product may be summed in another order in a batch of another size.
    torch.testing.assert_close(some.taught, batch.taught[[7, 2]])


def test_a_teacher_that_sees_or_is_something_else_runs_on_the_images(folder: Path, tmp_path: Path) -> None:
    model = started(folder).eval()
    darker = write_backbone(tmp_path / "darker", mean=0.3)  # the same network for another normalization
    both = Teachers([str(folder), str(darker)], LABELS, SPEC)
    for teachers in (Teachers([str(darker)], LABELS, SPEC), both):
        assert teachers.on_map(model) is None
        (batch,) = cached(model, teachers=teachers).epoch([list(range(10))], 0)
        assert batch.taught is not None
        torch.testing.assert_close(batch.taught, teachers.logits(prepared(0)))
    with torch.no_grad():
        next(model.backbone.parameters()).add_(0.1)
    assert Teachers([str(folder)], LABELS, SPEC).on_map(model) is None


def test_another_run_with_the_same_views_finds_them(tmp_path: Path) -> None:
    """Whatever its seed and learning rate; other crops are other views."""
    model, spec = build(), InputSpec.from_dict(RECIPE.input)

    def files(recipe: Recipe) -> set[str]:
        batches = TrainingBatches(images(10), recipe)
        FeatureCache(
            model, batches, recipe, spec, None, tmp_path, engine="torch", device="cpu", report=silently
        )
        return {str(path) for path in tmp_path.rglob("*.npy")}

    first = files(RECIPE)
    assert files(replace(RECIPE, seed=5, learning_rate=0.5)) == first
    assert len(files(replace(RECIPE, crop_scale=(0.3, 0.9)))) == 2 * len(first)
    assert not list(tmp_path.rglob("*.part"))
