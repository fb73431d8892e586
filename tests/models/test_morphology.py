"""The morphological feature extractor."""

import torch

from pawmatch.models.morphology import ANALYZERS, FeatureFusion, MorphologicalExtractor


def test_published_widths_at_1024() -> None:
    extractor = MorphologicalExtractor(1024)
    assert extractor.side == 7
    assert extractor.dimension_transformer[0].out_features == 7 * 7 * 64
    assert list(extractor.morphological_analyzers) == [
        "body_proportion",
        "head_features",
        "tail_features",
        "fur_features",
        "color_pattern",
    ]
    kernels = {
        name: [m.kernel_size[0] for m in stack.children() if isinstance(m, torch.nn.Conv2d)]
        for name, stack in extractor.morphological_analyzers.items()
    }
    assert kernels == {name: list(sizes) for name, sizes in ANALYZERS.items()}


def test_side_grows_with_very_wide_features() -> None:
    assert MorphologicalExtractor(32768, grid_channels=2, width=8).side == 11


def test_result_keeps_the_residual() -> None:
    extractor = MorphologicalExtractor(32, grid_channels=4, width=8).eval()
    torch.nn.init.zeros_(extractor.get_parameter("feature_integrator.1.weight"))
    features = torch.randn(2, 32)
    torch.testing.assert_close(extractor(features), features)


def test_unused_attention_gets_no_gradient_and_no_use() -> None:
    extractor = MorphologicalExtractor(32, grid_channels=4, width=8)
    extractor(torch.randn(4, 32)).sum().backward()
    idle = [name for name, value in extractor.named_parameters() if value.grad is None]
    assert idle == [
        "feature_attention.in_proj_weight",
        "feature_attention.in_proj_bias",
        "feature_attention.out_proj.weight",
        "feature_attention.out_proj.bias",
    ]


def test_fusion_sees_the_product() -> None:
    torch.manual_seed(0)
    fusion = FeatureFusion(8).eval()
    f, m = torch.randn(2, 8), torch.randn(2, 8)
    expected = torch.nn.Sequential(*fusion)(torch.cat([f, m, f * m], dim=1))
    torch.testing.assert_close(fusion(f, m), expected)
