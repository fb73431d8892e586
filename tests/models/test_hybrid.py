"""The hybrid family: its variants, its backbones, its agreement with the original system."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pawmatch.errors import BadOption, UnknownVariant, UnsupportedBackbone
from pawmatch.models import VARIANTS, build_model

TINY: dict[str, Any] = {
    "family": "hybrid",
    "num_classes": 5,
    "backbone": "resnet18d",
    "backbone_config": {"channels": [8, 8, 16, 16], "stem_width": 8},
    "morphology_channels": 4,
    "morphology_width": 8,
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_forward_is_head_of_features(variant: str) -> None:
    model = build_model(variant=variant, **TINY).eval()
    images = torch.randn(2, 3, 64, 96)
    feature_map = model.forward_features(images)
    assert feature_map.shape == (2, 16, 2, 3)
    logits = model(images)
    assert logits.shape == (2, 5)
    torch.testing.assert_close(logits, model.forward_head(feature_map))


def test_variants_differ_in_modules_only() -> None:
    modules = {
        variant: {name.partition(".")[0] for name in build_model(variant=variant, **TINY).state_dict()}
        for variant in VARIANTS
    }
    assert modules["cnn"] == {"backbone", "classifier"}
    assert modules["cnn_transformer"] == modules["cnn"] | {"attention"}
    assert modules["cnn_transformer_mfe"] == modules["cnn_transformer"] | {
        "morphological_extractor",
        "feature_fusion",
    }


@pytest.mark.parametrize("mode", ["heads", "published", "tokens"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_projection_sets_the_width_of_all_that_follows(variant: str, mode: str) -> None:
    model = build_model(variant=variant, attention_mode=mode, projection=12, **TINY).eval()
    assert model.feature_dim == 12
    assert model.get_parameter("projection.weight").shape == (12, 16, 1, 1)
    assert model.get_parameter("classifier.2.weight").shape == (5, 12)
    images = torch.randn(2, 3, 64, 96)
    feature_map = model.forward_features(images)
    assert feature_map.shape == (2, 16, 2, 3)  # the backbone's own, which other heads can share
    torch.testing.assert_close(model(images), model.forward_head(feature_map))
    # A projection that keeps all as it is changes nothing.
    plain = build_model(variant=variant, attention_mode=mode, **TINY).eval()
    same = build_model(variant=variant, attention_mode=mode, projection=16, **TINY).eval()
    state = plain.state_dict() | {"projection.weight": torch.eye(16)[:, :, None, None]}
    same.load_state_dict(state)
    torch.testing.assert_close(same.forward_head(feature_map), plain.forward_head(feature_map))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"projection": 0}, "projection 0 must be 1 or more"),
        ({"attention_heads": 0}, "attention_heads 0 must be 1 or more"),
        ({"attention_heads": -1}, "attention_heads -1 must be 1 or more"),
        ({"attention_mode": "sideways"}, "attention_mode 'sideways' is unknown"),
        ({"morphology_width": 12}, "morphology_width 12 must be a multiple of 8"),
        ({"color": "blue"}, "unknown key color"),
        ({"num_classes": True}, "num_classes is True"),
        ({"family": "transformer"}, "'transformer'"),
        ({"backbone_config": {"dims": [65_536]}}, r"backbone_config\.dims\[0\] 65536 must be 8192 or less"),
        ({"backbone_config": {"layers": [1, 1, 40, 40]}}, "more than 80 layers"),
        ({"backbone_config": {"channels": [[8]]}}, r"channels\[0\] must be a whole number"),
        ({"backbone_config": {"layers": [-80, 90, 1, 1]}}, r"layers\[0\] -80 must be 1 or more"),
        ({"backbone_config": {"output_stride": 3}}, "output_stride 3 is unknown; use 8, 16 or 32"),
        ({"backbone_config": {"depths": [1] * 17}}, "depths has more than 16 entries"),
    ],
)
def test_impossible_values_are_named(values: dict[str, Any], said: str) -> None:
    with pytest.raises(BadOption, match=said):
        build_model(**{"variant": "cnn_transformer_mfe", **TINY, **values})
    with pytest.raises(UnknownVariant, match="'rnn'"):
        build_model(variant="rnn", **TINY)


def test_tokens_mode_mixes_no_heads_after_pooling() -> None:
    model = build_model(variant="cnn_transformer", attention_mode="tokens", **TINY)
    keys = [key for key in model.state_dict() if key.startswith("attention.")]
    assert "attention.norm.weight" in keys
    assert "attention.fc_in.weight" not in keys


@pytest.mark.parametrize(
    ("backbone", "channels", "feature_dim"),
    [
        ("convnextv2_atto", 320, 320),
        ("tf_efficientnetv2_m", 1280, 1280),
        ("resnet18d", 512, 512),
        ("mobilenetv4_conv_small", 960, 1280),
    ],
)
def test_any_timm_cnn_is_a_backbone(backbone: str, channels: int, feature_dim: int) -> None:
    with torch.device("meta"):
        model = build_model(
            family="hybrid", variant="cnn_transformer_mfe", num_classes=7, backbone=backbone
        ).eval()
        feature_map = model.forward_features(torch.empty(1, 3, 64, 64))
        logits = model.forward_head(feature_map)
    assert feature_map.shape == (1, channels, 2, 2)
    assert model.feature_dim == feature_dim
    assert logits.shape == (1, 7)


def test_full_size_has_the_published_parameter_count() -> None:
    with torch.device("meta"):
        model = build_model(
            family="hybrid", variant="cnn_transformer_mfe", num_classes=124, backbone="convnextv2_base"
        )
    count = sum(value.numel() for value in model.parameters())
    assert round(count / 1e6, 1) == 103.3


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "no_such_net"])
def test_other_backbones_get_an_error_that_names_them(name: str) -> None:
    with pytest.raises(UnsupportedBackbone, match=name):
        build_model(family="hybrid", variant="cnn", num_classes=2, backbone=name)


@pytest.mark.parametrize("name", ["hf-hub:someone/net", "local-dir:/tmp/net", "hf_hub:someone/net"])
def test_a_backbone_name_cannot_reach_the_network_or_a_file(name: str) -> None:
    with pytest.raises(UnsupportedBackbone, match="timm knows no model"):
        build_model(family="hybrid", variant="cnn", num_classes=2, backbone=name)


@pytest.mark.parametrize("argument", ["pretrained", "checkpoint_path", "pretrained_cfg", "features_only"])
def test_a_config_cannot_pass_timm_arguments_that_load_files(argument: str) -> None:
    with pytest.raises(BadOption, match=argument):
        build_model(
            family="hybrid",
            variant="cnn",
            num_classes=2,
            backbone="resnet18d",
            backbone_config={argument: "/tmp/x"},
        )


def fill(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Fill every tensor by the rule that the reference file states."""
    filled = {}
    for i, key in enumerate(sorted(state)):
        value = state[key]
        wave = torch.sin(0.7 * torch.arange(value.numel(), dtype=torch.float64) + 1.3 * i).view(value.shape)
        if key.endswith("running_var"):
            new = 1 + 0.5 * wave
        elif key.endswith("num_batches_tracked"):
            new = torch.zeros_like(wave)
        elif value.ndim >= 2:
            new = wave * (1.5 / value[0].numel()) ** 0.5
        elif key.endswith("weight"):
            new = 1 + 0.1 * wave
        else:
            new = 0.1 * wave
        filled[key] = new.float().to(value.dtype)
    return filled


@pytest.mark.shared_data
def test_agrees_with_the_original_system(shared_reference: Path) -> None:
    reference = json.loads((shared_reference / "pawmatchai_parity.json").read_text())
    model = build_model(
        family="hybrid",
        variant="cnn_transformer_mfe",
        num_classes=reference["num_classes"],
        backbone=reference["backbone"],
        attention_mode="published",
    )
    state = model.state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == reference["shapes"]
    model.load_state_dict(fill(state))
    model = model.double().eval()
    backbone: Any = model.backbone  # a network of timm, which publishes no types
    wave = torch.sin(0.001 * torch.arange(3 * 224 * 224, dtype=torch.float64) + 0.5)
    checks = reference["checks"]

    def agrees(ours: torch.Tensor, name: str) -> None:
        theirs = torch.tensor(checks[name], dtype=torch.float64)
        torch.testing.assert_close(ours[0, : len(theirs)], theirs, rtol=0, atol=1e-6)

    with torch.no_grad():
        feature_map = model.forward_features(wave.view(1, 3, 224, 224))
        features = backbone.forward_head(feature_map)
        agrees(features, "features[0,:8]")
        agrees(model.get_submodule("morphological_extractor")(features), "morphological_features[0,:8]")
        logits = model.forward_head(feature_map)
    agrees(logits, "logits[0,:16]")
    assert int(logits.argmax()) == checks["argmax"]
