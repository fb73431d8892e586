"""CHAE: a small convolution stem and a pre-norm transformer encoder with a CLS token.

CHAE is Chiwoo Jeon's network that tells who made a picture. Its nearest relative with published code is the
compact convolutional transformer (Hassani et al. 2021, arXiv 2104.05704). What is unusual:
- BatchNorm stands before each convolution of the stem, as normalization does in a pre-norm transformer;
- the feature map is the stem's, so the whole encoder belongs to the head. The encoder's own last output
  would give a heatmap of zeros: only the CLS token reaches the classifier, so no gradient comes back to
  the other tokens of that layer;
- 402,417 parameters with the published values and 11 classes. Every other value of ChaeConfig is an
  ablation, and its default leaves the published model as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Interval, Len
from torch import Tensor, nn

from pawmatch.errors import BadOption
from pawmatch.models.attention import Encoder, EncoderLayer
from pawmatch.models.backbone import VARIANTS, ImageModel, Width
from pawmatch.models.hybrid import MorphologyWidth
from pawmatch.models.morphology import FeatureFusion, MorphologicalExtractor

Dropout = Annotated[float, Interval(ge=0, lt=1)]
Grid = Annotated[int, Interval(ge=1, le=128)]
Kernel = Annotated[int, Interval(ge=1, le=15)]
ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}


@dataclass(frozen=True, kw_only=True)
class ChaeConfig:
    """What makes one CHAE differ from another; the defaults are the published values.

    The stem has a block for each of `filters`, then `extra_convolutions` blocks of the last width that do not
    pool, then an average pool of `average_pool` positions a side; `last_kernel` is the last block's, where it
    differs. `stem="patches"` makes a vision transformer: one linear map of each patch that is as large as a
    position of the stem's map. The encoder is as wide as the last filter count, or has a projection to its
    own `width`. `keep_share` and `attention_window` are explained in
    pawmatch.models.attention. The variant without an encoder takes the encoder's values and ignores them.
    """

    input_size: Annotated[int, Interval(ge=1, le=2_048)] = 256
    filters: Annotated[tuple[Width, ...], Len(1, 8)] = (32, 32, 64, 128)
    kernel: Kernel = 3
    last_kernel: Kernel | None = None
    extra_convolutions: Annotated[int, Interval(ge=0, le=32)] = 0
    average_pool: Grid = 1
    stem: Literal["convolutions", "patches"] = "convolutions"
    activation: Literal["gelu", "relu"] = "gelu"
    stem_dropout: Dropout = 0.0
    width: Width | None = None
    layers: Annotated[int, Interval(ge=1, le=64)] = 2
    heads: Annotated[int, Interval(ge=1, le=64)] = 8
    mlp_width: Width = 256
    dropout: Dropout = 0.2
    keep_share: Annotated[float, Interval(gt=0, le=1)] = 1.0
    attention_window: Annotated[int, Interval(ge=1, le=8)] | None = None  # wider ones cost too much memory
    morphology_channels: Annotated[int, Interval(ge=1, le=1_024)] = 16
    morphology_width: MorphologyWidth = 32

    @property
    def scale(self) -> int:
        """How many pixels of the image stand side by side in one position of the map."""
        scale: int = 2 ** len(self.filters) * self.average_pool
        return scale


class StemBlock(nn.Sequential):
    """BatchNorm, convolution, activation, 2x2 max pool: (N, C, H, W) -> (N, width, H/2, W/2).

    Without `pool` the last step and the halving are left out.
    """

    def __init__(
        self, channels: int, width: int, kernel: int, activation: str, *, dropout: float, pool: bool
    ) -> None:
        layers: list[nn.Module] = [
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, width, kernel, padding="same"),
            ACTIVATIONS[activation](),
        ]
        if pool:
            layers.append(nn.MaxPool2d(2))
        if dropout:
            layers.append(nn.Dropout2d(dropout))
        super().__init__(*layers)


class Chae(ImageModel):
    """CHAE and its two neighbors: the stem alone, and CHAE with a narrow MFE on its CLS vector."""

    def __init__(self, config: ChaeConfig, *, variant: str, num_classes: int) -> None:
        super().__init__()
        parts = VARIANTS[variant]
        channels = config.filters[-1]
        width = (config.width or channels) if parts.attention else channels
        if config.input_size % config.scale:
            raise BadOption(
                f"input_size {config.input_size} must be a multiple of {config.scale} for "
                f"{len(config.filters)} stem blocks and average_pool {config.average_pool}."
            )
        self.feature_dim = width
        self.stem = self._stem(config)
        self.encoder: Encoder | None = None
        self.projection: nn.Linear | None = None
        if parts.attention:
            self._add_encoder(config, channels, width)
        self.morphological_extractor: nn.Module | None = None
        self.feature_fusion: nn.Module | None = None
        if parts.morphology:
            self.morphological_extractor = MorphologicalExtractor(
                width, grid_channels=config.morphology_channels, width=config.morphology_width
            )
            self.feature_fusion = FeatureFusion(width)
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, num_classes)

    @staticmethod
    def _stem(config: ChaeConfig) -> nn.Sequential:
        channels = config.filters[-1]
        if config.stem == "patches":
            return nn.Sequential(nn.Conv2d(3, channels, config.scale, stride=config.scale))
        widths = [3, *config.filters, *[channels] * config.extra_convolutions]
        kernels = [config.kernel] * (len(widths) - 2) + [config.last_kernel or config.kernel]
        stem = nn.Sequential()
        for before, after, kernel in zip(widths, widths[1:], kernels, strict=False):
            pool = len(stem) < len(config.filters)
            stem.append(
                StemBlock(before, after, kernel, config.activation, dropout=config.stem_dropout, pool=pool)
            )
        if config.average_pool > 1:
            stem.append(nn.AvgPool2d(config.average_pool))
        return stem

    def _add_encoder(self, config: ChaeConfig, channels: int, width: int) -> None:
        if width % config.heads:
            raise BadOption(f"The encoder's width, {width}, must be a multiple of heads, {config.heads}.")
        if config.keep_share < 1 and config.layers < 2:
            raise BadOption("keep_share drops tokens after the first layer; it needs layers of 2 or more.")
        if width != channels:
            self.projection = nn.Linear(channels, width)
        self.grid = config.input_size // config.scale
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position_embedding = nn.Parameter(torch.zeros(self.grid**2 + 1, width))
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.position_embedding, std=0.02)
        self.encoder = Encoder(
            (
                EncoderLayer(
                    width,
                    heads=config.heads,
                    mlp_width=config.mlp_width,
                    dropout=config.dropout,
                    activation=ACTIVATIONS[config.activation],
                )
                for _ in range(config.layers)
            ),
            keep_share=config.keep_share,
            window=config.attention_window,
        )

    def features(self) -> nn.Module:
        """The stem."""
        return self.stem

    def positions(self, height: int, width: int) -> Tensor:
        """Position embedding (1 + h*w, W) for an h x w map, resized where its grid is another one."""
        if (height, width) == (self.grid, self.grid):
            return self.position_embedding
        grid = self.position_embedding[1:].T.reshape(1, -1, self.grid, self.grid)
        grid = nn.functional.interpolate(grid, size=(height, width), mode="bicubic", align_corners=False)
        return torch.cat([self.position_embedding[:1], grid[0].flatten(1).T])

    def tokens(self, feature_map: Tensor) -> Tensor:
        """Feature map (N, C, h, w) -> what the encoder takes, (N, 1 + h*w, W), the CLS token first."""
        n, _, h, w = feature_map.shape
        tokens = feature_map.flatten(2).transpose(1, 2)  # (N, C, h, w) -> (N, h*w, C)
        if self.projection is not None:
            tokens = self.projection(tokens)  # (N, h*w, C) -> (N, h*w, W)
        return torch.cat([self.cls_token.expand(n, -1, -1), tokens], dim=1) + self.positions(h, w)

    def forward_features(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [0, 1] -> the stem's map (N, C, h, w), with H/16 x W/16 as published."""
        feature_map: Tensor = self.stem(images)
        return feature_map

    def kept(self, feature_map: Tensor) -> Tensor:
        """How many positions of each feature map (N, C, h, w) go on after the encoder's first layer, (N,)."""
        assert self.encoder is not None, "the stem alone has no encoder"
        count: Tensor = self.encoder(self.tokens(feature_map), *feature_map.shape[2:])[1]
        return count

    def attention_maps(self, feature_map: Tensor) -> Tensor | None:
        """What the CLS token attends to, (1, C, h, w) -> (layers, H, h, w); None without an encoder.

        A head's map sums to 1 together with what the CLS token attends to itself.
        """
        if self.encoder is None:
            return None
        rows: list[Tensor] = []
        self.encoder(self.tokens(feature_map), *feature_map.shape[2:], rows)
        attended = torch.cat(rows)[..., 1:]
        return attended.reshape(*attended.shape[:2], *feature_map.shape[2:])

    def forward_head(self, feature_map: Tensor, branches: Tensor | None = None) -> Tensor:
        """Feature map (N, C, h, w) -> logits (N, classes); `branches` are the extractor's."""
        if self.encoder is None:
            features = feature_map.mean(dim=(2, 3))
        else:
            features, _ = self.encoder(self.tokens(feature_map), *feature_map.shape[2:])
        if self.morphological_extractor is not None and self.feature_fusion is not None:
            features = self.feature_fusion(features, self.morphological_extractor(features, branches))
        logits: Tensor = self.classifier(self.norm(features))
        return logits
