"""One step: what is skipped, restored, counted and saved."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from pawmatch.errors import TrainingError
from pawmatch.models import VARIANTS, build_model
from pawmatch.training.optim import (
    MAX_SKIPPED,
    Optimization,
    Together,
    clipped_apart,
    first_member,
    stages,
    train_stages,
    training_mode,
)
from pawmatch.training.recipe import Recipe
from tests.support.training import RECIPE as TINY_CHAE

IMAGES = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
RECIPE = Recipe("r", "breed", "hybrid", learning_rate=1e-2, ema=0.9)


def tiny() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))


def tensors(*modules: nn.Module) -> list[Tensor]:
    return [value.clone() for module in modules for value in module.state_dict().values()]


def take(optimization: Optimization, images: Tensor) -> bool:
    with optimization.autocast():
        loss = optimization.model(images).square().mean()
    return optimization.step(loss)


@pytest.mark.parametrize("precision", ["", "bfloat16", "float16"])
def test_a_step_whose_gradients_are_no_numbers_changes_nothing(precision: str) -> None:
    optimization = Optimization(tiny(), RECIPE, steps=100, precision=precision)
    assert take(optimization, IMAGES) or take(optimization, IMAGES)  # float16 may look for its scale
    assert optimization.averaged is not None
    before = tensors(optimization.model, optimization.averaged)
    rate = optimization.learning_rate
    assert not take(optimization, IMAGES * float("inf"))
    after = tensors(optimization.model, optimization.averaged)
    floating = [pair for pair in zip(before, after, strict=True) if pair[0].is_floating_point()]
    assert all(torch.equal(old, new) for old, new in floating)
    assert optimization.learning_rate == rate
    assert optimization.skipped_in_a_row == 1
    assert take(optimization, IMAGES)
    assert optimization.skipped_in_a_row == 0
    assert not torch.equal(before[0], tensors(optimization.model)[0])


def test_too_many_in_a_row_end_the_run() -> None:
    optimization = Optimization(tiny(), RECIPE, steps=100)
    for _ in range(MAX_SKIPPED - 1):
        assert not take(optimization, IMAGES * float("nan"))
    with pytest.raises(TrainingError, match=f"{MAX_SKIPPED} steps in a row"):
        take(optimization, IMAGES * float("nan"))


def test_float16_finds_its_scale_and_saves_it() -> None:
    optimization = Optimization(tiny(), RECIPE, steps=100, precision="float16")
    before = optimization.scaler.get_scale()
    assert not take(optimization, IMAGES * 300)  # the squares overflow
    assert optimization.scaler.get_scale() == before / 2
    other = Optimization(tiny(), RECIPE, steps=100, precision="float16")
    other.load_state_dict(optimization.state_dict())
    assert other.scaler.get_scale() == before / 2


def test_a_state_of_another_precision_is_taken() -> None:
    state = Optimization(tiny(), RECIPE, steps=100).state_dict()
    Optimization(tiny(), RECIPE, steps=100, precision="float16").load_state_dict(state)


def test_gradients_are_clipped_or_not() -> None:
    norms = []
    for clip in (0.5, 0.0):
        optimization = Optimization(tiny(), Recipe("r", "", "", clip_gradient=clip), steps=100)
        take(optimization, IMAGES * 100)
        grads = [p.grad for p in optimization.model.parameters() if p.grad is not None]
        norms.append(float(torch.stack([grad.norm() for grad in grads]).norm()))
    assert norms[0] == pytest.approx(0.5, rel=1e-3)
    assert norms[1] > 1


def together() -> Together:
    torch.manual_seed(0)
    return Together(
        {
            name: build_model(family="chae", variant=name, num_classes=2, **TINY_CHAE.architecture)
            for name in VARIANTS
        }
    )


def test_each_parameter_is_clipped_once_with_those_of_its_variant() -> None:
    model = together()
    groups = [{id(parameter) for parameter in group} for group in clipped_apart(model)]
    assert sum(map(len, groups)) == len(set.union(*groups)) == len(list(model.parameters()))
    members = list(model.variants().values())
    shared, *own = groups
    assert shared == {id(parameter) for parameter in members[0].features().parameters()}
    for group, member in zip(own, members, strict=True):
        assert group == {id(parameter) for parameter in member.parameters()} - shared
    alone = tiny()
    assert clipped_apart(alone) == [list(alone.parameters())]


@pytest.mark.parametrize("frozen", [True, False])
def test_what_one_variant_gets_does_not_shrink_anothers_gradients(frozen: bool) -> None:
    model = together()
    train_stages(model, 0 if frozen else None)
    optimization = Optimization(model, Recipe("r", "", "", clip_gradient=0.5), steps=100)
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with optimization.autocast():
        logits = model(images)
        loss = sum(
            factor * rows.square().mean() for factor, rows in zip((1e4, 1e-2, 1e4), logits, strict=True)
        )
    assert isinstance(loss, Tensor)
    assert optimization.step(loss)
    norms = []
    for group in clipped_apart(model):
        grads = [p.grad.norm() for p in group if p.grad is not None]
        norms.append(float(torch.stack(grads).norm()) if grads else 0.0)
    assert norms[0] == pytest.approx(0.0 if frozen else 0.5, rel=1e-3)
    assert norms[1] == pytest.approx(0.5, rel=1e-3)
    assert 0 < norms[2] < 0.4  # as small as it was
    assert norms[3] == pytest.approx(0.5, rel=1e-3)


def test_schedules() -> None:
    rates: dict[str, list[float]] = {}
    names: tuple[Literal["one-cycle", "constant"], ...] = ("one-cycle", "constant")
    for name in names:
        recipe = Recipe("r", "", "", schedule=name, learning_rate=1e-3, warmup=0.25)
        optimization = Optimization(tiny(), recipe, steps=20)
        rates[name] = []
        for _ in range(20):
            rates[name].append(optimization.learning_rate)
            take(optimization, IMAGES)
    assert rates["constant"] == [1e-3] * 20
    assert max(rates["one-cycle"]) == pytest.approx(1e-3, rel=0.05)
    assert rates["one-cycle"][0] < 1e-4 > rates["one-cycle"][-1]
    with pytest.raises(TrainingError, match="'optimizer' is 'newton'; use adamw or sgd"):
        Optimization(tiny(), Recipe("r", "", "", optimizer="newton"), steps=20)


TINY = {"backbone": "resnet18d", "backbone_config": {"channels": [8, 8, 16, 16], "stem_width": 8}}


@pytest.mark.parametrize(
    ("backbone", "count", "first", "last"),
    [
        ("resnet18d", 5, "conv1", "layer4"),
        ("convnextv2_atto", 5, "stem", "stages.3"),
        ("mobilenetv4_conv_small", 6, "conv_stem", "blocks.4"),
    ],
)
def test_stages_go_from_the_image_to_the_end(backbone: str, count: int, first: str, last: str) -> None:
    with torch.device("meta"):
        model = build_model(family="hybrid", variant="cnn", num_classes=3, backbone=backbone)
    features = first_member(model).features()
    groups = stages(features)
    names = {id(parameter): name for name, parameter in features.named_parameters()}
    assert len(groups) == count
    assert names[id(groups[0][0])].startswith(first)
    assert names[id(groups[-1][0])].startswith(last)


def test_the_head_learns_first_and_frozen_statistics_stay() -> None:
    torch.manual_seed(0)
    model = build_model(family="hybrid", variant="cnn_transformer", num_classes=3, **TINY)
    assert train_stages(model, 1) == (1, 5)
    training_mode(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model(torch.randn(4, 3, 32, 32)).sum().backward()
    for name, parameter in model.named_parameters():
        frozen = name.startswith("backbone.") and not name.startswith("backbone.layer4")
        assert (parameter.grad is None) == frozen, name
    for name, value in model.state_dict().items():
        if name.endswith("running_mean"):
            assert torch.equal(value, before[name]) == (not name.startswith("backbone.layer4")), name
    assert train_stages(model, None) == (5, 5)
    training_mode(model)
    assert all(module.training for module in model.modules())


def test_variants_together_share_one_thaw() -> None:
    values = {"family": "chae", "num_classes": 2, **TINY_CHAE.architecture}
    models = {name: build_model(variant=name, **values) for name in ("cnn", "cnn_transformer")}
    together = Together(models)
    assert train_stages(together, 0) == (0, 4)
    learning = {name for name, parameter in together.named_parameters() if parameter.requires_grad}
    assert learning
    assert not any(".stem." in name for name in learning)


def test_stages_change_at_their_share_of_the_epochs() -> None:
    recipe = Recipe("r", "breed", "hybrid", epochs=10, unfreeze=((0.0, 0), (0.25, 2), (0.5, 5)))
    assert [recipe.stages_at(epoch) for epoch in (0, 2, 3, 5, 9)] == [0, 0, 2, 5, 5]
    assert Recipe("r", "breed", "hybrid").stages_at(0) is None


def test_a_network_without_buffers_takes_steps() -> None:
    linear = nn.Linear(48, 2)  # as ConvNeXt, which has no BatchNorm
    before = linear.weight.clone()
    assert take(Optimization(nn.Sequential(nn.Flatten(), linear), RECIPE, steps=10), IMAGES)
    assert not torch.equal(linear.weight, before)
