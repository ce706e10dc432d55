"""Decoding in steps is the whole at once, whatever the steps, the positions and the beams."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mmattn import (
    ALiBi,
    Causal,
    Decoder,
    DecoderBlock,
    FeedForward,
    LearnedPositions,
    MultiHeadAttention,
    RotaryPositions,
    TokenBatch,
    Window,
    build_decoder,
)

B, N, D, H, D_CONTEXT = 3, 19, 42, 3, 13


@pytest.mark.parametrize("capacity", [None, N])
@pytest.mark.parametrize("steps", [[1], [N], [5, 1, 1, 3]], ids=str)
def test_steps_are_the_whole(make, assert_close, contexts, decode, options, steps, capacity):
    decoder, x = make(**options), torch.randn(B, N, D)
    for context in contexts(options):
        state = decoder.start(context, capacity=capacity)
        assert_close(decode(decoder, x, state, steps), decoder(x, context))
        assert (state.length, state.batch_size) == (N, B)


@given(steps=st.lists(st.integers(1, 9), min_size=1, max_size=7), window=st.none() | st.integers(1, N))
def test_any_cut_is_the_whole(make, assert_close, contexts, decode, steps, window):
    decoder, x = make(context=True, context_dim=D_CONTEXT, window=window), torch.randn(B, N, D)
    context = contexts({"context": True})[0]
    assert_close(decode(decoder, x, decoder.start(context), steps), decoder(x, context))


def biased_decoder(window) -> Decoder:
    """A learned table of positions, biases, rotary modules of their own, and turned cross-attention."""
    blocks = [
        DecoderBlock(
            MultiHeadAttention(D, H, position_bias=ALiBi(H), positions=RotaryPositions(base)),
            FeedForward(D, 2 * D), nn.LayerNorm(D), nn.LayerNorm(D),
            MultiHeadAttention(D, H, context_dim=D_CONTEXT, positions=RotaryPositions(), position_bias=ALiBi(H)),
            nn.LayerNorm(D),
        )
        for base in (7.0, 10_000.0)
    ]  # fmt: skip
    return Decoder(blocks, nn.LayerNorm(D), LearnedPositions([N], D), window)


@pytest.mark.parametrize("window", [None, 4])
def test_every_kind_of_position_counts_on_while_decoding(randomised, assert_close, contexts, decode, window):
    decoder, x = randomised(biased_decoder(window)), torch.randn(B, N, D)
    for context in contexts({"context": True}):
        assert_close(decode(decoder, x, decoder.start(context), [5, 1]), decoder(x, context))


def gpt2(model, depth: int) -> Decoder:
    """The trunk of a GPT-2 of transformers as ours."""
    table = LearnedPositions([model.config.n_positions], D)
    table.table.data.copy_(model.wpe.weight)
    decoder = Decoder(list(build_decoder(D, depth, H, positions="none").blocks), nn.LayerNorm(D), table)
    for ours, theirs in zip(decoder.blocks, model.h, strict=True):
        linear = (
            (ours.attention.qkv_proj, theirs.attn.c_attn), (ours.attention.out_proj, theirs.attn.c_proj),
            (ours.feed_forward[0], theirs.mlp.c_fc), (ours.feed_forward[3], theirs.mlp.c_proj),
        )  # fmt: skip
        for one, other in linear:
            one.weight.data.copy_(other.weight.T)
            one.bias.data.copy_(other.bias)
        ours.attention_norm.load_state_dict(theirs.ln_1.state_dict())
        ours.feed_forward_norm.load_state_dict(theirs.ln_2.state_dict())
    decoder.norm.load_state_dict(model.ln_f.state_dict())
    return decoder


def test_cached_decoding_agrees_with_gpt2(randomised):
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=17, n_positions=N, n_embd=D, n_layer=2, n_head=H, activation_function="gelu"
    )
    theirs = randomised(transformers.GPT2Model(config)).eval()
    decoder, ids = gpt2(theirs, 2), torch.randint(0, 17, (B, N))
    state, past, begin = decoder.start(), None, 0
    with torch.no_grad():
        for step in (5, 1, 1, 4, 8):
            chunk = ids[:, begin : begin + step]
            wanted = theirs(chunk, past_key_values=past, use_cache=True)
            past, begin = wanted.past_key_values, begin + step
            torch.testing.assert_close(
                decoder.step(theirs.wte(chunk), state), wanted.last_hidden_state, rtol=1e-4, atol=1e-5
            )
    assert begin == N


@pytest.mark.parametrize("rows", [[2, 0, 1], [1, 1, 0, 2, 2], [2], [0, 1, 2]], ids=str)
def test_select_goes_on_with_other_sequences(make, assert_close, contexts, decode, options, rows):
    decoder, x = make(**options), torch.randn(B, N, D)
    new = torch.randn(len(rows), N - 7, D)
    for context in contexts(options):
        state = decoder.start(context)
        decode(decoder, x[:, :7], state, [5, 2])
        state.select(torch.tensor(rows))
        found = decode(decoder, new, state, [1, 3])
        theirs = context.select(rows) if isinstance(context, TokenBatch) else context
        theirs = theirs[rows] if isinstance(theirs, torch.Tensor) else theirs
        assert_close(found, decoder(torch.cat([x[rows, :7], new], 1), theirs)[:, 7:])
        assert (state.batch_size, state.length) == (len(rows), N)


def test_beams_keep_the_memory_of_their_context(make, assert_close, contexts, decode):
    decoder = make(context=True, context_dim=D_CONTEXT)
    context = contexts({"context": True})[0]
    state = decoder.start(context)
    state.select([0, 0, 1, 1, 2, 2])  # two beams each, before the first token
    memory = state.memories[0]
    x = torch.randn(6, N, D)
    decode(decoder, x[:, :7], state, [7])
    state.select([1, 1, 2, 3, 5, 4])
    assert state.memories[0] is memory
    order = [1, 1, 2, 3, 5, 4]
    beams = context.select([0, 0, 1, 1, 2, 2])
    assert_close(
        decode(decoder, x[:, 7:], state, [3]), decoder(torch.cat([x[order, :7], x[:, 7:]], 1), beams)[:, 7:]
    )
    state.select([0, 1, 4, 5, 2, 3])  # the second and third change places
    assert state.memories[0] is not memory
    assert state.memories[0].sizes == (7, 7, 5, 5, 2, 2)


def test_a_step_takes_a_mask_of_its_own(make, assert_close):
    decoder, x = make(window=4), torch.randn(B, N, D)
    narrow = Causal() & Window(1, 0)
    state = decoder.start()
    with torch.no_grad():
        found = torch.cat([decoder.step(part, state, mask=narrow) for part in x.split(5, 1)], 1)
    assert_close(found, decoder(x, mask=narrow))
    seen = torch.ones(1, 1, 1, 5, dtype=torch.bool)
    seen[..., 2] = False
    full = make()
    state = full.start()
    with torch.no_grad():
        full.step(x[:, :4], state)
        hidden = full.step(x[:, 4:5], state, mask=seen)
    assert (hidden - full(x)[:, 4:5]).abs().max() > 0.01


def test_keys_of_the_context_are_computed_once(make, contexts, decode):
    decoder = make(context=True, context_dim=D_CONTEXT)
    calls = []
    for block in decoder.blocks:
        block.cross_attention.kv_proj.register_forward_hook(lambda *_: calls.append(1))
    state = decoder.start(contexts({"context": True})[0])
    decode(decoder, torch.randn(B, 7, D), state, [1])
    assert len(calls) == 2


def test_the_batch_is_that_of_the_first_step(make, decode):
    decoder, state = make(), make().start()
    assert state.batch_size is None
    decode(decoder, torch.randn(B, 1, D), state, [1])
    with pytest.raises(ValueError, match=r"^x must have the 3 sequences of the state: got 2$"):
        decode(decoder, torch.randn(2, 1, D), state, [1])
    with pytest.raises(ValueError, match=r"^rows must lie between 0 and 2: got 0 to 3$"):
        state.select([0, 3])


def test_a_step_refused_can_be_repeated(make, assert_close, decode):
    decoder, x = make(), torch.randn(B, N, D)
    state = decoder.start(capacity=N)
    with pytest.raises(ValueError, match="without gradients"):
        decoder.step(x, state)
    decode(decoder, x[:, :5], state, [5])
    with torch.no_grad(), pytest.raises(ValueError, match=r"is full: got 5 \+ 19 tokens"):
        decoder.step(x, state)
    assert_close(decode(decoder, x[:, 5:], state, [N]), decoder(x)[:, 5:])


def test_a_step_that_failed_half_way_is_not_built_on(make, decode):
    decoder, x = make(), torch.randn(B, 1, D)
    state = decoder.start()
    decode(decoder, x, state, [1])
    with torch.no_grad(), pytest.raises(RuntimeError):
        decoder.step(x, state, mask=torch.ones(B, 1, 1, 7, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"whole steps: got one whose last step failed half-way"):
        decode(decoder, x, state, [1])
