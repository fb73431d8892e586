"""CHAE: a small convolution stem and a pre-norm transformer encoder with a CLS token.

What is unusual:
- BatchNorm stands before each convolution of the stem, as normalisation does in a pre-norm transformer;
- the feature map is the stem's, so the whole encoder belongs to the head. The encoder's own last output
  would give a heatmap of zeros: only the CLS token reaches the classifier, so no gradient comes back to
  the other tokens of that layer;
- 402,417 parameters with the published values and 11 classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from pawmatch.errors import BadOption, UnknownVariant
from pawmatch.models.base import ImageModel
from pawmatch.models.hybrid import VARIANTS
from pawmatch.models.morphology import MorphologicalExtractor, feature_fusion, fuse


class StemBlock(nn.Sequential):
    """BatchNorm, 3x3 convolution, GELU, 2x2 max pool: (N, C, H, W) -> (N, width, H/2, W/2)."""

    def __init__(self, channels: int, width: int, *, kernel: int, dropout: float) -> None:
        layers: list[nn.Module] = [
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, width, kernel, padding="same"),
            nn.GELU(),
            nn.MaxPool2d(2),
        ]
        if dropout:
            layers.append(nn.Dropout2d(dropout))
        super().__init__(*layers)


class EncoderLayer(nn.Module):
    """Pre-norm encoder layer: self-attention and an MLP, each added to its input. (N, T, W) -> same."""

    def __init__(self, width: int, *, heads: int, mlp_width: int, dropout: float) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp_width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(mlp_width, width),
            nn.Dropout(dropout),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.norm_attention(tokens)
        mixed, _ = self.attention(normed, normed, normed, need_weights=False)
        tokens = tokens + mixed
        out: Tensor = tokens + self.mlp(self.norm_mlp(tokens))
        return out


class Chae(ImageModel):
    """CHAE and its two neighbours: the stem alone, and CHAE with a narrow MFE on its CLS vector."""

    features_module = "stem"

    def __init__(
        self,
        *,
        variant: str,
        num_classes: int,
        input_size: int = 256,
        filters: Sequence[int] = (32, 32, 64, 128),
        kernel: int = 3,
        stem_dropout: float = 0.0,
        layers: int = 2,
        heads: int = 8,
        mlp_width: int = 256,
        dropout: float = 0.2,
        morphology_channels: int = 16,
        morphology_width: int = 32,
    ) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise UnknownVariant(f"Variant {variant!r} is unknown; use one of {', '.join(VARIANTS)}.")
        width = filters[-1]
        if input_size % 2 ** len(filters):
            raise BadOption(
                f"input_size {input_size} must be a multiple of {2 ** len(filters)} "
                f"for {len(filters)} stem blocks."
            )
        if width % heads:
            raise BadOption(f"The last filter count, {width}, must be a multiple of heads, {heads}.")
        parts = VARIANTS[variant]
        self.feature_dim = width
        widths = [3, *filters]
        self.stem = nn.Sequential(
            *(
                StemBlock(before, after, kernel=kernel, dropout=stem_dropout)
                for before, after in pairwise(widths)
            )
        )
        self.encoder: nn.Sequential | None = None
        if parts.attention:
            self.grid = input_size // 2 ** len(filters)
            self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
            self.position_embedding = nn.Parameter(torch.zeros(self.grid**2 + 1, width))
            nn.init.trunc_normal_(self.cls_token, std=0.02)
            nn.init.trunc_normal_(self.position_embedding, std=0.02)
            self.encoder = nn.Sequential(
                *(
                    EncoderLayer(width, heads=heads, mlp_width=mlp_width, dropout=dropout)
                    for _ in range(layers)
                )
            )
        if parts.morphology:
            self.morphological_extractor = MorphologicalExtractor(
                width, grid_channels=morphology_channels, width=morphology_width
            )
            self.feature_fusion = feature_fusion(width)
        else:
            self.register_module("morphological_extractor", None)
            self.register_module("feature_fusion", None)
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, num_classes)

    def positions(self, height: int, width: int) -> Tensor:
        """Position embedding (1 + h*w, W) for an h x w map, resized where its grid is another one."""
        if (height, width) == (self.grid, self.grid):
            return self.position_embedding
        grid = self.position_embedding[1:].T.reshape(1, -1, self.grid, self.grid)
        grid = nn.functional.interpolate(
            grid, size=(height, width), mode="bicubic", align_corners=False
        )
        return torch.cat([self.position_embedding[:1], grid[0].flatten(1).T])

    def forward_features(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] -> the stem's map (N, C, H/16, W/16)."""
        feature_map: Tensor = self.stem(images)
        return feature_map

    def forward_head(self, feature_map: Tensor) -> Tensor:
        """Feature map (N, C, h, w) -> logits (N, classes)."""
        n, _, h, w = feature_map.shape
        if self.encoder is None:
            features = feature_map.mean(dim=(2, 3))
        else:
            tokens = feature_map.flatten(2).transpose(1, 2)  # (N, C, h, w) -> (N, h*w, C)
            tokens = torch.cat([self.cls_token.expand(n, -1, -1), tokens], dim=1)
            features = self.encoder(tokens + self.positions(h, w))[:, 0]  # the CLS vector, (N, C)
        if self.morphological_extractor is not None:
            features = fuse(self.feature_fusion, features, self.morphological_extractor(features))
        logits: Tensor = self.classifier(self.norm(features))
        return logits
