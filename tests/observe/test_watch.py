"""Observation: the right weights, and no trace of the observer."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mmattn import Causal, MultiHeadAttention, TokenBatch, attention_weights, build_classifier, build_encoder
from mmattn.observe import observe_weights


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    encoder, head = build_encoder(24, depth=2, num_heads=3, dropout=0.1), build_classifier(24, 5, num_heads=2)
    return nn.ModuleDict({"encoder": encoder, "head": head})


def test_outputs_are_equal_bit_for_bit_and_nothing_remains(model):
    tokens = TokenBatch(torch.randn(18, 24), [7, 0, 11])
    for training in (True, False):
        model.train(training)
        torch.manual_seed(5)
        before = model["head"](model["encoder"](tokens))
        torch.manual_seed(5)
        with observe_weights(model):
            during = model["head"](model["encoder"](tokens))
        assert torch.equal(before, during)
    hooks = [part._forward_hooks for part in model.modules()]
    assert not any(hooks)


def test_hooks_are_gone_after_an_error(model):
    with pytest.raises(RuntimeError, match="stop"), observe_weights(model):
        raise RuntimeError("stop")
    assert not any(part._forward_hooks for part in model.modules())


def test_weights_belong_to_their_sequence_whatever_its_place(model):
    model.eval()
    sequences = [torch.randn(n, 24) for n in (7, 3, 11)]
    with observe_weights(model) as together:
        model["head"](model["encoder"](TokenBatch.from_sequences(sequences)))
    for index, sequence in enumerate(sequences):
        with observe_weights(model) as alone:
            model["head"](model["encoder"](TokenBatch.from_sequences([sequence])))
        assert set(alone) == {
            "encoder.blocks.0.attention",
            "encoder.blocks.1.attention",
            "head.pool.attention",
        }
        for name, calls in alone.items():
            assert torch.allclose(calls[0][0], together[name][0][index], atol=1e-5)
            assert torch.allclose(calls[0][0].sum(-1), torch.ones(()), atol=1e-5)


def test_weights_are_those_that_make_the_output():
    torch.manual_seed(1)
    attention = MultiHeadAttention(20, 4, num_kv_heads=2)
    x = torch.randn(3, 7, 20)
    with observe_weights(attention) as weights:
        out = attention(x, mask=Causal())
    stacked = torch.stack(weights[""][0])
    assert stacked.shape == (3, 4, 7, 7)
    _, _, v = attention.project(x)
    values = v.transpose(1, 2).repeat_interleave(2, dim=1)
    rebuilt = attention.out_proj((stacked @ values).transpose(1, 2).flatten(-2))
    assert torch.allclose(rebuilt, out, atol=1e-5)
    assert stacked.triu(1).abs().max() == 0


def test_calls_are_kept_apart(model):
    tokens = TokenBatch(torch.randn(5, 24), [5])
    with observe_weights(model) as weights:
        model["encoder"](tokens)
        model["encoder"](tokens.replace(2 * tokens.values))
    assert len(weights["encoder.blocks.0.attention"]) == 2


def test_a_model_without_attention_is_refused():
    with pytest.raises(
        ValueError, match=r"^the model must have a MultiHeadAttention: got Linear without any$"
    ):
        observe_weights(nn.Linear(2, 2)).__enter__()


def test_copies_are_not_watched(model):
    other = copy.deepcopy(model)
    with observe_weights(model) as weights:
        other["encoder"](TokenBatch(torch.randn(5, 24), [5]))
    assert weights["encoder.blocks.0.attention"] == []


def test_uniform_attention_is_uniform():
    attention = MultiHeadAttention(6, 2, scale=0.0)
    with observe_weights(attention) as weights:
        attention(TokenBatch(torch.randn(7, 6), [4, 3]))
    assert torch.allclose(weights[""][0][0], torch.full((2, 4, 4), 0.25))
    q = torch.randn(1, 2, 5, 3)
    assert torch.allclose(attention_weights(q, q, scale=0.0), torch.full((1, 2, 5, 5), 0.2))
