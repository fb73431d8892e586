"""The CHAE family."""

from itertools import pairwise
from typing import Any

import pytest
import torch

from pawmatch.errors import BadOption, UnknownVariant
from pawmatch.heatmaps import grad_cam
from pawmatch.models import VARIANTS, Chae, build_model

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


def count(**config: Any) -> int:
    with torch.device("meta"):
        model = build_model(family="chae", variant="cnn_transformer", num_classes=11, **config)
    return sum(value.numel() for value in model.parameters())


@pytest.mark.parametrize(
    ("config", "more"),
    [
        ({"keep_share": 0.6}, 0),
        ({"attention_window": 4}, 0),
        ({"width": 128}, 0),
        ({"heads": 4}, 0),
        ({"kernel": 5}, (25 - 9) * (3 * 32 + 32 * 32 + 32 * 64 + 64 * 128)),
        ({"activation": "relu"}, 0),
        ({"last_kernel": 5}, (25 - 9) * 64 * 128),
        ({"filters": [32, 32, 96, 128]}, 32 * (32 * 9 + 1) + 2 * 32 + 32 * 128 * 9),
        # One linear map of 16 x 16 patches in place of four convolutions and their BatchNorms.
        (
            {"stem": "patches"},
            (3 * 16 * 16 * 128 + 128)
            - sum(
                before * after * 9 + after + 2 * before for before, after in pairwise([3, 32, 32, 64, 128])
            ),
        ),
        # A convolution with its bias and its BatchNorm.
        ({"extra_convolutions": 1}, 128 * 128 * 9 + 128 + 2 * 128),
        ({"extra_convolutions": 2}, 2 * (128 * 128 * 9 + 128 + 2 * 128)),
        # Without the second block; the average pool makes up for its pooling and has no parameters.
        ({"filters": [32, 64, 128], "average_pool": 2}, -(32 * 32 * 9 + 32 + 2 * 32)),
        # Attention, MLP and two LayerNorms.
        ({"layers": 3}, 4 * (128 * 128 + 128) + (2 * 128 * 256 + 128 + 256) + 4 * 128),
        ({"layers": 1}, -(4 * (128 * 128 + 128) + (2 * 128 * 256 + 128 + 256) + 4 * 128)),
        ({"input_size": 448}, (28**2 - 16**2) * 128),
    ],
)
def test_each_ablation_has_the_parameters_that_its_formula_says(config: dict[str, Any], more: int) -> None:
    assert count(**config) == 402_417 + more


def test_another_width_adds_one_projection() -> None:
    model = build_model(variant="cnn_transformer", **{**TINY, "width": 6})
    assert isinstance(model, Chae)
    assert model.projection is not None
    assert model.projection.weight.shape == (6, 16)
    assert model.classifier.in_features == model.feature_dim == 6
    feature_map = model.forward_features(torch.rand(2, 3, 32, 32))
    assert feature_map.shape == (2, 16, 2, 2)
    assert model.forward_head(feature_map).shape == (2, 3)
    names = build_model(variant="cnn_transformer", **{**TINY, "width": 16}).state_dict()
    assert not [name for name in names if name.startswith("projection")]


@pytest.mark.parametrize(
    ("config", "grid"),
    [
        ({"kernel": 5, "extra_convolutions": 2}, 4),
        ({"filters": (4, 8, 16), "average_pool": 2}, 4),
        ({"filters": (4, 8, 16)}, 8),
        ({"stem": "patches", "filters": (4, 8, 16)}, 8),
    ],
)
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_stem_gives_the_grid_that_the_encoder_expects(
    variant: str, config: dict[str, Any], grid: int
) -> None:
    model = build_model(variant=variant, **{**TINY, "input_size": 64, **config})
    feature_map = model.forward_features(torch.rand(1, 3, 64, 64))
    assert feature_map.shape == (1, 16, grid, grid)
    assert model.forward_head(feature_map).shape == (1, 3)
    if variant != "cnn":
        assert model.grid == grid


def test_activation_is_the_same_all_over_the_model() -> None:
    model = build_model(variant="cnn_transformer", **TINY, activation="relu")
    kinds = [type(part) for part in model.modules()]
    assert kinds.count(torch.nn.ReLU) == 4 + 2
    assert torch.nn.GELU not in kinds


@pytest.mark.parametrize("config", [{"keep_share": 0.3}, {"attention_window": 2}])
def test_sparser_models_differ_train_and_have_heatmaps(config: dict[str, Any]) -> None:
    torch.manual_seed(0)
    values = {**TINY, "input_size": 64}
    plain = build_model(variant="cnn_transformer", **values)
    model = build_model(variant="cnn_transformer", **values, **config)
    model.load_state_dict(plain.state_dict())
    images = torch.rand(2, 3, 64, 64)
    model(images).sum().backward()
    assert all(value.grad is not None for value in model.parameters())
    model.eval().requires_grad_(False)
    feature_map = model.forward_features(images[:1])
    assert not torch.allclose(model.forward_head(feature_map), plain.eval().forward_head(feature_map))
    cams = [grad_cam(model, feature_map, index) for index in range(3)]
    assert any(cam.raw_max > 0 for cam in cams)
    assert all(cam.values.shape == (4, 4) for cam in cams)
    assert model(torch.rand(1, 3, 32, 16)).shape == (1, 3)


@pytest.mark.parametrize("config", [{"keep_share": 0.5}, {"attention_window": 2}])
def test_shapes_can_be_had_without_values(config: dict[str, Any]) -> None:
    with torch.device("meta"):
        model = build_model(variant="cnn_transformer", **{**TINY, "input_size": 64}, **config).eval()
        assert model(torch.empty(1, 3, 64, 64)).shape == (1, 3)


def test_how_many_positions_are_kept_is_told() -> None:
    torch.manual_seed(0)
    images = torch.rand(4, 3, 64, 64)
    model = build_model(variant="cnn_transformer", **{**TINY, "input_size": 64, "keep_share": 0.5})
    assert isinstance(model, Chae)
    kept = model.eval().kept(model.forward_features(images))
    assert ((kept >= 1) & (kept < 16)).all()


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
    assert isinstance(model, Chae)
    assert model.positions(4, 4) is model.position_embedding
    assert model.positions(2, 3).shape == (7, 16)
    torch.testing.assert_close(model.positions(2, 3)[0], model.position_embedding[0])
    assert model(torch.rand(1, 3, 32, 48)).shape == (1, 3)


def test_order_matters_through_the_position_embedding() -> None:
    model = build_model(variant="cnn_transformer", **TINY).eval()
    torch.nn.init.normal_(model.get_parameter("position_embedding"))
    feature_map = torch.rand(1, 16, 2, 2)
    flipped = feature_map.flip(3)
    assert not torch.allclose(model.forward_head(feature_map), model.forward_head(flipped))


def test_stem_normalises_before_it_convolves() -> None:
    model = build_model(variant="cnn", **TINY)
    kinds = [type(layer).__name__ for layer in model.get_submodule("stem.0").children()]
    assert kinds == ["BatchNorm2d", "Conv2d", "GELU", "MaxPool2d"]


@pytest.mark.parametrize(
    ("values", "error", "named"),
    [
        ({"variant": "rnn"}, UnknownVariant, "'rnn'"),
        ({"input_size": 40}, BadOption, "40"),
        ({"input_size": 4096}, BadOption, "input_size 4096 must be 2048 or less"),
        ({"filters": ()}, BadOption, "filters has 0 entries"),
        ({"filters": (8, "16")}, BadOption, r"filters\[1\] must be a whole number"),
        ({"kernel": 0}, BadOption, "kernel 0 must be 1 or more"),
        ({"heads": 0}, BadOption, "heads 0 must be 1 or more"),
        ({"heads": 3}, BadOption, "heads, 3"),
        ({"layers": 10**9}, BadOption, "layers 1000000000 must be 64 or less"),
        ({"dropout": float("nan")}, BadOption, "dropout must be a finite number"),
        ({"speed": 3}, BadOption, "unknown key speed"),
        ({"speed": object()}, BadOption, "no plain value"),
        ({"keep_share": 0}, BadOption, "keep_share 0 must be above 0"),
        ({"keep_share": 0.5, "layers": 1}, BadOption, "layers of 2"),
        ({"attention_window": 0}, BadOption, "attention_window 0 must be"),
        ({"attention_window": 9}, BadOption, "attention_window 9 must be 8 or less"),
        ({"average_pool": 0}, BadOption, "average_pool 0 must be"),
        ({"average_pool": 4}, BadOption, "multiple of 64"),
        ({"width": 5}, BadOption, "width, 5"),
        ({"morphology_width": 12}, BadOption, "morphology_width 12 must be a multiple of 8"),
        ({"num_classes": 0}, BadOption, "num_classes is 0"),
    ],
)
def test_impossible_values_are_named(values: dict[str, Any], error: type[Exception], named: str) -> None:
    with pytest.raises(error, match=named):
        build_model(**{"variant": "cnn_transformer", **TINY, **values})


@pytest.mark.parametrize("ignored", [{"heads": 3}, {"keep_share": 0.5, "layers": 1}, {"width": 5}])
def test_the_stem_alone_ignores_the_values_of_an_encoder(ignored: dict[str, Any]) -> None:
    assert build_model(variant="cnn", **{**TINY, **ignored}).feature_dim == 16
