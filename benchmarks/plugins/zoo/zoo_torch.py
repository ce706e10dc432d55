"""Parts of torch.nn, and models of torchaudio, made small."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchaudio import models

from benchmarks.plugins.zoo.case import Case, Inputs


class _Attention(nn.Module):
    """``nn.MultiheadAttention`` under a model, called with what the case says; its weights are returned too."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(24, 3, batch_first=True, **options)

    def forward(self, *tokens: Tensor, **options: Any) -> Any:
        query, key, value = tokens if len(tokens) == 3 else tokens * 3
        return self.attention(query, key, value, **options)


def _tokens(*lengths: int, width: int = 24, batch: int = 2) -> tuple[Tensor, ...]:
    return tuple(torch.randn(batch, n, width) for n in lengths)


def _padding(length: int, *real: int) -> Tensor:
    """True = ignore."""
    return torch.arange(length) >= torch.tensor(real)[:, None]


def _causal(length: int) -> Tensor:
    """True = ignore."""
    return torch.ones(length, length, dtype=torch.bool).triu(1)


def _layer(**options: Any) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(24, 3, 48, dropout=0.0, batch_first=True, **options)


def _case(name: str, build: Any, *args: Any, quick: bool = False, **kwargs: Any) -> Case:
    """Arguments that can be called are, under the seed of the case."""

    def inputs() -> Inputs:
        made = [made for a in args for made in (a() if callable(a) else (a,))]
        return Inputs(tuple(made), {k: v() if callable(v) else v for k, v in kwargs.items()})

    return Case(name, build, inputs, quick=quick)


_ATTENTION = [
    _case("torch/self", _Attention, lambda: _tokens(7), quick=True),
    _case("torch/cross", _Attention, lambda: _tokens(5, 7, 7), quick=True),
    _case("torch/no_weights", _Attention, lambda: _tokens(7), need_weights=False),
    _case("torch/weights_of_heads", _Attention, lambda: _tokens(7), average_attn_weights=False),
    _case("torch/other_widths", lambda: _Attention(kdim=10, vdim=14),
          lambda: (*_tokens(5), *_tokens(7, width=10), *_tokens(7, width=14)), quick=True),
    _case("torch/bias_kv", lambda: _Attention(add_bias_kv=True), lambda: _tokens(7),
          key_padding_mask=lambda: _padding(7, 7, 4)),
    _case("torch/zero_attn", lambda: _Attention(add_zero_attn=True), lambda: _tokens(7), quick=True,
          attn_mask=lambda: _causal(7)),
    _case("torch/no_bias", lambda: _Attention(bias=False), lambda: _tokens(7)),
    _case("torch/padded", _Attention, lambda: _tokens(7), key_padding_mask=lambda: _padding(7, 7, 4), quick=True),
    _case("torch/causal", _Attention, lambda: _tokens(7), attn_mask=lambda: _causal(7), is_causal=True),
    _case("torch/added", _Attention, lambda: _tokens(7), attn_mask=lambda: torch.randn(7, 7)),
    _case("torch/added_by_head", _Attention, lambda: _tokens(7), attn_mask=lambda: torch.randn(6, 7, 7)),
    _case("torch/masked_and_padded", _Attention, lambda: _tokens(7), attn_mask=lambda: _causal(7),
          key_padding_mask=lambda: _padding(7, 7, 4)),
    _case("torch/unbatched", _Attention, lambda: (torch.randn(7, 24),)),
]  # fmt: skip

_LAYERS = [
    _case("torch/encoder_layer", _layer, lambda: _tokens(7), quick=True),
    _case("torch/encoder_layer_norm_first", lambda: _layer(norm_first=True, activation="gelu"), lambda: _tokens(7)),
    _case("torch/encoder", lambda: nn.TransformerEncoder(_layer(), 2), lambda: _tokens(7), quick=True),
    _case("torch/encoder_causal", lambda: nn.TransformerEncoder(_layer(), 2), lambda: _tokens(7),
          mask=lambda: _causal(7)),
    _case("torch/decoder_layer", lambda: nn.TransformerDecoderLayer(24, 3, 48, 0.0, batch_first=True),
          lambda: _tokens(5, 7)),
    _case("torch/decoder", lambda: nn.TransformerDecoder(
        nn.TransformerDecoderLayer(24, 3, 48, 0.0, batch_first=True), 2), lambda: _tokens(5, 7), quick=True,
          tgt_mask=lambda: _causal(5), memory_key_padding_mask=lambda: _padding(7, 7, 4)),
    _case("torch/transformer", lambda: nn.Transformer(24, 3, 1, 1, 48, 0.0, batch_first=True), lambda: _tokens(5, 7),
          tgt_mask=lambda: _causal(7)),
]  # fmt: skip


def _wav2vec2(mode: str = "group_norm", norm_first: bool = False) -> Any:
    return models.wav2vec2_model(
        extractor_mode=mode, extractor_conv_layer_config=[(32, 10, 5), (32, 3, 2), (32, 2, 2)],
        extractor_conv_bias=False, encoder_embed_dim=32, encoder_projection_dropout=0.0,
        encoder_pos_conv_kernel=16, encoder_pos_conv_groups=4, encoder_num_layers=2, encoder_num_heads=4,
        encoder_attention_dropout=0.0, encoder_ff_interm_features=64, encoder_ff_interm_dropout=0.0,
        encoder_dropout=0.0, encoder_layer_norm_first=norm_first, encoder_layer_drop=0.0, aux_num_out=5,
    )  # fmt: skip


def _wavlm() -> Any:
    return models.wavlm_model(
        extractor_mode="group_norm", extractor_conv_layer_config=[(32, 10, 5), (32, 3, 2), (32, 2, 2)],
        extractor_conv_bias=False, encoder_embed_dim=32, encoder_projection_dropout=0.0,
        encoder_pos_conv_kernel=16, encoder_pos_conv_groups=4, encoder_num_layers=2, encoder_num_heads=4,
        encoder_num_buckets=16, encoder_max_distance=40, encoder_attention_dropout=0.0,
        encoder_ff_interm_features=64, encoder_ff_interm_dropout=0.0, encoder_dropout=0.0,
        encoder_layer_norm_first=False, encoder_layer_drop=0.0, aux_num_out=5,
    )  # fmt: skip


def _hubert() -> Any:
    return models.hubert_pretrain_model(
        extractor_mode="group_norm", extractor_conv_layer_config=[(32, 10, 5), (32, 3, 2), (32, 2, 2)],
        extractor_conv_bias=False, encoder_embed_dim=32, encoder_projection_dropout=0.0, encoder_pos_conv_kernel=16,
        encoder_pos_conv_groups=4, encoder_num_layers=2, encoder_num_heads=4, encoder_attention_dropout=0.0,
        encoder_ff_interm_features=64, encoder_ff_interm_dropout=0.0, encoder_dropout=0.0,
        encoder_layer_norm_first=False, encoder_layer_drop=0.0, mask_prob=0.0, mask_selection="static",
        mask_other=0.0, mask_length=2, no_mask_overlap=False, mask_min_space=1, mask_channel_prob=0.0,
        mask_channel_selection="static", mask_channel_other=0.0, mask_channel_length=2,
        no_mask_channel_overlap=False, mask_channel_min_space=1, skip_masked=False, skip_nomask=False,
        num_classes=5, final_dim=16, feature_grad_mult=None,
    ).wav2vec2  # fmt: skip


def _squim() -> Any:
    return models.squim_objective_model(
        feat_dim=24,
        win_len=16,
        d_model=24,
        nhead=3,
        hidden_dim=16,
        num_blocks=1,
        rnn_type="GRU",
        chunk_size=12,
    )


def _conformer(**options: Any) -> Any:
    return models.Conformer(24, 3, 48, 2, 7, **options)


def _emformer(**options: Any) -> Any:
    return models.Emformer(24, 3, 48, 2, segment_length=4, right_context_length=2, **options)


def _wave(*lengths: int) -> Inputs:
    wave = torch.randn(2, 1200)
    return Inputs((wave, torch.tensor(lengths)) if lengths else (wave,))


def _frames(*lengths: int) -> Inputs:
    return Inputs((torch.randn(2, 14, 24), torch.tensor(lengths)))


_TORCHAUDIO = [
    Case("torchaudio/wav2vec2", _wav2vec2, _wave, quick=True),
    Case("torchaudio/wav2vec2_lengths", _wav2vec2, lambda: _wave(1200, 800), quick=True),
    Case("torchaudio/wav2vec2_norm_first", lambda: _wav2vec2("layer_norm", True), _wave),
    Case("torchaudio/hubert", _hubert, lambda: _wave(1200, 900)),
    Case("torchaudio/wavlm", _wavlm, _wave, quick=True),
    Case("torchaudio/conformer", _conformer, lambda: _frames(14, 9), quick=True),
    Case("torchaudio/conformer_turned", lambda: _conformer(convolution_first=True), lambda: _frames(14, 9)),
    Case("torchaudio/emformer", _emformer, lambda: _frames(12, 9), heads={"*.attention": 3}, quick=True),
    Case("torchaudio/emformer_memory", lambda: _emformer(max_memory_size=3), lambda: _frames(12, 12),
         heads={"*.attention": 3}),
    Case("torchaudio/squim", _squim, lambda: Inputs((torch.randn(2, 1000),))),
]  # fmt: skip

CASES = [*_ATTENTION, *_LAYERS, *_TORCHAUDIO]
