"""The CHAE family."""

from typing import Any

import pytest
import torch

from pawmatch.errors import BadOption, UnknownVariant
from pawmatch.models import VARIANTS, build_model

TINY: dict[str, Any] = {
    "family": "chae",
    "num_classes": 3,
    "input_size": 32,
    "filters": (4, 4, 8, 16),
    "heads": 2,
    "mlp_width": 16,
    "morphology_channels": 4,
    "morphology_width": 8,
}


def test_published_size_has_402417_parameters() -> None:
    model = build_model(family="chae", variant="cnn_transformer", num_classes=11)
    assert sum(value.numel() for value in model.parameters()) == 402_417


def test_published_shapes() -> None:
    model = build_model(family="chae", variant="cnn_transformer", num_classes=11).eval()
    with torch.no_grad():
        feature_map = model.forward_features(torch.rand(1, 3, 256, 256))
    assert feature_map.shape == (1, 128, 16, 16)
    assert model.position_embedding.shape == (257, 128)
    assert model.forward_head(feature_map).shape == (1, 11)


@pytest.mark.parametrize("variant", VARIANTS)
def test_forward_is_head_of_features(variant: str) -> None:
    model = build_model(variant=variant, **TINY).eval()
    images = torch.rand(2, 3, 32, 32)
    logits = model(images)
    assert logits.shape == (2, 3)
    torch.testing.assert_close(logits, model.forward_head(model.forward_features(images)))


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_head_has_a_gradient_at_every_position_of_the_map(variant: str) -> None:
    torch.manual_seed(1)
    model = build_model(variant=variant, **TINY).eval()
    feature_map = torch.rand(1, 16, 2, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(model.forward_head(feature_map)[0, 0], feature_map)
    assert (gradient.abs().amax(dim=1) > 0).all()


def test_positions_follow_a_smaller_grid() -> None:
    model = build_model(variant="cnn_transformer", **{**TINY, "input_size": 64})
    assert model.positions(4, 4) is model.position_embedding
    assert model.positions(2, 3).shape == (7, 16)
    torch.testing.assert_close(model.positions(2, 3)[0], model.position_embedding[0])
    assert model(torch.rand(1, 3, 32, 48)).shape == (1, 3)


def test_order_matters_through_the_position_embedding() -> None:
    model = build_model(variant="cnn_transformer", **TINY).eval()
    torch.nn.init.normal_(model.position_embedding)
    feature_map = torch.rand(1, 16, 2, 2)
    flipped = feature_map.flip(3)
    assert not torch.allclose(model.forward_head(feature_map), model.forward_head(flipped))


def test_stem_normalises_before_it_convolves() -> None:
    model = build_model(variant="cnn", **TINY)
    kinds = [type(layer).__name__ for layer in model.stem[0]]
    assert kinds == ["BatchNorm2d", "Conv2d", "GELU", "MaxPool2d"]


@pytest.mark.parametrize(
    ("values", "error", "named"),
    [
        ({"variant": "rnn"}, UnknownVariant, "'rnn'"),
        ({"input_size": 40}, BadOption, "40"),
        ({"heads": 3}, BadOption, "3"),
        ({"speed": 3}, BadOption, "speed"),
    ],
)
def test_impossible_values_are_named(values: dict[str, Any], error: type[Exception], named: str) -> None:
    with pytest.raises(error, match=named):
        build_model(**{"variant": "cnn", **TINY, **values})
