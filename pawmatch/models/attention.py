"""The hybrid's attention, in the three readings that `attention_mode` names.

- `heads`: the pooled vector is split into H heads of width d, and the heads attend to each other.
- `published`: what the original system's code computes. Its einsum sums keys and values separately, so
  the softmax weights add up to 1 and drop out: every head gets the sum of all heads' values, and
  `query` and `key` never receive a gradient. It exists so that published weights give equal results.
- `tokens`: the h*w positions of the feature map attend to each other before pooling, which is what a
  pooled vector cannot do.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

ATTENTION_MODES = ("heads", "published", "tokens")


def head_count(width: int, heads: int | None = None) -> int:
    """Number of heads for a vector of `width`: `heads` if given, else one per 64 values, 1 to 8."""
    return heads or max(1, min(8, width // 64))


class HeadAttention(nn.Module):
    """Attention among the heads of one vector, (N, D) -> (N, D)."""

    def __init__(self, width: int, *, heads: int | None = None, published: bool = False) -> None:
        super().__init__()
        self.heads = head_count(width, heads)
        self.head_width = max(1, width // self.heads)
        self.published = published
        inner = self.heads * self.head_width
        self.fc_in = nn.Linear(width, inner)
        self.query = nn.Linear(inner, inner)
        self.key = nn.Linear(inner, inner)
        self.value = nn.Linear(inner, inner)
        self.fc_out = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc_in(x)  # (N, D) -> (N, S), S = H * d
        shape = (x.shape[0], self.heads, self.head_width)
        value = self.value(x).view(shape)
        # A Space may run this under autocast; softmax in the input's own type keeps float64 exact.
        q, k = self.query(x).view(shape), self.key(x).view(shape)
        scores = torch.einsum("nqd,nkd->nqk", q, k) / math.sqrt(self.head_width)
        weights = scores.softmax(dim=-1)  # (N, H, H)
        pattern = "nqk,nvd->nqd" if self.published else "nqk,nkd->nqd"
        mixed = torch.einsum(pattern, weights, value)
        mixed = mixed.reshape(x.shape)  # (N, H, d) -> (N, S)
        out: Tensor = self.fc_out(mixed)
        return out


class TokenAttention(nn.Module):
    """Pre-norm multi-head self-attention with a residual over the positions of a map.

    (N, C, h, w) -> (N, C, h, w). No position embedding: the map's content carries position through the
    padding of the convolutions, and any grid size works.
    """

    def __init__(self, channels: int, *, heads: int | None = None) -> None:
        super().__init__()
        self.heads = head_count(channels, heads)
        self.head_width = max(1, channels // self.heads)
        inner = self.heads * self.head_width
        self.norm = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, inner)
        self.key = nn.Linear(channels, inner)
        self.value = nn.Linear(channels, inner)
        self.fc_out = nn.Linear(inner, channels)
        # Zero, so that the map passes unchanged at first: a head that stands on a pretrained map then starts
        # from what the map is good for already (as in Goyal et al. 2017, section 5.1, for residual blocks).
        nn.init.zeros_(self.fc_out.weight)
        nn.init.zeros_(self.fc_out.bias)

    def forward(self, feature_map: Tensor) -> Tensor:
        n, c, h, w = feature_map.shape
        tokens = feature_map.flatten(2).transpose(1, 2)  # (N, C, h, w) -> (N, h*w, C)
        normed = self.norm(tokens)
        q, k, v = (
            project(normed).view(n, h * w, self.heads, self.head_width).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )  # each (N, H, h*w, d)
        scores = torch.einsum("nhqd,nhkd->nhqk", q, k) / math.sqrt(self.head_width)
        mixed = torch.einsum("nhqk,nhkd->nqhd", scores.softmax(dim=-1), v).reshape(n, h * w, -1)
        tokens = tokens + self.fc_out(mixed)
        mixed_map: Tensor = tokens.transpose(1, 2).reshape(n, c, h, w)
        return mixed_map
