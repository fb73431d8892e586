"""Views into the parts: what they claim, against the models themselves."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pawmatch import load
from pawmatch.classifier import Classifier
from pawmatch.errors import BadOption
from pawmatch.models import Chae, Hybrid, build_model
from pawmatch.models.attention import Encoder, EncoderLayer, TokenAttention
from pawmatch.models.morphology import ANALYZERS
from pawmatch.parts import draw_parts, effective_places, look_into, shapley

FULL = "cnn_transformer_mfe"
HYBRID: dict[str, Any] = {
    "family": "hybrid",
    "backbone": "resnet18d",
    "backbone_config": {"channels": (8, 8, 16, 16), "stem_width": 8},
    "attention_mode": "tokens",
    "attention_heads": 2,
    "projection": 12,
    "morphology_channels": 4,
    "morphology_width": 8,
}
CHAE: dict[str, Any] = {
    "family": "chae",
    "input_size": 32,
    "filters": (4, 8),
    "heads": 2,
    "mlp_width": 16,
    "morphology_channels": 4,
    "morphology_width": 8,
}


def tiny(values: dict[str, Any], variant: str = FULL) -> tuple[Hybrid | Chae, Tensor]:
    """A model with random weights and one feature map of it."""
    torch.manual_seed(0)
    model = build_model(variant=variant, num_classes=4, **values).eval().requires_grad_(False)
    assert isinstance(model, Hybrid | Chae)
    if isinstance(model, Hybrid) and isinstance(model.attention, TokenAttention):
        torch.nn.init.normal_(model.attention.fc_out.weight)
    return model, model.forward_features(torch.rand(1, 3, 96, 96))


@pytest.mark.parametrize("projection", [None, 12])
def test_each_head_of_the_hybrid_draws_shares_that_sum_to_one(projection: int | None) -> None:
    model, feature_map = tiny({**HYBRID, "projection": projection})
    attention = look_into(model, feature_map, 0).attention
    assert attention is not None
    assert attention.shape == (1, 2, *feature_map.shape[2:])
    np.testing.assert_allclose(attention.sum(axis=(2, 3)), 1, atol=1e-5)


def test_the_map_of_a_head_that_looks_at_one_place_is_there() -> None:
    attention = TokenAttention(4, heads=2).eval().requires_grad_(False)
    feature_map = torch.zeros(1, 4, 3, 5)
    feature_map[0, 0, 2, 1] = feature_map[0, 1, 0, 4] = 1  # one place for each head, in a channel of its own
    for layer in (attention.query, attention.key):
        layer.weight.zero_()
    attention.query.bias.fill_(30)
    attention.key.weight[0, 0] = attention.key.weight[2, 1] = 1  # two values a head: rows 0 and 1, 2 and 3
    maps = attention.maps(feature_map)[0].numpy()
    assert np.unravel_index(maps[0].argmax(), (3, 5)) == (2, 1)
    assert np.unravel_index(maps[1].argmax(), (3, 5)) == (0, 4)
    assert maps.max(axis=(1, 2)).min() > 0.99


def test_the_hybrids_map_is_what_its_pooled_vector_draws() -> None:
    # With values and output as identity the pooled vector is the mean of the map plus what the heads draw.
    torch.manual_seed(0)
    attention = TokenAttention(4, heads=1).eval().requires_grad_(False)
    for layer in (attention.value, attention.fc_out):
        layer.weight.copy_(torch.eye(4))
        layer.bias.zero_()
    feature_map = torch.randn(1, 4, 3, 5)
    normed = attention.norm(feature_map.flatten(2).transpose(1, 2)).transpose(1, 2).view_as(feature_map)
    drawn = (attention.maps(feature_map) * normed).sum(dim=(2, 3))
    torch.testing.assert_close(attention.pooled(feature_map), feature_map.mean(dim=(2, 3)) + drawn)


def rows_of(model: Chae, feature_map: Tensor) -> list[Tensor]:
    """What the CLS token attends to in each layer, itself first."""
    rows: list[Tensor] = []
    assert isinstance(model.encoder, Encoder)
    model.encoder(model.tokens(feature_map), *feature_map.shape[2:], rows)
    return rows


@pytest.mark.parametrize("more", [{}, {"keep_share": 0.5}, {"attention_window": 2}])
def test_each_head_of_chae_attends_in_shares_that_sum_to_one(more: dict[str, Any]) -> None:
    model, feature_map = tiny({**CHAE, **more})
    assert isinstance(model, Chae)
    rows = torch.cat(rows_of(model, feature_map))
    assert rows.shape == (2, 2, 1 + 24 * 24)  # layers, heads
    torch.testing.assert_close(rows.sum(dim=2), torch.ones(2, 2))
    attention = look_into(model, feature_map, 0).attention
    assert attention is not None
    np.testing.assert_array_equal(attention.reshape(2, 2, -1), rows[..., 1:].numpy())
    attended = (attention[-1, 0] > 0).sum()
    assert attended == (int(model.kept(feature_map)) if more.get("keep_share") else 24 * 24)


@pytest.mark.parametrize("keep_share", [1.0, 0.9])
def test_the_map_of_a_chae_head_that_looks_at_one_place_is_there(keep_share: float) -> None:
    # What is dropped after the first layer must not move the maps of the second.
    model, feature_map = tiny({**CHAE, "keep_share": keep_share})
    assert isinstance(model, Chae)
    assert model.encoder is not None
    _, _, height, width = feature_map.shape
    wanted = (5, 17)
    embedded = torch.zeros(1 + height * width, 8)
    embedded[1 + wanted[0] * width + wanted[1], 0] = 100
    model.grid = height
    model.position_embedding = torch.nn.Parameter(embedded, requires_grad=False)
    for layer in model.encoder:
        assert isinstance(layer, EncoderLayer)
        layer.attention.in_proj_weight.zero_()
        layer.attention.in_proj_bias.zero_()
        layer.attention.in_proj_bias[:4] = 30  # queries of the first head
        layer.attention.in_proj_weight[8:12, 0] = 1  # keys of the first head: the channel that is set
    attention = look_into(model, feature_map, 0).attention
    assert attention is not None
    for first_head in attention[:, 0]:
        assert np.unravel_index(first_head.argmax(), (height, width)) == wanted
        assert first_head.max() > 0.99


@pytest.mark.parametrize(
    ("values", "variant"),
    [(HYBRID, "cnn"), (CHAE, "cnn"), ({**HYBRID, "attention_mode": "heads"}, "cnn_transformer")],
)
def test_what_has_no_such_parts_shows_none(values: dict[str, Any], variant: str) -> None:
    parts = look_into(*tiny(values, variant), 0)
    assert parts.attention is None
    assert parts.branches == {}


def test_shapley_values_equal_the_mean_over_all_orders() -> None:
    values = np.random.default_rng(0).normal(size=8)
    expected = np.zeros(3)
    for order in permutations(range(3)):
        before = 0
        for player in order:
            after = before | 1 << 2 - player
            expected[player] += (values[after] - values[before]) / 6
            before = after
    np.testing.assert_allclose(shapley(values), expected)


@pytest.mark.parametrize("values", [HYBRID, {**HYBRID, "attention_mode": "heads"}, CHAE])
def test_contributions_add_up_to_what_the_branches_do(values: dict[str, Any]) -> None:
    model, feature_map = tiny(values)
    parts = look_into(model, feature_map, 2)
    assert list(parts.branches) == list(ANALYZERS)
    logits = model.forward_head(feature_map)[0]
    assert parts.logit == pytest.approx(float(logits[2] - logits.mean()), abs=1e-5)
    assert parts.logit != pytest.approx(parts.silent, abs=1e-5)
    assert sum(parts.branches.values()) == pytest.approx(parts.logit - parts.silent, abs=1e-6)


def test_a_branch_that_finds_nothing_contributes_nothing() -> None:
    model, feature_map = tiny(HYBRID)
    assert model.morphological_extractor is not None
    last = model.get_submodule("morphological_extractor.morphological_analyzers.tail_features.4")
    assert isinstance(last, torch.nn.BatchNorm2d)
    last.weight.zero_()
    last.bias.zero_()
    branches = look_into(model, feature_map, 0).branches
    assert branches["tail_features"] == pytest.approx(0, abs=1e-6)
    assert max(map(abs, branches.values())) > 1e-4


def test_places_are_counted_by_entropy() -> None:
    assert effective_places(np.full((3, 4), 1 / 12, dtype=np.float32)) == pytest.approx(12)
    assert effective_places(np.eye(1, 9, dtype=np.float32)) == pytest.approx(1)


@pytest.fixture
def painters(tiny_checkpoints: Any) -> Classifier:
    return load("artist", tiny_checkpoints("artist"))


def test_an_explanation_has_the_parts_that_are_asked_for(painters: Classifier, photo: Image.Image) -> None:
    assert painters.explain(photo).parts == {}
    assert "parts" not in painters.explain(photo).to_dict()["explanation"]
    found = painters.explain(photo, "Rembrandt", parts=True)
    assert list(found.parts) == ["cnn", "cnn_transformer", FULL]
    told = found.to_dict()["explanation"]["parts"]
    assert told["cnn"]["heads"] is None
    assert told["cnn_transformer"]["heads"] == [1, 2, 2, 2]
    assert told[FULL]["branches"] == found.parts[FULL].branches
    sheet = draw_parts(found, colormap="viridis")
    single = draw_parts(replace(found, parts={"cnn_transformer": found.parts["cnn_transformer"]}))
    assert sheet.width == single.width
    assert sheet.height == 2 * single.height - 16  # six tiles in rows of three, then three


def test_weights_without_such_parts_are_refused(
    tiny_checkpoints: Any, photo: Image.Image, tmp_path: Path
) -> None:
    found = load("breed", tiny_checkpoints("breed") / "cnn").explain(photo, parts=True)
    with pytest.raises(BadOption, match="leave out --parts"):
        draw_parts(found)
