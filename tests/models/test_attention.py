"""The three readings of the hybrid's attention.

The encoder of CHAE with tokens dropped and attention restricted to a window.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from pawmatch.models.attention import (
    Encoder,
    EncoderLayer,
    HeadAttention,
    TokenAttention,
    head_count,
    most_attended,
    outside_window,
    windowed_attention,
)


@pytest.mark.parametrize(
    ("width", "heads"), [(8, 1), (63, 1), (128, 2), (272, 4), (320, 5), (512, 8), (1024, 8), (4096, 8)]
)
def test_one_head_per_64_values_and_at_most_8(width: int, heads: int) -> None:
    assert head_count(width) == heads


def test_head_count_can_be_given() -> None:
    assert HeadAttention(256, heads=16).head_width == 16


def test_heads_mode_equals_a_loop_over_the_formula() -> None:
    torch.manual_seed(0)
    attention = HeadAttention(128).double().eval()
    x = torch.randn(3, 128, dtype=torch.float64)
    inner = attention.fc_in(x)
    q, k, v = (f(inner).view(3, 2, 64) for f in (attention.query, attention.key, attention.value))
    expected = torch.empty(3, 2, 64, dtype=torch.float64)
    for n in range(3):
        for i in range(2):
            weights = torch.stack([q[n, i] @ k[n, j] / 8 for j in range(2)]).softmax(dim=0)
            expected[n, i] = sum(weights[j] * v[n, j] for j in range(2))
    torch.testing.assert_close(attention(x), attention.fc_out(expected.reshape(3, -1)))


def test_published_mode_ignores_query_and_key() -> None:
    torch.manual_seed(0)
    attention = HeadAttention(128, published=True)
    x = torch.randn(2, 128)
    before = attention(x)
    torch.nn.init.normal_(attention.query.weight)
    torch.nn.init.normal_(attention.key.weight)
    torch.testing.assert_close(attention(x), before)
    value = attention.value(attention.fc_in(x)).view(2, 2, 64).sum(dim=1, keepdim=True)
    summed = value.expand(2, 2, 64).reshape(2, -1)
    torch.testing.assert_close(attention(x), attention.fc_out(summed))


def test_tokens_mode_equals_a_loop_over_the_formula() -> None:
    torch.manual_seed(0)
    attention = TokenAttention(128).double().eval()
    torch.nn.init.normal_(attention.fc_out.weight)
    feature_map = torch.randn(2, 128, 2, 3, dtype=torch.float64)
    tokens = feature_map.flatten(2).transpose(1, 2)
    normed = attention.norm(tokens)
    q, k, v = (f(normed).view(2, 6, 2, 64) for f in (attention.query, attention.key, attention.value))
    mixed = torch.empty(2, 6, 2, 64, dtype=torch.float64)
    for n in range(2):
        for head in range(2):
            for i in range(6):
                scores = torch.stack([q[n, i, head] @ k[n, j, head] / 8 for j in range(6)])
                mixed[n, i, head] = scores.softmax(dim=0) @ v[n, :, head]
    expected = tokens + attention.fc_out(mixed.reshape(2, 6, -1))
    torch.testing.assert_close(attention(feature_map), expected.transpose(1, 2).reshape(2, 128, 2, 3))


def test_tokens_begin_as_nothing_but_the_residual_and_learn() -> None:
    attention = TokenAttention(64)
    feature_map = torch.randn(2, 64, 4, 4)
    assert torch.equal(attention(feature_map), feature_map)
    attention(feature_map).square().sum().backward()
    assert attention.fc_out.weight.grad is not None
    assert attention.fc_out.weight.grad.abs().max() > 0


WIDTH, HEADS = 16, 2


def encoder(keep_share: float = 1.0, window: int | None = None, layers: int = 2) -> Encoder:
    torch.manual_seed(0)
    stack = Encoder(
        (EncoderLayer(WIDTH, heads=HEADS, mlp_width=32, dropout=0.1) for _ in range(layers)),
        keep_share=keep_share,
        window=window,
    )
    return stack.eval()


def tokens(height: int = 3, width: int = 4, pictures: int = 2) -> Tensor:
    return torch.randn(pictures, 1 + height * width, WIDTH, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("keep_share", "window"), [(1 - 1e-7, None), (1.0, 4), (1.0, 8), (1 - 1e-7, 4)])
def test_what_drops_and_blocks_nothing_equals_the_plain_encoder(
    keep_share: float, window: int | None
) -> None:
    expected, everything = encoder()(tokens(), 3, 4)
    got, count = encoder(keep_share, window)(tokens(), 3, 4)
    torch.testing.assert_close(got, expected)
    assert count.tolist() == everything.tolist() == [12, 12]


def test_the_fewest_that_hold_the_share_of_the_attention_go_on() -> None:
    weights = torch.tensor([[0.0, 0.05, 0.01, 0.04], [0.25, 0.25, 0.25, 0.25], [0.0, 1.0, 0.0, 0.0]])
    kept = most_attended(weights, 0.7)  # of what the positions have, without the CLS token's own
    assert kept.count.tolist() == [2, 3, 1]
    assert kept.places.tolist() == [[0, 2, 4, 3], [0, 1, 2, 3], [0, 2, 1, 3]]
    assert kept.padding.tolist() == [[False, False, False, True], [False] * 4, [False, False, True, True]]


@pytest.mark.parametrize("window", [None, 2])
def test_dropping_equals_running_the_second_layer_on_the_kept_tokens(window: int | None) -> None:
    images = tokens()
    plain = encoder()
    everywhere = torch.arange(13)[None]
    blocked = (
        torch.zeros(13, 13, dtype=torch.bool) if window is None else outside_window(everywhere, 4, window)[0]
    )
    first, second = plain
    assert isinstance(first, EncoderLayer)
    normed = first.norm_attention(images)
    _, weights = first.attention(normed, normed, normed, attn_mask=blocked)
    # The CLS token's own weight is among those of the library.
    shares = weights[:, 0, 1:] / weights[:, 0, 1:].sum(dim=1, keepdim=True)
    after_first, _ = first(images, partial(scaled_dot_product_attention, attn_mask=~blocked))
    got, count = encoder(0.6, window)(images, 3, 4)
    for row in range(2):  # one picture at a time, as each keeps its own
        held = shares[row].sort(descending=True)
        number = int((held.values.cumsum(0) < 0.6).sum()) + 1
        kept = torch.cat([torch.zeros(1, dtype=torch.long), held.indices[:number] + 1])
        allowed = ~blocked[kept][:, kept]
        expected, _ = second(
            after_first[row : row + 1, kept], partial(scaled_dot_product_attention, attn_mask=allowed)
        )
        assert count[row] == number < 12
        torch.testing.assert_close(got[row], expected[0, 0])


@pytest.mark.parametrize("window", [None, 2])
def test_how_many_are_kept_depends_on_the_picture_and_not_on_its_batch(window: int | None) -> None:
    images = tokens(pictures=8)
    stack = encoder(0.7, window)
    with torch.no_grad():
        stack.get_parameter("0.attention.in_proj_weight").mul_(2)  # so that attention is far from uniform
        together, count = stack(images, 3, 4)
        alone = [stack(image[None], 3, 4) for image in images]
    assert len(set(count.tolist())) > 2
    assert count.tolist() == [int(one) for _, one in alone]
    torch.testing.assert_close(together, torch.cat([vector for vector, _ in alone]))


def test_training_and_inference_agree_on_masked_attention() -> None:
    """The library has a fast path for inference; a mask and dropped tokens must not change its answer."""
    stack = encoder(0.5, 2)
    with_gradient, _ = stack(tokens(), 3, 4)
    with torch.inference_mode():
        torch.testing.assert_close(stack(tokens(), 3, 4)[0], with_gradient.detach())


def test_a_window_keeps_neighbours_and_the_cls_token() -> None:
    blocked = outside_window(torch.arange(7)[None], 3, 2)[0]  # positions 1 2 3 over 4 5 6, the CLS token 0
    assert not blocked[0].any()
    assert not blocked[:, 0].any()
    assert blocked[1].nonzero().flatten().tolist() == [3, 6]
    assert blocked[2].nonzero().flatten().tolist() == []
    assert outside_window(torch.arange(7)[None], 3, 1)[0, 1:, 1:].logical_not().equal(torch.eye(6).bool())


@pytest.mark.parametrize("window", [1, 2, 3, 6])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 11), (9, 2), (1, 7)])
def test_blocks_give_what_the_mask_on_the_full_matrix_gives(height: int, width: int, window: int) -> None:
    q, k, v = torch.randn(3, 2, 2, 1 + height * width, 8, dtype=torch.float64).requires_grad_()
    blocked = outside_window(torch.arange(1 + height * width)[None], width, window)
    expected = scaled_dot_product_attention(q, k, v, attn_mask=~blocked[:, None])
    got = windowed_attention(q, k, v, height=height, width=width, window=window)
    torch.testing.assert_close(got, expected)
    signs = torch.randn_like(got)
    for one, other in zip(
        torch.autograd.grad((got * signs).sum(), (q, k, v)),
        torch.autograd.grad((expected * signs).sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_pooled_tokens_are_the_mean_of_the_mixed_map() -> None:
    torch.manual_seed(0)
    attention = TokenAttention(24, heads=3).double()
    torch.nn.init.normal_(attention.fc_out.weight)
    feature_map = torch.randn(2, 24, 3, 5, dtype=torch.float64)
    torch.testing.assert_close(attention.pooled(feature_map), attention(feature_map).mean(dim=(2, 3)))
