"""CHAE: a small convolution stem and a pre-norm transformer encoder with a CLS token.

What is unusual:
- BatchNorm stands before each convolution of the stem, as normalisation does in a pre-norm transformer;
- the feature map is the stem's, so the whole encoder belongs to the head. The encoder's own last output
  would give a heatmap of zeros: only the CLS token reaches the classifier, so no gradient comes back to
  the other tokens of that layer;
- 402,417 parameters with the published values and 11 classes. Every other value in the constructor is an
  ablation, and its default leaves the published model as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from pawmatch.errors import BadOption, UnknownVariant
from pawmatch.models.attention import Encoder, EncoderLayer
from pawmatch.models.backbone import VARIANTS, ImageModel
from pawmatch.models.morphology import MorphologicalExtractor, feature_fusion, fuse


class StemBlock(nn.Sequential):
    """BatchNorm, 3x3 convolution, GELU, 2x2 max pool: (N, C, H, W) -> (N, width, H/2, W/2).

    Without `pool` the last step and the halving are left out.
    """

    def __init__(self, channels: int, width: int, *, kernel: int, dropout: float, pool: bool = True) -> None:
        layers: list[nn.Module] = [
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, width, kernel, padding="same"),
            nn.GELU(),
        ]
        if pool:
            layers.append(nn.MaxPool2d(2))
        if dropout:
            layers.append(nn.Dropout2d(dropout))
        super().__init__(*layers)


class Chae(ImageModel):
    """CHAE and its two neighbours: the stem alone, and CHAE with a narrow MFE on its CLS vector.

    The stem has a block for each of `filters`, then `extra_convolutions` blocks of the last width that do not
    pool, then an average pool of `average_pool` positions a side. The encoder is as wide as the last filter
    count, or has a projection to its own `width`. `keep_tokens` and `attention_window` are explained in
    pawmatch.models.attention. The variant without an encoder takes the encoder's values and ignores them.
    """

    features_module = "stem"

    def __init__(
        self,
        *,
        variant: str,
        num_classes: int,
        input_size: int = 256,
        filters: Sequence[int] = (32, 32, 64, 128),
        kernel: int = 3,
        extra_convolutions: int = 0,
        average_pool: int = 1,
        stem_dropout: float = 0.0,
        width: int | None = None,
        layers: int = 2,
        heads: int = 8,
        mlp_width: int = 256,
        dropout: float = 0.2,
        keep_tokens: int | None = None,
        attention_window: int | None = None,
        morphology_channels: int = 16,
        morphology_width: int = 32,
    ) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise UnknownVariant(f"Variant {variant!r} is unknown; use one of {', '.join(VARIANTS)}.")
        parts = VARIANTS[variant]
        channels = filters[-1]
        width = (width or channels) if parts.attention else channels
        for name, value in (
            ("average_pool", average_pool),
            ("keep_tokens", keep_tokens),
            ("attention_window", attention_window),
        ):
            if value is not None and value < 1:
                raise BadOption(f"{name} is {value}; it must be 1 or more.")
        scale = 2 ** len(filters) * average_pool
        if input_size % scale:
            raise BadOption(
                f"input_size {input_size} must be a multiple of {scale} for {len(filters)} stem blocks "
                f"and average_pool {average_pool}."
            )
        if width % heads:
            raise BadOption(f"The encoder's width, {width}, must be a multiple of heads, {heads}.")
        if keep_tokens is not None and layers < 2:
            raise BadOption("keep_tokens drops tokens after the first layer; it needs layers of 2 or more.")
        self.feature_dim = width
        self.stem = nn.Sequential(
            *(
                StemBlock(before, after, kernel=kernel, dropout=stem_dropout)
                for before, after in pairwise([3, *filters])
            ),
            *(
                StemBlock(channels, channels, kernel=kernel, dropout=stem_dropout, pool=False)
                for _ in range(extra_convolutions)
            ),
        )
        if average_pool > 1:
            self.stem.append(nn.AvgPool2d(average_pool))
        self.encoder: Encoder | None = None
        self.projection: nn.Linear | None = None
        if parts.attention:
            if width != channels:
                self.projection = nn.Linear(channels, width)
            self.grid = input_size // scale
            self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
            self.position_embedding = nn.Parameter(torch.zeros(self.grid**2 + 1, width))
            nn.init.trunc_normal_(self.cls_token, std=0.02)
            nn.init.trunc_normal_(self.position_embedding, std=0.02)
            self.encoder = Encoder(
                (
                    EncoderLayer(width, heads=heads, mlp_width=mlp_width, dropout=dropout)
                    for _ in range(layers)
                ),
                keep_tokens=keep_tokens,
                window=attention_window,
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
        grid = nn.functional.interpolate(grid, size=(height, width), mode="bicubic", align_corners=False)
        return torch.cat([self.position_embedding[:1], grid[0].flatten(1).T])

    def forward_features(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] -> the stem's map (N, C, h, w), with H/16 x W/16 as published."""
        feature_map: Tensor = self.stem(images)
        return feature_map

    def forward_head(self, feature_map: Tensor) -> Tensor:
        """Feature map (N, C, h, w) -> logits (N, classes)."""
        n, _, h, w = feature_map.shape
        if self.encoder is None:
            features = feature_map.mean(dim=(2, 3))
        else:
            tokens = feature_map.flatten(2).transpose(1, 2)  # (N, C, h, w) -> (N, h*w, C)
            if self.projection is not None:
                tokens = self.projection(tokens)  # (N, h*w, C) -> (N, h*w, W)
            tokens = torch.cat([self.cls_token.expand(n, -1, -1), tokens], dim=1)
            features = self.encoder(tokens + self.positions(h, w), h, w)[:, 0]  # the CLS vector, (N, W)
        if self.morphological_extractor is not None:
            features = fuse(self.feature_fusion, features, self.morphological_extractor(features))
        logits: Tensor = self.classifier(self.norm(features))
        return logits
