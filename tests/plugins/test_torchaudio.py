"""torchaudio's models with attention: outputs, gradients and weights with the core inside, and without it again."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmattn.plugins import plug_in, unplug
from mmattn.plugins.site import sites

models = pytest.importorskip("torchaudio.models")

CONVOLUTIONS = [(16, 10, 5), (16, 3, 2), (16, 2, 2)]


def wav2vec2(mode: str = "group_norm", aux: int | None = None) -> nn.Module:
    return models.wav2vec2_model(
        mode, CONVOLUTIONS, mode == "layer_norm", 32, 0.0, 16, 4, 2, 4, 0.0, 48, 0.0, 0.0, mode == "layer_norm",
        0.0, aux,
    )  # fmt: skip


def wavlm(mode: str = "group_norm") -> nn.Module:
    return models.wavlm_model(
        mode, CONVOLUTIONS, mode == "layer_norm", 32, 0.0, 16, 4, 2, 4, 8, 20, 0.0, 48, 0.0, 0.0,
        mode == "layer_norm", 0.0, None,
    )  # fmt: skip


def emformer(**options) -> nn.Module:
    return models.Emformer(16, 4, 32, 2, 4, left_context_length=3, right_context_length=2, **options)


@pytest.mark.parametrize("mode", ["group_norm", "layer_norm"])
@pytest.mark.parametrize("lengths", [None, torch.tensor([3000, 1900])])
def test_wav2vec2(lengths, mode, sharpen, checked):
    given = () if lengths is None else (lengths,)
    checked(sharpen(wav2vec2(mode, aux=7)), torch.randn(2, 3000), *given, count=2)


def test_hubert_for_pretraining(sharpen, checked):
    model = models.hubert_pretrain_model(
        "group_norm", CONVOLUTIONS, False, 32, 0.0, 16, 4, 2, 4, 0.0, 48, 0.0, 0.0, False, 0.0,
        0.5, "static", 0.0, 2, False, 1, 0.0, "static", 0.0, 2, False, 1, False, False, 5, 8, None,
    )  # fmt: skip
    labels = torch.randint(0, 5, (2, 149))

    class Seeded(nn.Module):
        """The same frames are masked each time; the label that is right is -inf among the wrong ones."""

        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, *given):
            torch.manual_seed(1)
            return tuple(x.nan_to_num(neginf=0.0) for x in self.model(*given))

    checked(sharpen(Seeded()), torch.randn(2, 3000), labels, torch.tensor([3000, 2800]), count=2)


@pytest.mark.parametrize("mode", ["group_norm", "layer_norm"])
def test_wavlm(mode, sharpen, checked):
    """Its inner nn.MultiheadAttention only keeps the weights; layer 0 hands its position bias to layer 1."""
    model = sharpen(wavlm(mode))
    checked(model, torch.randn(2, 3000), count=2)
    report = plug_in(model)
    assert report.swapped == [f"encoder.transformer.layers.{i}.attention" for i in range(2)]
    assert report.skipped["encoder.transformer.layers.0.attention.attention"] == (
        "encoder.transformer.layers.0.attention calls attention itself and only keeps weights here"
    )
    assert model.encoder.transformer.layers[0].attention.gru_rel_pos_const.requires_grad
    unplug(model)


@pytest.mark.parametrize("options", [{}, {"use_group_norm": True}, {"convolution_first": True}])
def test_conformer(options, sharpen, checked):
    model = sharpen(models.Conformer(16, 4, 32, 2, 7, **options))
    lengths = torch.tensor([20, 13])
    valid = torch.arange(20) < lengths[:, None]
    checked(model, torch.randn(2, 20, 16), lengths, valid=lambda x: x[valid], count=2)


@pytest.mark.parametrize("options", [{}, {"max_memory_size": 2}, {"max_memory_size": 2, "tanh_on_mem": True}])
def test_emformer(options, sharpen, checked):
    """Sequence first, heads folded into the batch, hidden keys at -1e8 and, with a memory, summaries."""
    checked(sharpen(emformer(**options)), torch.randn(2, 14, 16), torch.tensor([12, 9]), count=2)


@pytest.mark.parametrize("memory", [0, 2])
def test_streaming_emformer(memory, sharpen, close, host_weights):
    """``infer`` with the keys of earlier segments; its state goes on from step to step."""
    model = sharpen(emformer(max_memory_size=memory)).eval()
    segments = torch.randn(5, 2, 6, 16)
    lengths = torch.tensor([6, 6])

    def stream() -> tuple[list[torch.Tensor], list]:
        outs, states = [], None
        for segment in segments:
            out, _, states = model.infer(segment, lengths, states)
            outs.append(out)
        return outs, states

    with torch.no_grad():
        wanted, states = stream()
        model_weights = host_weights(lambda: stream())
        plug_in(model)
        seen = []
        for _, site in sites(model):
            site.watchers.append(seen.append)
        got, ours = stream()
        assert [site.routed_calls for _, site in sites(model)] == [5, 5]
        assert len(seen) == len(model_weights) == 10
        unplug(model)
        again, _ = stream()
    for new, old, back in zip(got, wanted, again, strict=True):
        close(new, old)
        assert torch.equal(old, back)
    for new, old in zip(ours, states, strict=True):
        for a, b in zip(new, old, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_emformer_transducer(sharpen, checked, close):
    """The streaming transducer: training forward and step-wise transcription."""
    model = models.rnnt.emformer_rnnt_model(
        input_dim=8, encoding_dim=12, num_symbols=7, segment_length=8, right_context_length=4,
        time_reduction_input_dim=4, time_reduction_stride=4, transformer_num_heads=4, transformer_ffn_dim=24,
        transformer_num_layers=2, transformer_dropout=0.0, transformer_activation="gelu",
        transformer_left_context_length=4, transformer_max_memory_size=0,
        transformer_weight_init_scale_strategy="depthwise", transformer_tanh_on_mem=True,
        symbol_embedding_dim=6, num_lstm_layers=1, lstm_layer_norm=True, lstm_layer_norm_epsilon=1e-5,
        lstm_dropout=0.0,
    )  # fmt: skip
    sharpen(model)
    sound, lengths = torch.randn(2, 28, 8), torch.tensor([24, 16])
    symbols, counts = torch.randint(0, 7, (2, 5)), torch.tensor([5, 3])
    checked(model, sound, lengths, symbols, counts, count=2)

    def steps() -> list[torch.Tensor]:
        outs, states = [], None
        for _ in range(3):
            out, _, states = model.transcribe_streaming(sound[:, :12], torch.tensor([12, 12]), states)
            outs.append(out)
        return outs

    with torch.no_grad():
        wanted = steps()
        plug_in(model)
        for new, old in zip(steps(), wanted, strict=True):
            close(new, old)
    assert [site.routed_calls for _, site in sites(model)] == [3, 3]


def test_squim_objective(sharpen, checked):
    """Three encoder layers of torch.nn behind a recurrent network, on their fast path in eval."""
    model = models.squim.objective.squim_objective_model(
        feat_dim=16,
        win_len=16,
        d_model=16,
        nhead=4,
        hidden_dim=8,
        num_blocks=1,
        rnn_type="LSTM",
        chunk_size=7,
    )
    checked(sharpen(model), torch.randn(2, 800), count=3)


def test_tacotron_is_left_alone():
    report = plug_in(models.Tacotron2(n_symbol=9, symbol_embedding_dim=8, encoder_embedding_dim=8))
    assert report.swapped == []
    assert list(report.skipped) == ["decoder.attention_layer"]
    assert "additive, location-sensitive attention" in report.skipped["decoder.attention_layer"]
