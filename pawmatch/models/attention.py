"""Attention: of the hybrid, in the three readings that `attention_mode` names, and CHAE's encoder.

- `heads`: the pooled vector is split into H heads of width d, and the heads attend to each other.
- `published`: what the original system's code computes. Its einsum sums keys and values separately, so
  the softmax weights add up to 1 and drop out: every head gets the sum of all heads' values, and
  `query` and `key` never receive a gradient. It exists so that published weights give equal results.
- `tokens`: the h*w positions of the feature map attend to each other before pooling, which is what a
  pooled vector cannot do.

All are scaled dot-product attention (Vaswani et al. 2017, arXiv 1706.03762). Two options of the encoder save
work. They leave the parameters as they are, so that weights load with any setting:
- `keep_share`: after the first layer go on the fewest positions that together hold this share of what the CLS
  token attends to (Liang et al. 2022, arXiv 2202.07800, without its fused token; that their number depends on
  the picture is from Fayyaz et al. 2022, arXiv 2111.15667);
- `window`: a position attends to the CLS token and to its neighbors, the CLS token to everything (Beltagy
  et al. 2020, arXiv 2004.05150, in two dimensions), computed block by block (Vaswani et al. 2021, arXiv
  2103.12731).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention

# Positions a side of a block of queries. Of 4, 8 and 16, the fastest on a CPU at every grid and window tried.
BLOCK = 4

# Queries, keys and values (N, H, T, d) -> what each query draws from the values, (N, H, T, d).
Mix = Callable[[Tensor, Tensor, Tensor], Tensor]


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
        v = self._by_head(self.value(normed))
        mixed = (self._weights(normed) @ v).transpose(1, 2).reshape(n, h * w, -1)
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
        n, _, c = tokens.shape
        context = self._weights(normed).mean(dim=2) @ normed  # (N, H, C)
        value = self.value.weight.view(self.heads, self.head_width, c)
        mixed = torch.einsum("nhc,hdc->nhd", context, value).reshape(n, -1) + self.value.bias
        out: Tensor = tokens.mean(dim=1) + self.fc_out(mixed)
        return out

    def maps(self, feature_map: Tensor) -> Tensor:
        """How much of each position every head draws into the pooled vector, (N, C, h, w) -> (N, H, h, w).

        The mean over the positions that attend, as in `pooled`; the map of a head sums to 1.
        """
        n, _, h, w = feature_map.shape
        normed = self.norm(feature_map.flatten(2).transpose(1, 2))
        return self._weights(normed).mean(dim=2).view(n, self.heads, h, w)

    def _weights(self, normed: Tensor) -> Tensor:
        """How much each position attends to each, (N, T, C) -> (N, H, T, T)."""
        return attention_weights(self._by_head(self.query(normed)), self._by_head(self.key(normed)))

    def _by_head(self, projected: Tensor) -> Tensor:
        """(N, T, H*d) -> (N, H, T, d)."""
        return projected.view(*projected.shape[:2], self.heads, self.head_width).transpose(1, 2)


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

    def project(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of tokens (N, T, W), each (N, H, T, d)."""
        n, t, _ = tokens.shape
        inner = self.attention
        # Written out, since nn.MultiheadAttention gives other last digits with a gradient than without.
        projected = nn.functional.linear(
            self.norm_attention(tokens), inner.in_proj_weight, inner.in_proj_bias
        )
        # (N, T, 3 * W) -> three of (N, H, T, d)
        q, k, v = projected.view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return q, k, v

    def forward(
        self, tokens: Tensor, mix: Mix = scaled_dot_product_attention, share: float | None = None
    ) -> tuple[Tensor, Kept | None]:
        """Tokens (N, T, W) -> those that go on, and which they are where a `share` chooses among them."""
        q, k, v = self.project(tokens)
        mixed = mix(q, k, v).transpose(1, 2).reshape(tokens.shape)
        tokens = tokens + self.attention.out_proj(mixed)
        kept = None
        if share is not None:
            # The MLP works on each token alone, so those that are dropped after the layer need not pass it.
            kept = most_attended(cls_weights(q, k)[..., 1:].mean(dim=1), share)
            tokens = tokens.take_along_dim(kept.places[..., None], dim=1)  # (N, T, W) -> (N, 1 + most, W)
        out: Tensor = tokens + self.mlp(self.norm_mlp(tokens))
        return out, kept


@dataclass(frozen=True)
class Kept:
    """Which positions of each picture go on.

    `places` (N, 1 + most) are the tokens' indices, the CLS token's first, filled up to the longest row of
    the batch; the first 1 + `count` (N,) of a row are meant, and `padding` (N, 1 + most) is True for others.
    """

    places: Tensor
    count: Tensor

    @property
    def padding(self) -> Tensor:
        """Which places only fill a row up."""
        return torch.arange(self.places.shape[1], device=self.count.device) > self.count[:, None]


class Encoder(nn.ModuleList):
    """Encoder layers in a row over a CLS token, which stands first, and the positions of an h x w map."""

    def __init__(
        self, layers: Iterable[EncoderLayer], *, keep_share: float = 1.0, window: int | None = None
    ) -> None:
        super().__init__(layers)
        self.keep_share = keep_share
        self.window = window

    def forward(
        self, tokens: Tensor, height: int, width: int, rows: list[Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Tokens (N, 1 + h*w, W) -> the CLS token's vector (N, W), and how many positions were kept (N,).

        To `rows`, for one picture, goes how much the CLS token attends to itself and to each position, for
        each layer (1, H, 1 + h*w): 0 for positions that were dropped. No window holds for the CLS token.
        """
        mix: Mix = scaled_dot_product_attention
        window = self.window if self.window is not None and self.window < max(height, width) else None
        if window is not None:
            mix = partial(windowed_attention, height=height, width=width, window=window)
        share = self.keep_share if self.keep_share < 1 else None
        count = torch.full((len(tokens),), height * width, device=tokens.device)
        places = torch.arange(tokens.shape[1], device=tokens.device)[None]
        for layer in self:
            if rows is not None:
                assert isinstance(layer, EncoderLayer)
                row = cls_weights(*layer.project(tokens)[:2])
                everywhere = row.new_zeros(*row.shape[:2], 1 + height * width)
                rows.append(everywhere.scatter(2, places[:, None].expand_as(row), row))
            tokens, kept = layer(tokens, mix, share)
            if kept is not None:
                share, count, places = None, kept.count, kept.places
                blocked = kept.padding[:, None]  # (N, 1, T): nobody attends to what fills a row up
                if window is not None:
                    blocked = blocked | outside_window(kept.places, width, window)
                # A mask costs time, and a picture alone fills nothing up.
                allowed = None if window is None and len(tokens) == 1 else ~blocked[:, None]
                mix = partial(scaled_dot_product_attention, attn_mask=allowed)
        return tokens[:, 0], count


def cls_weights(query: Tensor, key: Tensor) -> Tensor:
    """How much the CLS token attends to each token, from queries and keys (N, H, T, d): (N, H, T)."""
    return attention_weights(query[:, :, :1], key)[:, :, 0]


def most_attended(weights: Tensor, share: float) -> Kept:
    """The fewest positions that hold at least `share` of the weights (N, positions) of each picture."""
    ordered, order = weights.sort(dim=1, descending=True, stable=True)
    before = ordered.cumsum(dim=1) - ordered
    count = (before < share * weights.sum(dim=1, keepdim=True)).sum(dim=1)
    # Without values, where only the cost is counted, all may be kept.
    most = weights.shape[1] if weights.is_meta else int(count.max())
    places = pad(order[:, :most] + 1, (1, 0))
    return Kept(places, count)


def outside_window(places: Tensor, width: int, window: int) -> Tensor:
    """Which pairs of tokens are no neighbors: bool (N, T, T) for tokens at `places` (N, T) of a map.

    Place 0 is the CLS token, everybody's neighbor; then come the positions, row by row, `width` in each.
    Neighbors are less than `window` rows and less than `window` columns apart: 1 leaves a position itself,
    2 the nine around it.
    """
    rows, columns = (places - 1).div(width, rounding_mode="floor"), (places - 1) % width
    far = (rows[:, :, None] - rows[:, None]).abs() >= window
    far |= (columns[:, :, None] - columns[:, None]).abs() >= window
    is_position = places > 0
    return far & is_position[:, :, None] & is_position[:, None]


def windowed_attention(q: Tensor, k: Tensor, v: Tensor, *, height: int, width: int, window: int) -> Tensor:
    """What attention under the mask `outside_window` gives, at the cost of the neighbors alone.

    Queries, keys and values are (N, H, 1 + h*w, d). A block of BLOCK x BLOCK queries attends to the CLS token
    and to the square of positions that holds the neighbors of all of them, under a mask of its own.
    """
    n, heads, t, d = q.shape
    reach = window - 1
    side = BLOCK + 2 * reach  # of that square
    down, across = -(-height // BLOCK), -(-width // BLOCK)  # blocks
    below, right = down * BLOCK - height, across * BLOCK - width  # what the last ones lack

    def around(x: Tensor) -> Tensor:
        """(N, H, 1 + h*w, d) -> what each block attends to, (N * H, blocks, 1 + side * side, d)."""
        grid = x[:, :, 1:].reshape(n * heads, height, width, d)
        grid = pad(grid, (0, 0, reach, reach + right, reach, reach + below))
        squares = grid.unfold(1, side, BLOCK).unfold(2, side, BLOCK)  # (N * H, down, across, d, side, side)
        squares = squares.permute(0, 1, 2, 4, 5, 3).reshape(n * heads, down * across, side * side, d)
        cls = x[:, :, :1].reshape(n * heads, 1, 1, d).expand(-1, down * across, -1, -1)
        return torch.cat([cls, squares], dim=2)

    grid = pad(q[:, :, 1:].reshape(n * heads, height, width, d), (0, 0, 0, right, 0, below))
    blocks = (
        grid.view(-1, down, BLOCK, across, BLOCK, d).transpose(2, 3).reshape(-1, down * across, BLOCK**2, d)
    )
    blocked = _outside_squares(height, width, window).to(q.device)
    # Written out: for blocks as small as these it takes half the time of scaled_dot_product_attention.
    scores = (blocks / math.sqrt(d)) @ around(k).transpose(-2, -1)
    mixed = scores.masked_fill(blocked, -math.inf).softmax(dim=-1) @ around(v)
    mixed = mixed.view(-1, down, across, BLOCK, BLOCK, d).transpose(2, 3)
    mixed = mixed.reshape(-1, down * BLOCK, across * BLOCK, d)[:, :height, :width]
    cls = scaled_dot_product_attention(q[:, :, :1], k, v)
    return torch.cat([cls, mixed.reshape(n, heads, t - 1, d)], dim=2)


def _outside_squares(height: int, width: int, window: int) -> Tensor:
    """Which of 1 + side * side tokens a query of each block must not attend to.

    bool (blocks, BLOCK * BLOCK, 1 + side * side): positions too far away, and those beyond the map's edge.
    """
    square = torch.arange(BLOCK + 2 * (window - 1)) - (window - 1)
    near = (torch.arange(BLOCK)[:, None] - square).abs() < window  # (BLOCK, side), the same down and across
    within = (near[:, None, :, None] & near[None, :, None, :]).reshape(1, BLOCK**2, -1)
    down, across = (
        ((places := torch.arange(0, length, BLOCK)[:, None] + square) >= 0) & (places < length)
        for length in (height, width)
    )  # each (blocks, side)
    inside = (down[:, None, :, None] & across[None, :, None, :]).reshape(len(down) * len(across), 1, -1)
    return ~pad(within & inside, (1, 0), value=True)
