"""A block of the decoder: torch's decoder layer, and what training drops."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmattn import Causal, DecoderBlock, FeedForward, MultiHeadAttention, TokenBatch

B, N, D, H, D_CONTEXT = 3, 19, 42, 3, 13


def test_agrees_with_torchs_decoder_layer(randomised, assert_close):
    theirs = nn.TransformerDecoderLayer(D, H, 5 * D, 0.0, "gelu", batch_first=True, norm_first=True).eval()
    randomised(theirs)
    ours = DecoderBlock(
        MultiHeadAttention(D, H), FeedForward(D, 5 * D), nn.LayerNorm(D), nn.LayerNorm(D),
        MultiHeadAttention(D, H), nn.LayerNorm(D),
    )  # fmt: skip
    names = {
        "self_attn.in_proj_": "attention.qkv_proj.", "multihead_attn.in_proj_": "cross_attention.qkv_proj.",
        "self_attn.out_proj": "attention.out_proj", "multihead_attn.out_proj": "cross_attention.out_proj",
        "norm1": "attention_norm", "norm2": "cross_attention_norm", "norm3": "feed_forward_norm",
        "linear1": "feed_forward.0", "linear2": "feed_forward.3",
    }  # fmt: skip
    state = {}
    for name, value in theirs.state_dict().items():
        prefix = next(prefix for prefix in names if name.startswith(prefix))
        state[names[prefix] + name.removeprefix(prefix)] = value
    ours.load_state_dict(state)
    x, y = torch.randn(B, N, D), torch.randn(B, 7, D)
    later = torch.ones(N, N, dtype=torch.bool).triu(1)
    wanted = theirs(x, y, tgt_mask=later)
    assert_close(ours(x, y, mask=Causal()), wanted)
    lengths = torch.tensor([7, 2, 5])
    ignored = torch.arange(7) >= lengths[:, None]
    wanted = theirs(x, y, tgt_mask=later, memory_key_padding_mask=ignored)
    found = ours(TokenBatch.from_padded(x), TokenBatch.from_padded(y, lengths), mask=Causal())
    assert_close(found.values.view(B, N, D), wanted)


@pytest.mark.parametrize("option", ["dropout", "attention_dropout", "drop_path"])
def test_training_drops_and_evaluation_does_not(make, contexts, option):
    decoder = make(context=True, context_dim=D_CONTEXT, **{option: 0.5})
    context, x = contexts({"context": True})[1], torch.randn(B, N, D)
    assert not torch.equal(decoder(x, context), decoder(x, context))
    block, found = decoder.blocks[1], []
    for _ in range(5):
        found.append(block(x, context, mask=Causal()))  # dense tokens drop as well
    assert not all(torch.equal(found[0], other) for other in found)
    decoder.eval()
    assert torch.equal(decoder(x, context), decoder(x, context))


def test_each_branch_is_dropped_before_it_is_added():
    block = DecoderBlock(
        MultiHeadAttention(D, H), FeedForward(D, D), nn.LayerNorm(D), nn.LayerNorm(D),
        MultiHeadAttention(D, H), nn.LayerNorm(D), dropout=0.5,
    )  # fmt: skip
    lasts = block.attention.out_proj, block.cross_attention.out_proj, block.feed_forward[3]
    x, y = torch.randn(101, 5, D), torch.randn(101, 2, D)
    for open_one in lasts:
        for last in lasts:  # one branch adds ones, the others nothing
            nn.init.zeros_(last.weight)
            nn.init.constant_(last.bias, float(last is open_one))
        with torch.no_grad():
            dense = block(x, y) - x
            packed = block(TokenBatch.from_padded(x), TokenBatch.from_padded(y)).values - x.flatten(0, 1)
        for added in (dense, packed):
            torch.testing.assert_close(added, added.round(), rtol=0, atol=1e-5)
            assert added.round().unique().tolist() == [0.0, 2.0]


def test_drop_path_drops_whole_sequences_of_a_dense_batch(make):
    block = make(drop_path=0.5).blocks[1]
    x = torch.randn(101, 5, D)
    with torch.no_grad():
        same = (block(x, mask=Causal()) == x).all(-1)
    assert torch.equal(same.all(1), same.any(1))
    assert 10 < same[:, 0].sum() < 45  # both branches: a quarter
