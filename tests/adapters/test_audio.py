"""AudioFrames: torchaudio's own spectrogram clip by clip, and plain convolutions clip by clip."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mmattn import AudioFrames, TokenBatch
from mmattn.adapters.audio import ConvSubsampling, FramePatches

torchaudio = pytest.importorskip("torchaudio")

D, RATE, MELS = 11, 4000, 13
SAMPLES = [1999, 40, 1, 799, 1200]


@pytest.fixture
def waves() -> list[torch.Tensor]:
    return [torch.randn(count) * 0.3 for count in SAMPLES]


def make(**options) -> AudioFrames:
    return AudioFrames(D, sample_rate=RATE, n_mels=MELS, **options)


def close(first: torch.Tensor, second: torch.Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(first, second, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("n_fft", "hop"), [(None, None), (126, 37), (127, 64), (96, 96), (64, 101)])
def test_frames_are_torchaudios_centred_spectrogram_of_each_clip(waves, n_fft, hop):
    frames = make(n_fft=n_fft, hop_length=hop)
    mel = torchaudio.transforms.MelSpectrogram(
        RATE, frames.n_fft, hop_length=frames.hop_length, n_mels=MELS, center=True, pad_mode="constant"
    )
    for part, wave in zip(frames.features(waves).split(), waves, strict=True):
        want = mel(wave).T.clamp(min=1e-6).log()
        want = (want - want.mean()) / (want.var(correction=0) + 1e-5).sqrt()
        close(part.values, want, 1e-4)


@pytest.mark.parametrize("stem", ["conv", "patch"])
@pytest.mark.parametrize("subsampling", [1, 2, 4])
def test_lengths_formula(waves, stem, subsampling):
    frames = make(stem=stem, subsampling=subsampling)
    assert frames.hop_length == 40
    assert frames.n_fft == 128
    counts = [1 + count // 40 for count in SAMPLES]
    assert frames.features(waves).sizes == tuple(counts) == (50, 2, 1, 20, 31)
    tokens = frames(waves)
    assert tokens.sizes == tuple(math.ceil(count / subsampling) for count in counts)
    assert tokens.values.shape == (sum(tokens.sizes), D)
    assert tokens.coords[:3, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "options", [{}, {"stem": "patch", "subsampling": 3}, {"n_fft": 64, "hop_length": 101}]
)
def test_a_clip_does_not_know_its_batch_mates(waves, options):
    frames = make(**options)
    for part, wave in zip(frames(waves).split(), waves, strict=True):
        close(part.values, frames([wave]).values)


def test_a_stack_is_a_list():
    frames, stack = make(), torch.randn(3, 800)
    assert torch.equal(frames(stack).values, frames(list(stack)).values)


@pytest.mark.parametrize("factor", [1, 2, 8])
def test_conv_subsampling_is_a_plain_convolution_of_each_clip(factor):
    lengths = [7, 1, 16, 0, 9, 2]
    frames = TokenBatch(torch.randn(sum(lengths), 5), lengths)
    stem = ConvSubsampling(5, D, factor)
    for conv in stem.convs:
        nn.init.normal_(conv.bias)
    out = stem(frames)
    assert out.sizes == tuple(math.ceil(n / factor) for n in lengths)
    for part, clip in zip(out.split(), frames.split(), strict=True):
        if len(clip.values):
            x = clip.values.T[None]
            for conv in stem.convs:
                x = nn.functional.gelu(
                    nn.functional.conv1d(x, conv.weight, conv.bias, stride=conv.stride, padding=1)
                )
            close(part.values, stem.linear(x[0].T))


def test_frame_patches_fill_the_last_run_with_zeros():
    lengths = [7, 1, 6]
    frames = TokenBatch(torch.randn(sum(lengths), 5), lengths)
    stem = FramePatches(5, D, 3)
    out = stem(frames)
    assert out.sizes == (3, 1, 2)
    for part, clip in zip(out.split(), frames.split(), strict=True):
        filled = nn.functional.pad(clip.values, (0, 0, 0, -len(clip.values) % 3))
        close(part.values, stem.linear(filled.reshape(-1, 15)))


def test_loudness_does_not_matter(waves):
    frames = make()
    close(frames.features([waves[0]]).values, frames.features([0.5 * waves[0]]).values, 2e-3)


def test_silence_is_finite():
    assert make()([torch.zeros(800), torch.zeros(1)]).values.isfinite().all()


@pytest.mark.parametrize("options", [{}, {"stem": "patch", "subsampling": 3}])
def test_regions_cover_each_wave_in_order(waves, options):
    frames = make(**options)
    tokens = frames(waves)
    for wave, spans, size in zip(waves, frames.regions(waves), tokens.sizes, strict=True):
        assert spans.shape == (size, 2)
        assert spans[0, 0] == 0
        assert spans[-1, 1] == len(wave)
        assert torch.equal(spans[1:, 0], spans[:-1, 1])


def test_regions_are_where_a_token_comes_from(waves):
    frames = make(stem="patch")
    start, stop = frames.regions(waves)[0][5].tolist()
    assert (start, stop) == (5 * 160 - 20, 5 * 160 + 140)
    changed = waves[0].clone()
    changed[start:stop] *= 9.0
    moved = (frames([changed]).values - frames([waves[0]]).values).abs().amax(1)
    assert moved.argmax() == 5


def test_gradients_reach_the_samples(waves):
    wave = waves[0].requires_grad_()
    make()(waves).values.square().sum().backward()
    assert wave.grad.isfinite().all()
    assert wave.grad.count_nonzero() > 1900


@pytest.mark.parametrize(
    ("error", "text", "items"),
    [
        (ValueError, r"at least one wave: got none", []),
        (
            ValueError,
            r"a wave must be \[S\] with at least one sample: got shape \[2, 5\]",
            [torch.zeros(2, 5)],
        ),
        (ValueError, r"at least one sample: got shape \[0\]", [torch.zeros(0)]),
        (TypeError, r"floating-point in \[-1, 1\]: got torch.int16", [torch.zeros(5, dtype=torch.int16)]),
    ],
)
def test_items_that_do_not_fit(error, text, items):
    with pytest.raises(error, match=text):
        make()(items)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (r"subsampling must be at least 1: got 0", {"subsampling": 0}),
        (r"hop_length must be at least 1: got 0", {"hop_length": 0}),
        (r"subsampling must be a power of two for a conv stem: got 3", {"subsampling": 3}),
        (r"stem must be 'conv' or 'patch': got 'linear'", {"stem": "linear"}),
    ],
)
def test_errors(text, options):
    with pytest.raises(ValueError, match=text):
        make(**options)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'AudioFrames needs torchaudio: pip install "mmattn\[speech\]"'):
        make()
