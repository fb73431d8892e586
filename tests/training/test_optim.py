"""One step: what is skipped, restored, counted and saved."""

import pytest
import torch
from torch import Tensor, nn

from pawmatch.errors import TrainingError
from pawmatch.models import VARIANTS, build_model
from pawmatch.training.optim import MOST_SKIPPED, Optimisation, Together, clipped_apart, train_stages
from pawmatch.training.recipe import Recipe
from tests.support.training import RECIPE as TINY

IMAGES = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
RECIPE = Recipe("r", "breed", "hybrid", learning_rate=1e-2, ema=0.9)


def tiny() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))


def tensors(*modules: nn.Module) -> list[Tensor]:
    return [value.clone() for module in modules for value in module.state_dict().values()]


def take(optimisation: Optimisation, images: Tensor) -> bool:
    with optimisation.autocast():
        loss = optimisation.model(images).square().mean()
    return optimisation.step(loss)


@pytest.mark.parametrize("precision", ["", "bfloat16", "float16"])
def test_a_step_whose_gradients_are_no_numbers_changes_nothing(precision: str) -> None:
    optimisation = Optimisation(tiny(), RECIPE, steps=100, precision=precision)
    assert take(optimisation, IMAGES) or take(optimisation, IMAGES)  # float16 may look for its scale
    assert optimisation.averaged is not None
    before = tensors(optimisation.model, optimisation.averaged)
    rate = optimisation.learning_rate
    assert not take(optimisation, IMAGES * float("inf"))
    after = tensors(optimisation.model, optimisation.averaged)
    floating = [pair for pair in zip(before, after, strict=True) if pair[0].is_floating_point()]
    assert all(torch.equal(old, new) for old, new in floating)
    assert optimisation.learning_rate == rate
    assert optimisation.skipped_in_a_row == 1
    assert take(optimisation, IMAGES)
    assert optimisation.skipped_in_a_row == 0
    assert not torch.equal(before[0], tensors(optimisation.model)[0])


def test_too_many_in_a_row_end_the_run() -> None:
    optimisation = Optimisation(tiny(), RECIPE, steps=100)
    for _ in range(MOST_SKIPPED - 1):
        assert not take(optimisation, IMAGES * float("nan"))
    with pytest.raises(TrainingError, match=f"{MOST_SKIPPED} steps in a row"):
        take(optimisation, IMAGES * float("nan"))


def test_float16_finds_its_scale_and_saves_it() -> None:
    optimisation = Optimisation(tiny(), RECIPE, steps=100, precision="float16")
    before = optimisation.scaler.get_scale()
    assert not take(optimisation, IMAGES * 300)  # the squares overflow
    assert optimisation.scaler.get_scale() == before / 2
    other = Optimisation(tiny(), RECIPE, steps=100, precision="float16")
    other.load_state_dict(optimisation.state_dict())
    assert other.scaler.get_scale() == before / 2


def test_a_state_without_a_scaler_is_taken() -> None:
    optimisation = Optimisation(tiny(), RECIPE, steps=100)
    state = optimisation.state_dict()
    for key in ("scaler", "skipped_in_a_row"):
        del state[key]
    Optimisation(tiny(), RECIPE, steps=100, precision="float16").load_state_dict(state)


def test_gradients_are_clipped_or_not() -> None:
    norms = []
    for clip in (0.5, 0.0):
        optimisation = Optimisation(tiny(), Recipe("r", "", "", clip_gradient=clip), steps=100)
        take(optimisation, IMAGES * 100)
        grads = [p.grad for p in optimisation.model.parameters() if p.grad is not None]
        norms.append(float(torch.stack([grad.norm() for grad in grads]).norm()))
    assert norms[0] == pytest.approx(0.5, rel=1e-3)
    assert norms[1] > 1


def together() -> Together:
    torch.manual_seed(0)
    return Together(
        {
            name: build_model(family="chae", variant=name, num_classes=2, **TINY.architecture)
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
    optimisation = Optimisation(model, Recipe("r", "", "", clip_gradient=0.5), steps=100)
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with optimisation.autocast():
        logits = model(images)
        loss = sum(
            factor * rows.square().mean() for factor, rows in zip((1e4, 1e-2, 1e4), logits, strict=True)
        )
    assert isinstance(loss, Tensor)
    assert optimisation.step(loss)
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
    for name in ("one-cycle", "constant"):
        recipe = Recipe("r", "", "", schedule=name, learning_rate=1e-3, warmup=0.25)
        optimisation = Optimisation(tiny(), recipe, steps=20)
        rates[name] = []
        for _ in range(20):
            rates[name].append(optimisation.learning_rate)
            take(optimisation, IMAGES)
    assert rates["constant"] == [1e-3] * 20
    assert max(rates["one-cycle"]) == pytest.approx(1e-3, rel=0.05)
    assert rates["one-cycle"][0] < 1e-4 > rates["one-cycle"][-1]
    with pytest.raises(TrainingError, match="'weekly' is unknown; use one-cycle or constant"):
        Optimisation(tiny(), Recipe("r", "", "", schedule="weekly"), steps=20)
