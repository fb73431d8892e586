"""Stages of backbones, and which of them learn when."""

import pytest
import torch

from pawmatch.models import build_model
from pawmatch.training.optim import Together, feature_extractor, stages, train_stages, training_mode
from pawmatch.training.recipe import Recipe, read_recipe
from tests.support.training import RECIPE

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
    features = feature_extractor(model)
    groups = stages(features)
    names = {id(parameter): name for name, parameter in features.named_parameters()}
    assert len(groups) == count
    assert names[id(groups[0][0])].startswith(first)
    assert names[id(groups[-1][0])].startswith(last)


@pytest.mark.parametrize(("name", "count"), [("breed-full", 5), ("breed-phase1", 8)])
def test_bundled_recipes_thaw_their_backbone_to_the_end(name: str, count: int) -> None:
    recipe = read_recipe(name)
    with torch.device("meta"):
        model = build_model(
            family="hybrid", variant="cnn", num_classes=3, backbone=recipe.architecture["backbone"]
        )
    counts = [recipe.stages_at(epoch) for epoch in range(recipe.epochs)]
    assert counts[0] == 0
    assert counts == sorted(counts, key=lambda count: count or 0)
    assert train_stages(model, counts[-1]) == (count, count)
    assert all(parameter.requires_grad for parameter in model.parameters())


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
    values = {"family": "chae", "num_classes": 2, **RECIPE.architecture}
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
