"""Observation of our own models, packed and dense."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmattn import (
    ALiBi,
    Causal,
    KVCache,
    MultiHeadAttention,
    Neighbourhood,
    RotaryPositions,
    TokenBatch,
    Window,
    attention_weights,
    build_classifier,
    build_decoder,
    build_encoder,
)
from mmattn.observation import observe

LENGTHS = [7, 0, 11]


@pytest.fixture
def model() -> nn.Module:
    encoder, head = build_encoder(24, depth=2, num_heads=3, dropout=0.1), build_classifier(24, 5, num_heads=2)
    return nn.ModuleDict({"encoder": encoder, "head": head})


def run(model: nn.Module, tokens: TokenBatch) -> torch.Tensor:
    torch.manual_seed(5)
    return model["head"](model["encoder"](tokens))


@pytest.mark.parametrize("weights", [False, True], ids=["statistics", "weights"])
@pytest.mark.parametrize("mode", ["train", "eval", "no_grad", "inference", "autocast"])
def test_outputs_are_equal_bit_for_bit_and_nothing_remains(model, mode, weights):
    tokens = TokenBatch(torch.randn(18, 24), LENGTHS)
    model.train(mode in ("train", "autocast"))
    with (
        torch.set_grad_enabled(mode in ("train", "eval", "autocast")),
        torch.inference_mode(mode == "inference"),
        torch.autocast("cpu", torch.bfloat16, enabled=mode == "autocast"),
    ):
        before = run(model, tokens)
        with observe(model, weights=weights) as record:
            during = run(model, tokens)
    assert torch.equal(before, during)
    assert list(record) == ["encoder.blocks.0.attention", "encoder.blocks.1.attention", "head.pool.attention"]
    assert not any(part._forward_hooks for part in model.modules())
    assert {type(part) for part in model.modules() if hasattr(part, "qkv_proj")} == {MultiHeadAttention}


def test_results_are_padded_to_the_longest_sequence(model):
    model.eval()
    sequences = [torch.randn(n, 24) for n in LENGTHS]
    with observe(model, weights=True) as kept:
        run(model, TokenBatch.from_sequences(sequences))
    with observe(model) as record:
        run(model, TokenBatch.from_sequences(sequences))
    name = "encoder.blocks.1.attention"
    assert kept[name].q_lengths.tolist() == kept[name].k_lengths.tolist() == LENGTHS
    assert kept["head.pool.attention"].weights.shape == (3, 2, 1, 11)
    assert kept["head.pool.attention"].q_lengths.tolist() == [1, 1, 1]
    for field in ("entropy", "received", "distance", "sink_mass", "max_logit"):
        torch.testing.assert_close(getattr(record[name], field), getattr(kept[name], field))
    for i, (n, sequence) in enumerate(zip(LENGTHS, sequences, strict=True)):
        with observe(model, weights=True) as alone:
            run(model, TokenBatch.from_sequences([sequence]))
        torch.testing.assert_close(kept[name].weights[i, :, :n, :n], alone[name].weights[0])
        torch.testing.assert_close(record[name].entropy[i, :, :n], alone[name].entropy[0])
        assert not kept[name].weights[i, :, n:].any()
        assert not kept[name].weights[i, :, :, n:].any()
        assert not record[name].received[i, :, n:].any()
        assert (record[name].max_logit[i, :, n:] == -torch.inf).all()


@pytest.mark.parametrize(
    ("options", "mask"),
    [
        ({"num_kv_heads": 2}, Causal()),
        ({"sinks": True, "soft_cap": 2.0}, Window(2, 1)),
        ({"position_bias": ALiBi(4)}, None),
        ({"positions": RotaryPositions(), "qk_norm": nn.RMSNorm(10)}, torch.rand(3, 1, 7, 7) > 0.3),
        ({"scale": 0.0}, None),
    ],
    ids=["grouped", "sinks", "alibi", "rotary", "uniform"],
)
def test_weights_are_those_that_make_the_output(options, mask):
    attention = MultiHeadAttention(40, 4, **options)
    if attention.sinks is not None:
        nn.init.normal_(attention.sinks)
    x = torch.randn(3, 7, 40)
    with observe(attention, weights=True) as record:
        out = attention(x, mask=mask)
    v = attention.project(x).v
    values = v.transpose(1, 2).repeat_interleave(4 // attention.num_kv_heads, dim=1)
    rebuilt = attention.out_proj((record[""].weights @ values).transpose(1, 2).flatten(-2))
    torch.testing.assert_close(rebuilt, out)


def test_cross_attention_to_a_context_and_to_what_was_remembered():
    attention = MultiHeadAttention(20, 4, context_dim=12)
    query = TokenBatch(torch.randn(5, 20), [3, 2])
    context = TokenBatch(torch.randn(9, 12), [2, 7])
    with observe(attention, weights=True) as record:
        attention(query, context)
        attention(query, attention.remember(context))
    first, second = record[""].calls
    assert first.weights.shape == (2, 4, 3, 7)
    assert first.k_lengths.tolist() == [2, 7]
    assert torch.equal(first.weights, second.weights)


def test_decoding_with_a_cache_sees_all_keys():
    attention = MultiHeadAttention(40, 4, positions=RotaryPositions())
    x = torch.randn(2, 9, 40)
    band = Causal() & Window(3, 0)
    with torch.no_grad(), observe(attention, weights=True) as whole:
        expected = attention(x, mask=band)
    for cache in (KVCache(), KVCache(window=4)):
        pieces, begin = [], 0
        with torch.no_grad(), observe(attention, weights=True) as record:
            for width in (4, 1, 1, 3):
                pieces.append(attention(x[:, begin : begin + width], mask=band, cache=cache))
                begin += width
        torch.testing.assert_close(torch.cat(pieces, 1), expected)
        begin = 0
        for call in record[""].calls:
            n, m = call.weights.shape[2:]
            end = begin + n
            torch.testing.assert_close(call.weights, whole[""].weights[:, :, begin:end, end - m : end])
            begin = end


def test_distance_is_in_the_units_of_the_coordinates():
    attention = MultiHeadAttention(12, 3)
    coords = torch.tensor([[0, 0], [0, 3], [4, 0], [2, 2], [7, 9]])
    tokens = TokenBatch(torch.randn(5, 12), [3, 2], coords)
    with observe(attention, weights=True) as kept:
        attention(tokens, mask=Neighbourhood((3, 3)))
    with observe(attention) as record:
        attention(tokens, mask=Neighbourhood((3, 3)))
    apart = torch.cdist(coords[:3].float(), coords[:3].float())
    expected = (kept[""].weights[0] * apart).sum(-1)
    torch.testing.assert_close(record[""].distance[0], expected)
    torch.testing.assert_close(kept[""].distance[0], expected)


def test_there_is_no_distance_between_different_axes():
    attention = MultiHeadAttention(12, 3)
    query = TokenBatch(torch.randn(4, 12), [4])
    context = TokenBatch(torch.randn(6, 12), [6], torch.rand(6, 2))
    for weights in (False, True):
        with observe(attention, weights=weights) as record:
            attention(query, context)
        assert record[""].entropy.shape == (1, 3, 4)
        with pytest.raises(
            AttributeError, match=r"^distance needs queries and keys on the same axes: got 1 and 2 in ''$"
        ):
            _ = record[""].distance


def test_decoders_are_observed():
    decoder = build_decoder(24, depth=2, num_heads=3, context=True).eval()
    with observe(decoder) as record:
        decoder(torch.randn(2, 5, 24), torch.randn(2, 7, 24))
    assert record["blocks.1.attention"].max_logit.shape == (2, 3, 5)
    assert record["blocks.1.cross_attention"].received.shape == (2, 3, 7)


def test_calls_are_kept_apart_and_checkpointing_is_seen_once():
    attention, x = MultiHeadAttention(12, 3), torch.randn(2, 5, 12, requires_grad=True)
    with observe(attention, weights=True) as record:
        checkpoint(attention, x, use_reentrant=False).sum().backward()
        attention(2 * x)
    assert len(record[""].calls) == 2
    q, k, _ = attention.project(x)
    expected = attention_weights(q.transpose(1, 2), k.transpose(1, 2)).detach()
    torch.testing.assert_close(record[""].calls[0].weights, expected)


def test_it_says_what_computed_a_call():
    attention = MultiHeadAttention(12, 3, backend="math")
    with observe(attention, explain=True) as record:
        attention(TokenBatch(torch.randn(5, 12), [3, 2]))
    assert record[""].explanation.chosen == "math"
    block = build_encoder(24, depth=1, num_heads=3, dropout=0.1).blocks[0]
    tokens = TokenBatch(torch.randn(5, 24), [3, 2])
    block.drop_path.p = block.feed_forward[2].p = block.attention.dropout = 0.1
    with observe(block, explain=True) as record:
        assert block.unfused(tokens) is None
        block(tokens)
    assert record["attention"].explanation.chosen == "fused"


def test_copies_are_not_observed(model):
    other = copy.deepcopy(model)
    with observe(model) as record:
        run(other, TokenBatch(torch.randn(5, 24), [5]))
    assert not record
    assert set(record.unobserved.values()) == {"its attention was not called"}


@pytest.mark.parametrize("before", [False, True], ids=["compiled while observed", "compiled before"])
def test_compiled_models_are_observed(before):
    torch._dynamo.reset()
    encoder, x = build_encoder(24, depth=2, num_heads=3).eval(), torch.randn(2, 5, 24)
    with observe(encoder, weights=True) as eager:
        encoder(x)
    compiled = torch.compile(encoder, backend="eager")
    expected = compiled(x) if before else None
    for _ in range(2):
        with observe(compiled, weights=True) as record:
            out = compiled(x)
        again = compiled(x)
        assert torch.equal(out, again)
        assert expected is None or torch.equal(out, expected)
        assert [len(seen.calls) for seen in record.values()] == [1, 1]
        for name, seen in eager.items():
            torch.testing.assert_close(record[name].weights, seen.weights)
    assert {type(part) for part in encoder.modules() if hasattr(part, "qkv_proj")} == {MultiHeadAttention}
