"""The morphological feature extractor (MFE) of PawMatchAI and the fusion of its result with the features.

The five analysers carry the names of body parts because the published weights do. They work on a
reshaped *pooled* vector: they have no pixels of their own, and no map of an ear or a tail can be drawn
from them.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

# Kernel sizes of each analyser, in the order in which their outputs are concatenated.
ANALYZERS: dict[str, tuple[int, ...]] = {
    "body_proportion": (7, 3),
    "head_features": (5, 3),
    "tail_features": (5, 3),
    "fur_features": (3, 3),
    "color_pattern": (3, 3, 1),
}
RELATION_HIDDEN = 256
ATTENTION_HEADS = 8


def analyzer(kernels: tuple[int, ...], width_in: int, width: int) -> nn.Sequential:
    """Conv-BatchNorm-ReLU blocks, (N, width_in, s, s) -> (N, width, s, s)."""
    layers: list[nn.Module] = []
    for kernel in kernels:
        layers += [
            nn.Conv2d(width_in, width, kernel, padding="same"),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
        width_in = width
    return nn.Sequential(*layers)


def dense(width_in: int, *widths: int) -> nn.Sequential:
    """Linear-LayerNorm-ReLU blocks, (N, width_in) -> (N, widths[-1])."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Linear(width_in, width), nn.LayerNorm(width), nn.ReLU()]
        width_in = width
    return nn.Sequential(*layers)


class MorphologicalExtractor(nn.Module):
    """Five small convolution stacks over a reshaped pooled vector, (N, D) -> (N, D).

    `grid_channels` and `width` are 64 and 128 in the published system; small models use less.
    """

    def __init__(self, feature_dim: int, *, grid_channels: int = 64, width: int = 128) -> None:
        super().__init__()
        self.grid_channels = grid_channels
        self.side = max(7, int(math.sqrt(feature_dim // 4 // 64)))
        self.dimension_transformer = dense(feature_dim, self.side**2 * grid_channels)
        self.morphological_analyzers = nn.ModuleDict(
            {name: analyzer(kernels, grid_channels, width) for name, kernels in ANALYZERS.items()}
        )
        # Present in the published weights; the original never uses its output, so it is not computed.
        self.feature_attention = nn.MultiheadAttention(width, ATTENTION_HEADS, dropout=0.1, batch_first=True)
        count = len(ANALYZERS)
        self.relation_analyzer = dense(count * width, RELATION_HIDDEN, width)
        self.feature_integrator = dense((count + 1) * width, feature_dim)

    def forward(self, features: Tensor, branches: Tensor | None = None) -> Tensor:
        """`branches` (N, 5) multiplies what each analyzer says: at 0, it is as if it found nothing."""
        grid = self.dimension_transformer(features)
        grid = grid.view(-1, self.grid_channels, self.side, self.side)  # (N, D) -> (N, 64, s, s)
        pooled = [stack(grid).mean(dim=(2, 3)) for stack in self.morphological_analyzers.values()]
        if branches is not None:
            pooled = [said * weight[:, None] for said, weight in zip(pooled, branches.T, strict=True)]
        together = torch.cat(pooled, dim=1)  # (N, 5 * width)
        relation = self.relation_analyzer(together)
        integrated: Tensor = self.feature_integrator(torch.cat([together, relation], dim=1))
        return integrated + features


class FeatureFusion(nn.Sequential):
    """Features f and morphology m (N, D) to one vector (N, D): two dense blocks on [f, m, f * m]."""

    def __init__(self, feature_dim: int) -> None:
        super().__init__(*dense(3 * feature_dim, feature_dim, feature_dim))

    def forward(self, features: Tensor, morphology: Tensor) -> Tensor:  # type: ignore[override]
        fused = torch.cat([features, morphology, features * morphology], dim=1)
        for layer in self:
            fused = layer(fused)
        return fused
