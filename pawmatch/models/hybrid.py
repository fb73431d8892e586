"""Hybrid classifier on a timm CNN: backbone, then optionally morphology, fusion and attention.

After PawMatchAI (https://huggingface.co/spaces/DawnC/PawMatchAI), whose published system stands on ConvNeXt
V2 (Woo et al. 2023, arXiv 2301.00808). What is unusual:
- attribute names match the original system's, so that its published weights load as they are;
- a 1x1 `projection`, which the original does not have, keeps the heads small on a wide map;
- the variants are rows of one table and differ only in which modules exist;
- `forward_features` ends at the backbone's last map and `forward_head` does the rest, so an explanation
  needs the gradient of the head alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval, MultipleOf
from torch import Tensor, nn

from pawmatch.models.attention import HeadAttention, TokenAttention
from pawmatch.models.backbone import VARIANTS, BackboneConfig, ImageModel, Width, create_backbone
from pawmatch.models.morphology import ATTENTION_HEADS, FeatureFusion, MorphologicalExtractor

CLASSIFIER_DROPOUT = 0.3

MorphologyWidth = Annotated[int, Interval(ge=8, le=1_024), MultipleOf(ATTENTION_HEADS)]


@dataclass(frozen=True, kw_only=True)
class HybridConfig:
    """What makes one hybrid differ from another.

    `projection` is the width D to which a 1x1 convolution brings the backbone's map before anything else
    sees it; None keeps the map as it is. Everything after it is as wide as D. The modes of attention are
    explained in pawmatch.models.attention.
    """

    backbone: str = "convnextv2_base"
    backbone_config: BackboneConfig | None = None
    projection: Width | None = None
    attention_mode: Literal["heads", "published", "tokens"] = "heads"
    attention_heads: Annotated[int, Interval(ge=1, le=64)] | None = None
    morphology_channels: Annotated[int, Interval(ge=1, le=1_024)] = 64
    morphology_width: MorphologyWidth = 128


class Hybrid(ImageModel):
    """CNN, CNN + Transformer or CNN + Transformer + MFE on one timm backbone."""

    def __init__(self, config: HybridConfig, *, variant: str, num_classes: int) -> None:
        super().__init__()
        parts = VARIANTS[variant]
        self.backbone = create_backbone(config.backbone, config.backbone_config)
        channels = int(self.backbone.num_features)  # type: ignore[arg-type]
        # Some CNNs widen the pooled vector with a last 1x1 convolution (MobileNetV4: 960 -> 1280).
        self.feature_dim = int(getattr(self.backbone, "head_hidden_size", channels))
        self.projection: nn.Module | None = None
        if config.projection is not None:
            self.projection = nn.Conv2d(channels, config.projection, 1, bias=False)
            channels = self.feature_dim = config.projection
        self.tokens = parts.attention and config.attention_mode == "tokens"
        self.morphological_extractor: nn.Module | None = None
        self.feature_fusion: nn.Module | None = None
        if parts.morphology:
            self.morphological_extractor = MorphologicalExtractor(
                self.feature_dim, grid_channels=config.morphology_channels, width=config.morphology_width
            )
            self.feature_fusion = FeatureFusion(self.feature_dim)
        self.attention: nn.Module | None = None
        if self.tokens:
            self.attention = TokenAttention(channels, heads=config.attention_heads)
        elif parts.attention:
            published = config.attention_mode == "published"
            self.attention = HeadAttention(
                self.feature_dim, heads=config.attention_heads, published=published
            )
        self.classifier = nn.Sequential(
            nn.LayerNorm(self.feature_dim),
            nn.Dropout(CLASSIFIER_DROPOUT),
            nn.Linear(self.feature_dim, num_classes),
        )

    def features(self) -> nn.Module:
        """The backbone, a CNN of timm's."""
        return self.backbone

    def forward_features(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) -> the backbone's last feature map (N, C, h, w)."""
        feature_map: Tensor = self.backbone.forward_features(images)  # type: ignore[operator]
        return feature_map

    def attention_maps(self, feature_map: Tensor) -> Tensor | None:
        """How much of each position every head draws, (1, C, h, w) -> (1, H, h, w); a head's map sums to 1.

        None where heads attend to each other in a pooled vector, which has no positions.
        """
        if not isinstance(self.attention, TokenAttention):
            return None
        return self.attention.maps(feature_map if self.projection is None else self.projection(feature_map))

    def forward_head(self, feature_map: Tensor, branches: Tensor | None = None) -> Tensor:
        """Feature map (N, C, h, w) -> logits (N, classes); `branches` are the extractor's."""
        if self.projection is not None:
            if not self.tokens:  # a mean and a linear map may change places: one position instead of h*w
                feature_map = feature_map.mean(dim=(2, 3), keepdim=True)
            feature_map = self.projection(feature_map)  # (N, C, h, w) -> (N, D, h, w)
        if isinstance(self.attention, TokenAttention) and self.projection is None:
            feature_map = self.attention(feature_map)
        if isinstance(self.attention, TokenAttention) and self.projection is not None:
            features = self.attention.pooled(feature_map)
        elif self.projection is not None:
            features = feature_map.mean(dim=(2, 3))
        else:
            features = self.backbone.forward_head(feature_map)  # type: ignore[operator]
        if self.morphological_extractor is not None and self.feature_fusion is not None:
            features = self.feature_fusion(features, self.morphological_extractor(features, branches))
        if self.attention is not None and not self.tokens:
            features = self.attention(features)
        logits: Tensor = self.classifier(features)
        return logits
