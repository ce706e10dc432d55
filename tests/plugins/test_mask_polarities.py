"""One test for each meaning that masks have in other libraries; those of transformers are with its models."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmattn.plugins import plug_in
from tests.plugins.shown import B, ByTorch, D, Functional, H, N, Shown

timm = pytest.importorskip("timm")
audio = pytest.importorskip("torchaudio.models")

PAD = torch.arange(N) >= torch.tensor([[6], [4]])  # True = padding


def hides_padding(model: nn.Module, close, *args, valid=~PAD, first=slice(None), **kwargs) -> None:
    """The results of valid tokens are the host's, and no token sees padding: weight 0, rows adding up to 1."""
    with torch.no_grad():
        wanted = model(*args, **kwargs)
    shown = Shown(model.eval())
    got = shown(*args, **kwargs)
    wanted, got = (x[0] if isinstance(x, tuple) else x for x in (wanted, got))
    close(got[valid], wanted[valid])
    assert shown.weights
    for weights in shown.weights:
        rows = weights.transpose(1, 2)[valid]
        assert (weights[1, :, :, 4:] == 0).all()
        assert (weights[0, :, :, 4:] > 0).any()
        torch.testing.assert_close(rows.sum(-1), torch.ones(rows.shape[:-1]))


class SpeltOut(Functional):
    """q k^T, a rule for the mask, softmax, a rule for the weights."""

    def forward(self, x, mask):
        q, k, v = self.qkv(x).unflatten(-1, (3, H, -1)).permute(2, 0, 3, 1, 4)
        logits, after = self.rule((q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5, mask)
        weights = logits.softmax(dim=-1)
        weights = weights if after is None else weights.masked_fill(after, 0.0)
        return (weights @ v).transpose(1, 2).flatten(2)


def test_polarity_of_torch_sdpa_true_attends(sharpen, close):
    hides_padding(sharpen(ByTorch(None)), close, torch.randn(B, N, D), ~PAD[:, None, None])


def test_polarity_of_torch_sdpa_numbers_are_added(sharpen, close):
    numbers = torch.zeros(B, 1, 1, N).masked_fill(PAD[:, None, None], -torch.inf)
    hides_padding(sharpen(ByTorch(None)), close, torch.randn(B, N, D), numbers)


def test_polarity_of_timm_true_attends(sharpen, close):
    for fused in (True, False):
        module = sharpen(timm.layers.Attention(D, H))
        module.fused_attn = fused
        hides_padding(module, close, torch.randn(B, N, D), attn_mask=(~PAD)[:, None, None].expand(B, 1, N, N))


def test_polarity_of_torch_nn_true_is_hidden(sharpen, close):
    x = torch.randn(B, N, D)
    module = sharpen(nn.MultiheadAttention(D, H, batch_first=True))
    hides_padding(module, close, x, x, x + 0, key_padding_mask=PAD)


def test_polarity_of_torch_nn_encoders_true_is_hidden(sharpen, close):
    layer = sharpen(nn.TransformerEncoderLayer(D, H, 32, batch_first=True))
    hides_padding(layer.eval(), close, torch.randn(B, N, D), src_key_padding_mask=PAD)


def test_polarity_of_torch_nn_numbers_are_added(sharpen, close):
    x = torch.randn(B, N, D)
    module = sharpen(nn.MultiheadAttention(D, H, batch_first=True))
    hides_padding(module, close, x, x, x, key_padding_mask=torch.zeros(B, N).masked_fill(PAD, -torch.inf))


def test_polarity_of_torchaudio_conformer_true_is_hidden(sharpen, close):
    model = sharpen(audio.Conformer(D, H, 32, 1, 3)).eval()
    hides_padding(model, close, torch.randn(B, N, D), torch.tensor([6, 4]))


def test_polarity_of_torchaudio_wavlm_true_is_hidden(sharpen, close):
    from torchaudio.models.wav2vec2.wavlm_attention import WavLMSelfAttention

    module = sharpen(WavLMSelfAttention(D, H, has_relative_attention_bias=True, num_buckets=8))
    hides_padding(module, close, torch.randn(B, N, D), key_padding_mask=PAD)


def test_polarity_of_torchaudio_emformer_true_is_hidden(sharpen, close):
    """Right context, then the utterance, sequence first, heads folded into the batch, hidden at -1e8."""
    model = sharpen(audio.Emformer(D, H, 32, 1, 4, right_context_length=2)).eval()
    x, lengths = torch.randn(B, 10, D), torch.tensor([8, 5])
    wanted = model(x, lengths)[0]
    shown = Shown(model)
    close(shown(x, lengths)[0][0], wanted[0])
    (weights,) = shown.weights
    assert (weights[1, ..., -3:] == 0).all()
    assert (weights[0, ..., -3:] > 0).any()


def test_polarity_of_torchaudio_wav2vec2_is_minus_10000(sharpen, close):
    from torchaudio.models.wav2vec2.components import SelfAttention

    numbers = (PAD * -10000.0)[:, None, None].expand(B, 1, N, N)
    hides_padding(sharpen(SelfAttention(D, H)), close, torch.randn(B, N, D), numbers)


def test_polarity_of_naflex_one_is_kept(sharpen, close):
    """The mask of NaFlex models is made of the lowest numbers there are, for both queries and keys."""
    model = sharpen(
        timm.create_model("naflexvit_base_patch16_gap", embed_dim=D, num_heads=H, depth=1, num_classes=3)
    )
    given = {
        "patches": torch.randn(B, N, 16 * 16 * 3),
        "patch_coord": torch.stack(torch.meshgrid(torch.arange(2), torch.arange(3), indexing="ij"), -1)
        .view(1, N, 2).expand(B, N, 2),
        "patch_valid": ~PAD,
    }  # fmt: skip
    model.eval()
    wanted = model(given)
    shown = Shown(model)
    got = shown(given)
    close(got, wanted)
    (weights,) = shown.weights
    assert weights.shape == (B, H, 4 + N, 4 + N), "four registers before the patches"
    assert (weights[1, :, :8, 8:] == 0).all()
    assert (weights[0, :, :, 8:] > 0).any()
    assert weights.isfinite().all()


def test_polarity_of_x_transformers_true_attends(sharpen, close):
    x_transformers = pytest.importorskip("x_transformers")
    for flash in (True, False):
        model = sharpen(x_transformers.Encoder(dim=D, depth=1, heads=H, attn_dim_head=4, attn_flash=flash))
        hides_padding(model.eval(), close, torch.randn(B, N, D), mask=~PAD)


def test_polarity_of_speechbrain_true_is_hidden_and_weights_are_set_to_zero(sharpen, close):
    """Its formula: a fill value before the softmax, zeros after it, by one mask of hidden keys."""
    hidden = PAD[:, None, None]
    module = SpeltOut(lambda logits, mask: (logits.masked_fill(mask, -65000.0), mask))
    hides_padding(sharpen(module), close, torch.randn(B, N, D), hidden)


def test_polarity_of_espnet_one_attends_and_weights_are_set_to_zero(sharpen, close):
    """Its formula: the lowest number where the mask is 0, and zeros after the softmax."""
    lowest = torch.finfo(torch.float32).min
    module = SpeltOut(lambda logits, mask: (logits.masked_fill(mask.eq(0), lowest), mask.eq(0)))
    hides_padding(sharpen(module), close, torch.randn(B, N, D), (~PAD).long()[:, None, None])


def test_polarity_of_lowest_numbers_added(sharpen, close):
    """A query that sees nothing but them gets the mean of the values, in the host as with the core."""
    lowest = torch.finfo(torch.float32).min
    numbers = torch.zeros(B, 1, N, N).masked_fill(PAD[:, None, None], lowest)
    numbers[0, :, 2] = lowest
    module = sharpen(ByTorch(None))
    x = torch.randn(B, N, D)
    wanted = module(x, numbers)
    plug_in(module)
    close(module(x, numbers), wanted)
    assert module(x, numbers).isfinite().all()
