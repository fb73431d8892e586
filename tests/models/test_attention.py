"""The three readings of the hybrid's attention."""

import pytest
import torch

from pawmatch.models.attention import HeadAttention, TokenAttention, head_count


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


def test_heads_mode_does_use_query_and_key() -> None:
    torch.manual_seed(0)
    attention = HeadAttention(128)
    attention(torch.randn(2, 128)).sum().backward()
    assert attention.query.weight.grad is not None
    assert attention.query.weight.grad.abs().max() > 0


def test_published_mode_gives_query_no_gradient_to_speak_of() -> None:
    torch.manual_seed(0)
    attention = HeadAttention(128, published=True).double()
    attention(torch.randn(2, 128, dtype=torch.float64)).sum().backward()
    assert attention.query.weight.grad is not None
    assert attention.query.weight.grad.abs().max() < 1e-12


def test_tokens_attend_across_positions_on_any_grid() -> None:
    torch.manual_seed(0)
    attention = TokenAttention(64)
    torch.nn.init.normal_(attention.fc_out.weight)  # which begins at zero
    feature_map = torch.randn(1, 64, 3, 5, requires_grad=True)
    out = attention(feature_map)
    assert out.shape == feature_map.shape
    (gradient,) = torch.autograd.grad(out[0, :, 0, 0].sum(), feature_map)
    assert gradient[0, :, 2, 4].abs().max() > 0


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
