"""The block against torchaudio's own, clip by clip."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmattn import Causal, MultiHeadAttention, TokenBatch, build_encoder
from mmattn.conformer import ConformerBlock, TimeConvolution
from mmattn.convert import from_torch_nn
from mmattn.dropout import Dropout

torchaudio_conformer = pytest.importorskip("torchaudio.models.conformer")

D, HIDDEN, H, KERNEL = 12, 29, 3, 5


def feed_forward() -> nn.Sequential:
    return nn.Sequential(nn.Linear(D, HIDDEN), nn.SiLU(), Dropout(0.0), nn.Linear(HIDDEN, D))


def make(**options) -> ConformerBlock:
    convolution = TimeConvolution(D, KERNEL, norm=options.pop("conv_norm", nn.LayerNorm))
    return ConformerBlock(MultiHeadAttention(D, H), convolution, feed_forward(), feed_forward(), **options)


def of_torchaudio(theirs: nn.Module) -> ConformerBlock:
    """Our block with the parameters of theirs."""
    block = make(conv_norm=nn.Identity)
    pairs = [
        (block.feed_forward_in_norm, theirs.ffn1.sequential[0]),
        (block.feed_forward_in[0], theirs.ffn1.sequential[1]),
        (block.feed_forward_in[3], theirs.ffn1.sequential[4]),
        (block.attention_norm, theirs.self_attn_layer_norm),
        (block.convolution_norm, theirs.conv_module.layer_norm),
        (block.convolution.pointwise_in, theirs.conv_module.sequential[0]),
        (block.convolution.depthwise, theirs.conv_module.sequential[2]),
        (block.convolution.pointwise_out, theirs.conv_module.sequential[5]),
        (block.feed_forward_out_norm, theirs.ffn2.sequential[0]),
        (block.feed_forward_out[0], theirs.ffn2.sequential[1]),
        (block.feed_forward_out[3], theirs.ffn2.sequential[4]),
        (block.norm, theirs.final_layer_norm),
    ]
    with torch.no_grad():
        for ours, other in pairs:
            ours.weight.copy_(other.weight.view_as(ours.weight))
            ours.bias.copy_(other.bias)
    block.attention = from_torch_nn(theirs.self_attn)
    return block.eval()


def test_it_is_torchaudios_layer_but_for_the_batch_norm(tokens):
    theirs = torchaudio_conformer.ConformerLayer(D, HIDDEN, H, KERNEL).eval()
    theirs.conv_module.sequential[3] = nn.Identity()  # the batch norm
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.4)
    block = of_torchaudio(theirs)
    out = block(tokens)
    for part, clip in zip(out.split(), tokens.split(), strict=True):
        if len(clip.values):
            want = theirs(clip.values[:, None], None)[:, 0]
            torch.testing.assert_close(part.values, want, rtol=1e-4, atol=1e-4)


def test_batch_mates_do_not_matter(tokens):
    block = make()
    out = block(tokens)
    for part, clip in zip(out.split(), tokens.split(), strict=True):
        torch.testing.assert_close(part.values, block(clip).values, rtol=1e-5, atol=1e-5)


def test_dense_is_packed():
    block, x = make(), torch.randn(3, 7, D)
    packed = block(TokenBatch(x.flatten(0, 1), [7] * 3)).values
    torch.testing.assert_close(block(x).flatten(0, 1), packed, rtol=1e-5, atol=1e-5)


def test_the_mask_is_that_of_the_attention(tokens):
    block, changed = make(), tokens.values.clone()
    changed[-1] = torch.randn(D)  # the last token of 31; the convolution reaches two tokens back
    plain = (block(tokens.replace(changed)).values - block(tokens).values).abs().amax(1) > 1e-6
    causal = (
        block(tokens.replace(changed), mask=Causal()).values - block(tokens, mask=Causal()).values
    ).abs().amax(1) > 1e-6
    assert plain.nonzero().flatten().tolist() == list(range(len(plain) - 31, len(plain)))
    assert causal.nonzero().flatten().tolist() == list(range(len(plain) - 3, len(plain)))


def test_half_of_the_feed_forward_layers_counts():
    block = make(norm=nn.Identity)
    for branch in (block.attention.out_proj, block.convolution.pointwise_out, block.feed_forward_out[3]):
        nn.init.zeros_(branch.weight)
        nn.init.zeros_(branch.bias)
    x = torch.randn(2, 5, D)
    torch.testing.assert_close(block(x), x + 0.5 * block.feed_forward_in(x))


def test_dropped_branches_leave_the_clip(tokens):
    block = make(norm=nn.Identity, drop_path=0.5).train()
    kept = [
        torch.equal(part.values, clip.values)
        for _ in range(30)
        for part, clip in zip(block(tokens).split(), tokens.split(), strict=True)
        if len(clip.values)
    ]
    assert 0.01 < sum(kept) / len(kept) < 0.2  # all four branches: 1 in 16


def test_dropout_acts_in_training_alone(tokens):
    block = make(dropout=0.5)
    assert not torch.equal(block(tokens).values, block(tokens).values)
    block.eval()
    assert torch.equal(block(tokens).values, block(tokens).values)


def test_bfloat16_autocast_trains(tokens):
    block = make()
    want = block(tokens).values
    with torch.autocast("cpu", torch.bfloat16):
        out = block(tokens).values
    torch.testing.assert_close(out.float(), want, rtol=0.1, atol=0.1)
    out.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in block.parameters())


def test_the_encoder_takes_it(tokens):
    encoder = build_encoder(D, 2, H)
    encoder.blocks[1] = block = make()
    block.attention.positions = encoder.blocks[0].attention.positions
    first = encoder.blocks[0](tokens)
    torch.testing.assert_close(encoder(tokens).values, encoder.norm(block(first).values))
