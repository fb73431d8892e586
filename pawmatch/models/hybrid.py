"""Hybrid classifier on a timm CNN: backbone, then optionally morphology, fusion and attention.

What is unusual:
- attribute names match the original system's, so that its published weights load as they are;
- a 1x1 `projection`, which the original does not have, keeps the heads small on a wide map;
- the variants are rows of one table and differ only in which modules exist;
- `forward_features` ends at the backbone's last map and `forward_head` does the rest, so an explanation
  needs the gradient of the head alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from pawmatch.errors import BadOption, UnknownVariant
from pawmatch.models.attention import ATTENTION_MODES, HeadAttention, TokenAttention
from pawmatch.models.backbone import VARIANTS, ImageModel, create_backbone
from pawmatch.models.morphology import MorphologicalExtractor, feature_fusion, fuse

CLASSIFIER_DROPOUT = 0.3


class Hybrid(ImageModel):
    """CNN, CNN + Transformer or CNN + Transformer + MFE on one timm backbone.

    `projection` is the width D to which a 1x1 convolution brings the backbone's map before anything else
    sees it; None keeps the map as it is. Everything after it is as wide as D.
    """

    features_module = "backbone"

    def __init__(
        self,
        *,
        variant: str,
        num_classes: int,
        backbone: str = "convnextv2_base",
        backbone_config: Mapping[str, Any] | None = None,
        projection: int | None = None,
        attention_mode: str = "heads",
        attention_heads: int | None = None,
        morphology_channels: int = 64,
        morphology_width: int = 128,
    ) -> None:
        super().__init__()
        if projection is not None and projection < 1:
            raise BadOption(f"projection is {projection}; it must be 1 or more.")
        if variant not in VARIANTS:
            raise UnknownVariant(f"Variant {variant!r} is unknown; use one of {', '.join(VARIANTS)}.")
        if attention_mode not in ATTENTION_MODES:
            raise BadOption(
                f"attention_mode {attention_mode!r} is unknown; use one of {', '.join(ATTENTION_MODES)}."
            )
        parts = VARIANTS[variant]
        self.backbone = create_backbone(backbone, backbone_config)
        channels = int(self.backbone.num_features)  # type: ignore[arg-type]
        # Some CNNs widen the pooled vector with a last 1x1 convolution (MobileNetV4: 960 -> 1280).
        self.feature_dim = int(getattr(self.backbone, "head_hidden_size", channels))
        if projection is None:
            self.register_module("projection", None)
        else:
            self.projection: nn.Module | None = nn.Conv2d(channels, projection, 1, bias=False)
            channels = self.feature_dim = projection
        self.tokens = parts.attention and attention_mode == "tokens"
        if parts.morphology:
            self.morphological_extractor = MorphologicalExtractor(
                self.feature_dim, grid_channels=morphology_channels, width=morphology_width
            )
            self.feature_fusion = feature_fusion(self.feature_dim)
        else:
            self.register_module("morphological_extractor", None)
            self.register_module("feature_fusion", None)
        if self.tokens:
            self.attention: nn.Module | None = TokenAttention(channels, heads=attention_heads)
        elif parts.attention:
            published = attention_mode == "published"
            self.attention = HeadAttention(self.feature_dim, heads=attention_heads, published=published)
        else:
            self.register_module("attention", None)
        self.classifier = nn.Sequential(
            nn.LayerNorm(self.feature_dim),
            nn.Dropout(CLASSIFIER_DROPOUT),
            nn.Linear(self.feature_dim, num_classes),
        )

    def forward_features(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> the backbone's last feature map (N, C, h, w)."""
        feature_map: Tensor = self.backbone.forward_features(images)  # type: ignore[operator]
        return feature_map

    def forward_head(self, feature_map: Tensor) -> Tensor:
        """Feature map (N, C, h, w) -> logits (N, classes)."""
        if self.projection is not None:
            if not self.tokens:  # a mean and a linear map may change places: one position instead of h*w
                feature_map = feature_map.mean(dim=(2, 3), keepdim=True)
            feature_map = self.projection(feature_map)  # (N, C, h, w) -> (N, D, h, w)
        if self.tokens and self.attention is not None:
            feature_map = self.attention(feature_map)
        if self.projection is not None:
            features = feature_map.mean(dim=(2, 3))
        else:
            features = self.backbone.forward_head(feature_map)  # type: ignore[operator]
        if self.morphological_extractor is not None:
            morphology = self.morphological_extractor(features)
            features = fuse(self.feature_fusion, features, morphology)
        if self.attention is not None and not self.tokens:
            features = self.attention(features)
        logits: Tensor = self.classifier(features)
        return logits
