"""What may be handed to MultiHeadAttention: biases, gates, sinks, caps and backends, against attend() itself."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmattn import (
    ALiBi,
    Causal,
    GridBias,
    HeadGate,
    KeyLengths,
    MultiHeadAttention,
    Neighbourhood,
    RelativeBias,
    Segments,
    TokenBatch,
    attend,
)

B, N, M, H, H_KV, K, D = 3, 5, 7, 6, 3, 10, 30
LENGTHS = [4, 2, 7]


def make(**options) -> MultiHeadAttention:
    module = MultiHeadAttention(D, H, **options)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4)
    return module


def by_hand(module: MultiHeadAttention, x: torch.Tensor, **options) -> torch.Tensor:
    """The projections around one call of attend(), for dense tokens."""
    q, k, v = (part.transpose(1, 2) for part in module.project(x))
    out = attend(q, k, v, backend="math", **options).transpose(1, 2)
    return module.out_proj(out.flatten(-2))


BIASES = {
    "ALiBi": ALiBi(H),
    "signed": ALiBi(H, symmetric=False),
    "RelativeBias": RelativeBias(H),
    "GridBias": GridBias(H, (9,)),
}
each_bias = pytest.mark.parametrize("bias", BIASES.values(), ids=BIASES.keys())


@each_bias
def test_position_bias_dense(bias):
    module, x = make(position_bias=bias, num_kv_heads=H_KV), torch.randn(B, N, D)
    places = torch.arange(N)[:, None]
    torch.testing.assert_close(module(x), by_hand(module, x, bias=bias(places, places)))
    coords = torch.randint(0, 9, (B, N, 1))
    torch.testing.assert_close(module(x, coords=coords), by_hand(module, x, bias=bias(coords, coords)))


@each_bias
def test_position_bias_packed_is_each_sequence_alone(bias):
    module = make(position_bias=bias)
    tokens = TokenBatch(torch.randn(sum(LENGTHS), D), LENGTHS, torch.randint(0, 9, (sum(LENGTHS), 1)))
    out = module(tokens, mask=Causal())
    for got, alone in zip(out.split(), tokens.split(), strict=True):
        want = module(alone.values[None], coords=alone.coords, mask=Causal())[0]
        torch.testing.assert_close(got.values, want)


def test_position_bias_in_two_dimensions_and_across():
    module = make(position_bias=GridBias(H, (5, 4)))
    x = TokenBatch(torch.randn(N, D), [N], torch.stack([torch.randint(0, n, (N,)) for n in (5, 4)], 1))
    y = TokenBatch(torch.randn(M, D), [M], torch.stack([torch.randint(0, n, (M,)) for n in (5, 4)], 1))
    q, k, v = (part.transpose(0, 1)[None] for part in module.project(x, y))
    out = attend(q, k, v, bias=module.position_bias(x.coords, y.coords), backend="math")[0].transpose(0, 1)
    torch.testing.assert_close(module(x, y).values, module.out_proj(out.flatten(-2)))


def test_the_table_of_a_position_bias_learns():
    module = make(position_bias=RelativeBias(H))
    module(torch.randn(B, N, D)).square().sum().backward()
    grad = module.position_bias.table.grad
    assert grad.abs().sum() > 0
    torch.testing.assert_close(grad.sum(0), torch.zeros(H), atol=1e-3, rtol=0)  # a softmax ignores a shift


def test_a_neighbourhood_asks_for_the_coordinates_of_the_tokens():
    module = make()
    tokens = TokenBatch(torch.randn(sum(LENGTHS), D), LENGTHS, torch.randint(0, 4, (sum(LENGTHS), 2)))
    out = module(tokens, mask=Neighbourhood((1, 0)))
    for got, alone in zip(out.split(), tokens.split(), strict=True):
        near = (alone.coords[:, None] - alone.coords).abs() <= torch.tensor([1, 0])
        want = module(alone.values[None], mask=near.all(-1))[0]
        torch.testing.assert_close(got.values, want)


def test_patterns_of_each_sequence_in_packed_tokens():
    module, tokens = make(), TokenBatch(torch.randn(sum(LENGTHS), D), LENGTHS)
    segments = Segments(((0, 0, 1, 1), (1, 2), (0, 1, 2, 0, 1, 2, 0)))
    for mask in (KeyLengths((1, 2, 5)), segments, Causal() & segments):
        out = module(tokens, mask=mask)
        for index, (got, alone) in enumerate(zip(out.split(), tokens.split(), strict=True)):
            want = module(alone.values[None], mask=mask.select([index]))[0]
            torch.testing.assert_close(got.values, want)


def test_sinks_and_soft_cap_reach_the_weights():
    module, x = make(sinks=True, soft_cap=0.8), torch.randn(B, N, D)
    want = by_hand(module, x, sinks=module.sinks, soft_cap=0.8, mask=Causal())
    torch.testing.assert_close(module(x, mask=Causal()), want)
    module(x).square().sum().backward()
    assert module.sinks.grad.abs().min() > 0
    without = make(soft_cap=0.8)
    assert without.sinks is None
    without.load_state_dict({k: x for k, x in module.state_dict().items() if k != "sinks"})
    assert not torch.allclose(without(x), module(x))
    fresh = MultiHeadAttention(D, H, sinks=True)
    assert fresh.sinks.shape == (H,)
    assert not fresh.sinks.any()


@pytest.mark.parametrize("head_dim", [None, D // H])
def test_a_gate_multiplies_the_results_of_the_heads(head_dim):
    gate = HeadGate(D, H, head_dim)
    module, x = make(gate=gate), torch.randn(B, N, D)
    q, k, v = (part.transpose(1, 2) for part in module.project(x))
    factors = torch.sigmoid(gate.proj(x)).view(B, N, H, -1)
    assert factors.shape[-1] == (1 if head_dim is None else head_dim)
    out = attend(q, k, v, backend="math").transpose(1, 2) * factors
    torch.testing.assert_close(module(x), module.out_proj(out.flatten(-2)))
    packed = module(TokenBatch.from_padded(x)).values
    torch.testing.assert_close(packed, module(x).flatten(0, 1))


def test_a_gate_for_other_heads_is_refused():
    module = make(gate=HeadGate(D, H - 1))
    with pytest.raises(ValueError, match=r"a gate must give factors for 6 heads: got shape \[3, 5, 5, 1\]"):
        module(torch.randn(B, N, D))


def test_a_bias_beside_a_position_bias_is_refused():
    with pytest.raises(ValueError, match=r"give a bias or a module with position_bias, not both: got both"):
        make(position_bias=ALiBi(H))(torch.randn(B, N, D), bias=torch.zeros(N, N))


@pytest.mark.parametrize(
    "options", [{}, {"num_kv_heads": H_KV}, {"num_kv_heads": 1, "soft_cap": 2.0}, {"sinks": True}]
)
@pytest.mark.parametrize("mask", [None, Causal()])
def test_one_query_is_the_last_of_many(options, mask):
    """A single query takes a shorter way."""
    module, x = make(**options), torch.randn(B, N, D)
    torch.testing.assert_close(module(x[:, -1:], context=x, mask=mask), module(x, mask=mask)[:, -1:])
    lengths = KeyLengths((5, 1, 3))
    torch.testing.assert_close(module(x[:, -1:], context=x, mask=lengths), module(x, mask=lengths)[:, -1:])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("options", [{}, {"num_kv_heads": 1}, {"position_bias": ALiBi(H)}, {"soft_cap": 2.0}])
@pytest.mark.parametrize("backend", ["cpu", "sdpa", "math"])
def test_backends_agree(backend, options, packed):
    if backend != "math" and "soft_cap" in options:
        with pytest.raises(ValueError, match="soft cap"):
            make(**options, backend=backend)(torch.randn(B, N, D))
        return
    module, twin = make(**options, backend=backend), make(**options, backend="math").double()
    twin.load_state_dict(module.state_dict())
    tokens = TokenBatch(torch.randn(sum(LENGTHS), D), LENGTHS)
    x = tokens if packed else torch.randn(B, N, D)
    wide = tokens.replace(tokens.values.double()) if packed else x.double()
    results = [m(y, mask=Causal()) for m, y in ((module, x), (twin, wide))]
    got, want = (y.values if packed else y for y in results)
    got.square().sum().backward()
    want.square().sum().backward()
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5)
    for mine, theirs in zip(module.parameters(), twin.parameters(), strict=True):
        room = 1e-5 * max(1.0, theirs.grad.abs().max().item())  # entries are sums that cancel
        torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=1e-4, atol=room)


def test_autocast_computes_in_half_precision():
    module, x = make(), torch.randn(B, N, D)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = module(x, mask=Causal())
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), module(x, mask=Causal()), rtol=0.1, atol=0.1)
    out.float().square().sum().backward()
    assert module.qkv_proj.weight.grad.dtype == torch.float32
