"""Block and FeedForward against their formulas."""

from __future__ import annotations

import torch
from torch import nn

from mmattn import Block, Causal, FeedForward, MultiHeadAttention, TokenBatch

D, H, HIDDEN = 15, 3, 7


def make(**options: float) -> Block:
    attention, feed_forward = MultiHeadAttention(D, H), FeedForward(D, HIDDEN)
    block = Block(attention, feed_forward, nn.LayerNorm(D), nn.LayerNorm(D), **options)
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    return block


def test_feed_forward():
    layers, x = FeedForward(D, HIDDEN, dropout=0.5).eval(), torch.randn(5, D)
    want = nn.functional.gelu(x @ layers[0].weight.T + layers[0].bias) @ layers[3].weight.T + layers[3].bias
    torch.testing.assert_close(layers(x), want)
    assert not torch.allclose(layers.train()(x), want)


def test_block_is_pre_norm_with_residuals():
    block, tokens = make(), TokenBatch(torch.randn(11, D), [4, 7])
    attended = block.attention(tokens.replace(block.attention_norm(tokens.values)), mask=Causal())
    x = tokens.values + attended.values
    want = x + block.feed_forward(block.feed_forward_norm(x))
    torch.testing.assert_close(block(tokens, mask=Causal()).values, want)
    assert not torch.allclose(block(tokens).values, want)


def test_a_dropped_branch_leaves_the_tokens():
    tokens = TokenBatch(torch.randn(11, D), [4, 7])
    for options in ({"dropout": 0.996}, {"drop_path": 0.999}):
        block = make(**options)
        kept = (block(tokens).values == tokens.values).float().mean().item()
        assert kept > 0.9
        assert not (block.eval()(tokens).values == tokens.values).any()
