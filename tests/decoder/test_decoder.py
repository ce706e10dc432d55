"""The decoder as a whole: packed training is each pair alone, dense is packed, and no token sees a later one."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmattn import (
    Causal,
    Decoder,
    DecoderBlock,
    MultiHeadAttention,
    Prefix,
    TokenBatch,
    Window,
    build_decoder,
    build_encoder,
)

B, N, D, H, D_CONTEXT = 3, 19, 42, 3, 13
TARGETS, SOURCES = [5, 1, 11, 7], [2, 13, 0, 4]


def test_packed_targets_are_each_sequence_alone(make, assert_close, contexts, options):
    decoder = make(**options)
    targets = TokenBatch(torch.randn(sum(TARGETS), D), TARGETS)
    context = contexts(options, SOURCES)[0]
    out = decoder(targets, context)
    assert out.sizes == targets.sizes
    assert out.coords is targets.coords
    sources = [None] * len(TARGETS) if context is None else context.split()
    for part, alone, source in zip(out.split(), targets.split(), sources, strict=True):
        assert_close(part.values, decoder(alone, source).values)


def test_dense_and_packed_mix(make, assert_close, contexts, options):
    decoder, x = make(**options), torch.randn(B, N, D)
    packed = TokenBatch.from_padded(x)
    for context in contexts(options):
        out = decoder(x, context)
        assert out.shape == (B, N, D)
        assert_close(decoder(packed, context).values, out.flatten(0, 1))


@pytest.mark.parametrize("window", [None, 4])
def test_no_token_sees_a_later_one_or_leaves_the_window(make, window):
    decoder, x = make(window=window), torch.randn(1, N, D)
    changed = x.clone()
    changed[0, 6] = torch.randn(D)
    moved = (decoder(changed) - decoder(x)).abs().amax(-1)[0] > 1e-6
    # two layers of a window of 4 reach 3 tokens back each
    last = N if window is None else 6 + 2 * 3 + 1
    assert moved.nonzero()[:, 0].tolist() == list(range(6, last))


def dense_reference(decoder: Decoder, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """One target ``[N, D]`` with its source ``[M, D_context]``, written out with plain products."""

    def heads(z, weight, bias):
        return F.linear(z, weight, bias).unflatten(-1, (-1, D // H)).transpose(0, 1)

    def attended(q, k, v, hidden):
        logits = (q @ k.transpose(1, 2) / (D // H) ** 0.5).masked_fill(hidden, -torch.inf)
        return (logits.softmax(-1) @ v).transpose(0, 1).flatten(1)

    for block in decoder.blocks:
        own, cross = block.attention, block.cross_attention
        z = block.attention_norm(x)
        weights, biases = own.qkv_proj.weight.chunk(3), own.qkv_proj.bias.chunk(3)
        q, k, v = (heads(z, weight, bias) for weight, bias in zip(weights, biases, strict=True))
        later = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
        x = x + own.out_proj(attended(q, k, v, later))
        z = block.cross_attention_norm(x)
        q = heads(z, cross.q_proj.weight, cross.q_proj.bias)
        weights, biases = cross.kv_proj.weight.chunk(2), cross.kv_proj.bias.chunk(2)
        k, v = (heads(y, weight, bias) for weight, bias in zip(weights, biases, strict=True))
        x = x + cross.out_proj(attended(q, k, v, torch.zeros(1, len(y), dtype=torch.bool)))
        x = x + block.feed_forward(block.feed_forward_norm(x))
    return decoder.norm(x)


def test_gradients_of_packed_training_are_those_of_each_pair(make):
    decoder = make(context=True, context_dim=D_CONTEXT, positions="none").double()
    lengths = [2, 13, 3, 4]
    targets = torch.randn(sum(TARGETS), D, dtype=torch.float64, requires_grad=True)
    sources = torch.randn(sum(lengths), D_CONTEXT, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(sum(TARGETS), D, dtype=torch.float64)
    inputs = [targets, sources, *decoder.parameters()]
    packed = decoder(TokenBatch(targets, TARGETS), TokenBatch(sources, lengths)).values
    pairs = zip(targets.split(TARGETS), sources.split(lengths), strict=True)
    alone = torch.cat([dense_reference(decoder, x, y) for x, y in pairs])
    torch.testing.assert_close(packed, alone)
    found = torch.autograd.grad((packed * weights).sum(), inputs)
    wanted = torch.autograd.grad((alone * weights).sum(), inputs)
    for one, other in zip(found, wanted, strict=True):
        assert other.abs().max() > 1e-3
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_prefix_language_model(make, assert_close):
    decoder, x = make(), torch.randn(B, N, D)
    mask = Causal() | Prefix(7)
    wanted = decoder(x, mask=mask)
    assert (wanted[:, 0] - decoder(x)[:, 0]).abs().max() > 0.01
    state = decoder.start()
    with torch.no_grad():
        found = [decoder.step(x[:, :9], state, mask=mask), decoder.step(x[:, 9:], state, mask=mask)]
    assert_close(torch.cat(found, 1), wanted)
    packed = TokenBatch(torch.randn(sum(TARGETS), D), TARGETS)
    out = decoder(packed, mask=Causal() | Prefix((5, 0, 3, 1)))
    for part, alone, length in zip(out.split(), packed.split(), (5, 0, 3, 1), strict=True):
        assert_close(part.values, decoder(alone, mask=Causal() | Prefix(length)).values)


def test_weights_of_an_encoder_load(make, assert_close):
    encoder, decoder = build_encoder(D, 2, H), make()
    decoder.load_state_dict(encoder.state_dict())
    x = torch.randn(B, N, D)
    assert_close(decoder(x), encoder(x, mask=Causal()))


def test_numbers_reach_the_parts():
    decoder = build_decoder(
        D, 3, H, num_kv_heads=1, context=True, mlp_ratio=2.0, rotary_base=7.0, window=5, backend="math",
        qk_norm=True, drop_path=0.2,
    )  # fmt: skip
    block = decoder.blocks[2]
    for attention in (block.attention, block.cross_attention):
        assert (attention.num_heads, attention.num_kv_heads, attention.backend) == (H, 1, "math")
        assert isinstance(attention.q_norm, nn.RMSNorm)
    assert block.attention.positions.base == 7.0
    assert block.cross_attention.positions is None
    assert block.cross_attention.context_dim == D
    assert block.feed_forward[0].weight.shape == (2 * D, D)
    assert [b.drop_path.p for b in decoder.blocks] == [0.0, 0.1, 0.2]
    assert (decoder.embed_dim, decoder.mask) == (D, Causal() & Window(4, 0))
    state = decoder.start(torch.randn(B, 7, D), capacity=11)
    assert [cache.window for cache in state.caches] == [5, 5, 5]
    assert repr(state) == "DecoderState(batch_size=3, length=0, with a context)"
    assert build_decoder(D, 1, H).start(capacity=11).caches[0].capacity == 11


def cross() -> Decoder:
    return build_decoder(D, 1, H, context=True)


def stepped(x, *, batch_size=None, capacity=None, decoder=None, mask=None):
    decoder = decoder or build_decoder(D, 1, H)
    with torch.no_grad():
        return decoder.step(x, decoder.start(batch_size=batch_size, capacity=capacity), mask=mask)


@pytest.mark.parametrize(
    ("text", "make_it"),
    [
        (r"^a decoder needs at least one block: got none$", lambda: Decoder([], nn.LayerNorm(D))),
        (
            r"^all blocks must have cross-attention, or none: got both$",
            lambda: Decoder([*cross().blocks, *build_decoder(D, 1, H).blocks], nn.LayerNorm(D)),
        ),
        (
            r"cross_attention and cross_attention_norm go together: got one",
            lambda: DecoderBlock(*[nn.Identity()] * 4, MultiHeadAttention(D, H)),
        ),
        (r"^window must be at least 1: got 0$", lambda: build_decoder(D, 1, H, window=0)),
        (r"^depth must be at least 1: got 0$", lambda: build_decoder(D, 0, H)),
        (r"^positions must be 'rotary', .* got 'rope'$", lambda: build_decoder(D, 1, H, positions="rope")),
        (r"^num_heads must divide embed_dim: got embed_dim=42, num_heads=5$", lambda: build_decoder(D, 1, 5)),
        (
            r"^context_dim needs context=True: got context_dim=13, context=False$",
            lambda: build_decoder(D, 1, H, context_dim=13),
        ),
        (r"with cross-attention needs a context: got none", lambda: cross()(torch.zeros(B, N, D))),
        (
            r"without cross-attention takes no context: got one",
            lambda: build_decoder(D, 1, H)(torch.zeros(B, N, D), torch.zeros(B, N, D)),
        ),
        (r"a decoder with cross-attention needs a context: got none", lambda: cross().start()),
        (
            r"a decoder without cross-attention takes no context: got one",
            lambda: build_decoder(D, 1, H).start(torch.zeros(B, N, D)),
        ),
        (
            r"^batch_size must be that of the context: got 5 for 3 sequences$",
            lambda: cross().start(torch.zeros(B, N, D), batch_size=5),
        ),
        (r"targets must be \[B, N, D\] or packed: got shape \[19, 42\]", lambda: cross()(torch.zeros(N, D))),
        (r"N of at least 1 and D=42: got shape \[3, 0, 42\]", lambda: stepped(torch.zeros(B, 0, D))),
        (r"N of at least 1 and D=42: got shape \[3, 1, 41\]", lambda: stepped(torch.zeros(B, 1, D - 1))),
        (r"N of at least 1 and D=42: got shape \[3, 42\]", lambda: stepped(torch.zeros(B, D))),
        (
            r"^x must have the 5 sequences of the state: got 3$",
            lambda: stepped(torch.zeros(B, 1, D), batch_size=5),
        ),
        (
            r"^a cache of capacity 7 is full: got 0 \+ 8 tokens$",
            lambda: stepped(torch.zeros(B, 8, D), capacity=7),
        ),
        (
            r"a step's mask must be a band: got Prefix\(length=3\)",
            lambda: stepped(torch.zeros(B, 8, D), decoder=build_decoder(D, 1, H, window=5), mask=Prefix(3)),
        ),
        (
            r"^a state must have a cache for each of 2 blocks: got 1$",
            lambda: build_decoder(D, 2, H).step(torch.zeros(B, 1, D), build_decoder(D, 1, H).start()),
        ),
    ],
)
def test_errors(text, make_it):
    with pytest.raises(ValueError, match=text):
        make_it()
