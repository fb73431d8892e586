"""Attention: of the hybrid, in the three readings that `attention_mode` names, and CHAE's encoder.

- `heads`: the pooled vector is split into H heads of width d, and the heads attend to each other.
- `published`: what the original system's code computes. Its einsum sums keys and values separately, so
  the softmax weights add up to 1 and drop out: every head gets the sum of all heads' values, and
  `query` and `key` never receive a gradient. It exists so that published weights give equal results.
- `tokens`: the h*w positions of the feature map attend to each other before pooling, which is what a
  pooled vector cannot do.

All are scaled dot-product attention (Vaswani et al. 2017, arXiv 1706.03762). Two options of the encoder save
work or restrict attention. They leave the parameters as they are, so that weights load with any setting:
- `keep_tokens`: after the first layer only the positions that the CLS token attends to most go on (Liang
  et al. 2022, arXiv 2202.07800, without its fused token);
- `window`: a position attends to the CLS token and to its neighbors, the CLS token to everything (Beltagy
  et al. 2020, arXiv 2004.05150, in two dimensions). It is a mask on the full matrix: it restricts what is
  mixed, and saves no time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def head_count(width: int, heads: int | None = None) -> int:
    """Number of heads for a vector of `width`: `heads` if given, else one per 64 values, 1 to 8."""
    return heads or max(1, min(8, width // 64))


def attention_weights(query: Tensor, key: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) of queries and keys (..., T, d): weights (..., T, T)."""
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    return scores.softmax(dim=-1)


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
        weights = attention_weights(self.query(x).view(shape), self.key(x).view(shape))  # (N, H, H)
        mixed = torch.einsum("nqk,nvd->nqd", weights, value) if self.published else weights @ value
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
        mixed = (attention_weights(q, k) @ v).transpose(1, 2).reshape(n, h * w, -1)
        tokens = tokens + self.fc_out(mixed)
        mixed_map: Tensor = tokens.transpose(1, 2).reshape(n, c, h, w)
        return mixed_map

    def pooled(self, feature_map: Tensor) -> Tensor:
        """The mean over the positions of what `forward` gives, (N, C, h, w) -> (N, C).

        Mean and linear maps change places, so that values and `fc_out` are computed for one vector a head
        instead of each position: half of the work.
        """
        tokens = feature_map.flatten(2).transpose(1, 2)  # (N, C, h, w) -> (N, h*w, C)
        normed = self.norm(tokens)
        n, t, c = tokens.shape
        q, k = (
            project(normed).view(n, t, self.heads, self.head_width).transpose(1, 2)
            for project in (self.query, self.key)
        )  # each (N, H, h*w, d)
        context = attention_weights(q, k).mean(dim=2) @ normed  # (N, H, C)
        value = self.value.weight.view(self.heads, self.head_width, c)
        mixed = torch.einsum("nhc,hdc->nhd", context, value).reshape(n, -1) + self.value.bias
        out: Tensor = tokens.mean(dim=1) + self.fc_out(mixed)
        return out


class EncoderLayer(nn.Module):
    """Pre-norm encoder layer: self-attention and an MLP, each added to its input. (N, T, W) -> same."""

    def __init__(
        self,
        width: int,
        *,
        heads: int,
        mlp_width: int,
        dropout: float,
        activation: type[nn.Module] = nn.GELU,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp_width),
            activation(),
            nn.Dropout(dropout),
            nn.Linear(mlp_width, width),
            nn.Dropout(dropout),
        )

    def forward(
        self, tokens: Tensor, blocked: Tensor | None = None, keep: int | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Tokens (N, T, W) -> the tokens that go on, and their indices (N, 1 + keep) where not all do.

        `blocked` (T, T) or (N, T, T) is True where a token (row) must not attend to another (column).
        """
        n, t, width = tokens.shape
        inner = self.attention
        # Written out, since nn.MultiheadAttention gives other last digits with a gradient than without.
        projected = nn.functional.linear(
            self.norm_attention(tokens), inner.in_proj_weight, inner.in_proj_bias
        )
        # (N, T, 3 * W) -> three of (N, H, T, W / H)
        q, k, v = projected.view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        allowed = None if blocked is None else ~(blocked[:, None] if blocked.ndim == 3 else blocked)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        tokens = tokens + inner.out_proj(mixed.transpose(1, 2).reshape(n, t, width))
        kept = None
        if keep is not None:
            scores = q[:, :, :1] @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # of the CLS token
            # The MLP works on each token alone, so those that are dropped after the layer need not pass it.
            kept = most_attended(scores.softmax(dim=-1).mean(dim=1), keep)
            tokens = tokens.take_along_dim(kept[..., None], dim=1)  # (N, T, W) -> (N, 1 + keep, W)
        out: Tensor = tokens + self.mlp(self.norm_mlp(tokens))
        return out, kept


class Encoder(nn.ModuleList):
    """Encoder layers in a row over a CLS token, which stands first, and the positions of an h x w map."""

    def __init__(
        self, layers: Iterable[EncoderLayer], *, keep_tokens: int | None = None, window: int | None = None
    ) -> None:
        super().__init__(layers)
        self.keep_tokens = keep_tokens
        self.window = window

    def forward(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """Tokens (N, 1 + h*w, W) -> (N, 1 + h*w, W), or (N, 1 + keep_tokens, W) where there are more."""
        blocked = None
        if self.window is not None and self.window < max(height, width):
            blocked = outside_window(height, width, self.window).to(tokens.device)
        keep = self.keep_tokens
        if keep is not None and keep >= height * width:
            keep = None
        for layer in self:
            tokens, kept = layer(tokens, blocked, keep)
            keep = None
            if blocked is not None and kept is not None:
                blocked = blocked[kept[:, :, None], kept[:, None, :]]  # (T, T) -> (N, 1 + keep, 1 + keep)
        return tokens


def most_attended(weights: Tensor, keep: int) -> Tensor:
    """Indices (N, 1 + keep) of the CLS token and those it attends to most, from its weights (N, 1, T)."""
    best = weights[:, 0, 1:].topk(keep, dim=1, sorted=False).indices + 1
    return torch.cat([torch.zeros_like(best[:, :1]), best], dim=1)


def outside_window(height: int, width: int, window: int) -> Tensor:
    """Which pairs of tokens are no neighbors: bool (1 + h*w, 1 + h*w), the CLS token first.

    Neighbors are less than `window` rows and less than `window` columns apart: 1 leaves a position itself,
    2 the nine around it. The CLS token is everybody's neighbor.
    """
    rows = torch.arange(height).repeat_interleave(width)
    columns = torch.arange(width).repeat(height)
    far = ((rows[:, None] - rows).abs() >= window) | ((columns[:, None] - columns).abs() >= window)
    return nn.functional.pad(far, (1, 0, 1, 0), value=False)
