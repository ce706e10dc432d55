"""MultiHeadAttention: every way to call it gives the same numbers, and torch's own module agrees."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmattn import Causal, KeyLengths, MultiHeadAttention, RotaryPositions, TokenBatch, from_key_padding_mask

B, N, M, H, H_KV, K = 3, 5, 7, 6, 3, 10
D, D_CONTEXT = 30, 13

VARIANTS = {
    "plain": {},
    "grouped": {"num_kv_heads": H_KV},
    "multi-query, wide heads": {"num_kv_heads": 1, "head_dim": K},
    "normed": {"head_dim": K, "qk_norm": nn.RMSNorm(K)},
    "rotary": {"head_dim": K, "positions": RotaryPositions()},
    "no bias, scaled": {"bias": False, "scale": 0.3},
}
each_variant = pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())


def make(**options) -> MultiHeadAttention:
    module = MultiHeadAttention(D, H, **options)
    for name, parameter in module.named_parameters():
        if "bias" in name or "norm" in name:  # where a fresh module has zeros and ones
            nn.init.normal_(parameter)
    return module


@each_variant
def test_dense_is_packed(options):
    attention, x = make(**options), torch.randn(B, N, D)
    out = attention(x)
    assert out.shape == (B, N, D)
    tokens = attention(TokenBatch.from_padded(x))
    torch.testing.assert_close(tokens.values, out.flatten(0, 1))
    lengths = (2, 5, 4)
    packed = attention(TokenBatch.from_padded(x, lengths), mask=Causal())
    dense = attention(x, mask=Causal() & KeyLengths(lengths))
    torch.testing.assert_close(packed.values, TokenBatch.from_padded(dense, lengths).values)


@each_variant
def test_fused_and_sliced_projection_agree(options):
    attention, x = make(**options), torch.randn(B, N, D)
    torch.testing.assert_close(attention(x, context=x), attention(x))
    for sliced, fused in zip(attention.project(x, x), attention.project(x), strict=True):
        torch.testing.assert_close(sliced, fused)


@each_variant
def test_a_fresh_context_dim_module_agrees_with_the_fused_one(options):
    fused, split = make(**options), make(context_dim=D, **options)
    width = fused.num_heads * fused.head_dim
    state = fused.state_dict()
    for name in [name for name in state if name.startswith("qkv_proj")]:
        tail = name.removeprefix("qkv_proj")
        whole = state.pop(name)
        state["q_proj" + tail], state["kv_proj" + tail] = whole[:width], whole[width:]
    split.load_state_dict(state)
    x, y = torch.randn(B, N, D), torch.randn(B, M, D)
    torch.testing.assert_close(split(x, y), fused(x, y))


def test_cross_attention_packed_is_dense():
    attention = make(context_dim=D_CONTEXT, num_kv_heads=H_KV)
    x, y = torch.randn(B, N, D), torch.randn(B, M, D_CONTEXT)
    lengths = (7, 0, 3)
    dense = attention(x, y, mask=KeyLengths(lengths))
    packed = attention(TokenBatch.from_padded(x), TokenBatch.from_padded(y, lengths))
    torch.testing.assert_close(packed.values, dense.flatten(0, 1))
    torch.testing.assert_close(dense[1], attention.out_proj.bias.expand(N, D))  # nothing to attend to


@pytest.mark.parametrize("context_dim", [None, D_CONTEXT])
def test_agrees_with_torch(context_dim):
    theirs = nn.MultiheadAttention(D, H, kdim=context_dim, vdim=context_dim, batch_first=True)
    nn.init.normal_(theirs.in_proj_bias)
    nn.init.normal_(theirs.out_proj.bias)
    ours = MultiHeadAttention(D, H, context_dim=context_dim)
    state = {f"out_proj.{name}": value for name, value in theirs.out_proj.state_dict().items()}
    if context_dim is None:
        state |= {"qkv_proj.weight": theirs.in_proj_weight, "qkv_proj.bias": theirs.in_proj_bias}
    else:
        state |= {"q_proj.weight": theirs.q_proj_weight, "q_proj.bias": theirs.in_proj_bias[:D]}
        state["kv_proj.weight"] = torch.cat([theirs.k_proj_weight, theirs.v_proj_weight])
        state["kv_proj.bias"] = theirs.in_proj_bias[D:]
    ours.load_state_dict(state)
    x, y = torch.randn(B, N, D), torch.randn(B, M, context_dim or D)
    ignored = torch.arange(M) >= torch.tensor([[7], [1], [3]])
    want = theirs(x, y, y, key_padding_mask=ignored, need_weights=False)[0]
    torch.testing.assert_close(ours(x, y, mask=from_key_padding_mask(ignored)), want)
    if context_dim is None:
        later = torch.ones(N, N).triu(1).bool()
        want = theirs(x, x, x, attn_mask=later, is_causal=True, need_weights=False)[0]
        torch.testing.assert_close(ours(x, mask=Causal()), want)


def test_gradients_agree_with_torch():
    theirs, ours = nn.MultiheadAttention(D, H, batch_first=True), MultiHeadAttention(D, H)
    ours.qkv_proj.weight.data.copy_(theirs.in_proj_weight)
    ours.out_proj.weight.data.copy_(theirs.out_proj.weight)
    x = torch.randn(B, N, D)
    theirs(x, x, x, need_weights=False)[0].square().sum().backward()
    ours(x).square().sum().backward()
    torch.testing.assert_close(ours.qkv_proj.weight.grad, theirs.in_proj_weight.grad)
    torch.testing.assert_close(ours.out_proj.bias.grad, theirs.out_proj.bias.grad)


def test_norms_act_on_each_head_and_are_copies():
    norm = nn.RMSNorm(K)
    attention = make(head_dim=K, qk_norm=norm)
    assert len({id(x) for x in (attention.q_norm, attention.k_norm, norm)}) == 3
    attention.q_norm.weight.data.fill_(2.0)
    attention.k_norm.weight.data.fill_(3.0)
    q, k, _ = attention.project(torch.randn(B, N, D))
    torch.testing.assert_close(q.square().mean(-1).sqrt(), torch.full((B, N, H), 2.0))
    torch.testing.assert_close(k.square().mean(-1).sqrt(), torch.full((B, N, H), 3.0))


def test_rotary_positions_use_the_coordinates_of_queries_and_keys():
    attention = make(head_dim=K, positions=RotaryPositions(base=10.0))
    values, coords = torch.randn(N, D), torch.randint(0, 40, (N, 2))
    out = attention(TokenBatch(values, [N], coords)).values
    moved = attention(TokenBatch(values, [N], coords + torch.tensor([13, 29]))).values
    torch.testing.assert_close(out, moved, rtol=1e-4, atol=1e-4)
    other = attention(TokenBatch(values, [N], coords.flip(0))).values
    assert (out - other).abs().max() > 0.01
    context = torch.randn(M, D), torch.randint(0, 40, (M, 2))
    cross = attention(TokenBatch(values, [N], coords), TokenBatch(context[0], [M], context[1])).values
    apart = attention(TokenBatch(values, [N], coords), TokenBatch(context[0], [M], context[1] + 5)).values
    assert (cross - apart).abs().max() > 0.01


def test_given_tables_are_used():
    rotary = RotaryPositions()
    attention = make(head_dim=K, positions=rotary)
    tokens = TokenBatch(torch.randn(11, D), [4, 7], torch.randint(0, 9, (11, 2)))
    tables = rotary.tables(tokens.coords, K)
    assert torch.equal(attention(tokens, tables=tables).values, attention(tokens).values)
    backwards = tables * torch.tensor([1.0, -1.0])
    assert not torch.allclose(attention(tokens, tables=backwards).values, attention(tokens).values)


def test_scale_zero_is_the_uniform_control():
    attention, x = make(scale=0), torch.randn(B, N, D)
    mean = attention.project(x).v.flatten(-2).mean(1, keepdim=True)
    torch.testing.assert_close(attention(x), attention.out_proj(mean).expand(B, N, D))
    assert "scale=0" in repr(attention)


def test_dropout_only_in_training():
    attention, x = make(dropout=0.5), torch.randn(B, N, D)
    plain = make()
    plain.load_state_dict(attention.state_dict())
    assert not torch.allclose(attention(x), plain(x))
    assert torch.equal(attention.eval()(x), plain.eval()(x))


def test_bias_reaches_the_logits():
    attention, x = make(), torch.randn(B, N, D)
    bias = torch.zeros(H, N, N).masked_fill(torch.ones(N, N).triu(1).bool(), -torch.inf)
    torch.testing.assert_close(attention(x, bias=bias), attention(x, mask=Causal()))


def test_each_projection_has_its_own_xavier_bound():
    attention = MultiHeadAttention(D, H, num_kv_heads=H_KV)
    width, kv_width = D, D // 2
    q, k, v = attention.qkv_proj.weight.split([width, kv_width, kv_width])
    for part, fan_out in ((q, width), (k, kv_width), (v, kv_width), (attention.out_proj.weight, D)):
        bound = (6 / (D + fan_out)) ** 0.5
        assert 0.95 * bound < part.abs().max() <= bound
    assert not attention.qkv_proj.bias.any()
    assert not attention.out_proj.bias.any()


def test_parameter_names_are_a_promise():
    assert set(make(qk_norm=nn.RMSNorm(5)).state_dict()) == {
        "qkv_proj.weight",
        "qkv_proj.bias",
        "out_proj.weight",
        "out_proj.bias",
        "q_norm.weight",
        "k_norm.weight",
    }
    assert set(make(context_dim=D_CONTEXT, bias=False).state_dict()) == {
        "q_proj.weight", "kv_proj.weight", "out_proj.weight",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (r"num_heads must divide embed_dim: got embed_dim=30, num_heads=7", {"num_heads": 7}),
        (r"num_kv_heads must divide num_heads: got num_heads=6, num_kv_heads=4", {"num_kv_heads": 4}),
        (r"at least 1: got embed_dim=30, num_heads=0, num_kv_heads=0", {"num_heads": 0}),
        (r"head_dim must be at least 1: got 0", {"head_dim": 0}),
        (r"dropout must lie in \[0, 1\): got 1.0", {"dropout": 1.0}),
    ],
)
def test_impossible_modules(text, options):
    with pytest.raises(ValueError, match=text):
        MultiHeadAttention(**({"embed_dim": D, "num_heads": H} | options))


@pytest.mark.parametrize(
    ("error", "text", "options", "args"),
    [
        (
            ValueError,
            r"query must be \[B, N, D\] with D=30: got shape \[3, 5, 29\]",
            {},
            [torch.zeros(B, N, 29)],
        ),
        (ValueError, r"query must be \[B, N, D\] with D=30: got shape \[5, 30\]", {}, [torch.zeros(N, D)]),
        (
            ValueError,
            r"query must be \[T, D\] with D=30: got shape \[5, 29\]",
            {},
            [TokenBatch(torch.zeros(N, 29), [N])],
        ),
        (
            ValueError,
            r"a module with context_dim needs a context: got none",
            {"context_dim": 13},
            [torch.zeros(B, N, D)],
        ),
        (
            ValueError,
            r"context must be \[B, N, D\] with D=13: got shape \[3, 7, 30\]",
            {"context_dim": 13},
            [torch.zeros(B, N, D), torch.zeros(B, M, D)],
        ),
        (
            ValueError,
            r"must have the same batch size: got 3 and 2",
            {},
            [torch.zeros(B, N, D), torch.zeros(2, M, D)],
        ),
        (
            TypeError,
            r"both be packed or both dense: got Tensor and TokenBatch",
            {},
            [torch.zeros(B, N, D), TokenBatch(torch.zeros(N, D), [N])],
        ),
        (
            ValueError,
            r"equally many: got 1 and 2",
            {},
            [TokenBatch(torch.zeros(N, D), [N]), TokenBatch(torch.zeros(N, D), [2, 3])],
        ),
    ],
)
def test_inputs_that_do_not_fit(error, text, options, args):
    with pytest.raises(error, match=text):
        make(**options)(*args)


def test_a_backend_that_does_not_exist_is_refused_at_once():
    names = "'auto', 'cpu', 'varlen', 'flex', 'sdpa', 'math'"
    with pytest.raises(ValueError, match=f"^backend must be {names} or an object: got 'fast'$"):
        MultiHeadAttention(6, 2, backend="fast")
