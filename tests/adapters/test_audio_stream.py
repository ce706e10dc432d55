"""A wave in chunks gives the tokens of the whole wave."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmattn import AudioFrames
from mmattn.adapters.audio_stream import AudioStream

pytest.importorskip("torchaudio")

D, RATE, MELS = 11, 4000, 13


def make(**options) -> AudioFrames:
    torch.manual_seed(1)
    frames = AudioFrames(D, sample_rate=RATE, n_mels=MELS, normalize="global", **options)
    for parameter in frames.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # biases as well
    frames.fit([torch.randn(2000) * 0.3])
    return frames


@st.composite
def settings(draw) -> dict[str, object]:
    stem = draw(st.sampled_from(["conv", "patch"]))
    factor = draw(st.sampled_from([1, 2, 4, 8] if stem == "conv" else [1, 2, 3]))
    n_fft, hop = draw(st.sampled_from([(128, 40), (126, 37), (127, 64), (96, 96), (64, 101), (128, 400)]))
    return {"stem": stem, "subsampling": factor, "n_fft": n_fft, "hop_length": hop}


@given(settings(), st.lists(st.integers(0, 700), min_size=1, max_size=6))
@torch.no_grad()
def test_any_chunks_give_the_tokens_of_the_whole(options, sizes):
    if not sum(sizes):
        sizes = [*sizes, 1]
    frames, wave = make(**options), torch.randn(sum(sizes)) * 0.3
    stream = AudioStream(frames)
    parts = [stream.push(chunk) for chunk in wave.split(sizes)]
    out = torch.cat([*parts, stream.finish()])
    torch.testing.assert_close(out, frames([wave]).values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("samples", [1, 39, 40, 41, 283])
@torch.no_grad()
def test_one_sample_at_a_time(samples):
    frames, wave = make(), torch.randn(samples)
    stream = AudioStream(frames)
    parts = [stream.push(chunk) for chunk in wave.split(1)]
    out = torch.cat([*parts, stream.finish()])
    torch.testing.assert_close(out, frames([wave]).values, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options", [{}, {"subsampling": 1}, {"subsampling": 8}, {"stem": "patch", "subsampling": 3}]
)
@torch.no_grad()
def test_a_token_comes_as_soon_as_its_samples_are_there(options):
    frames = make(**options)
    half, hop = frames.n_fft // 2, frames.hop_length
    stream, wave = AudioStream(frames), torch.randn(3000)
    seen = 0
    for token in range(5):
        last_frame = token * frames.subsampling + frames.stem.look_ahead
        needed = last_frame * hop + half
        assert len(stream.push(wave[seen : needed - 1])) == 0
        assert len(stream.push(wave[needed - 1 : needed])) == 1
        seen = needed


@torch.no_grad()
def test_what_is_kept_does_not_grow():
    stream = AudioStream(make())
    kept = []
    for _ in range(200):
        stream.push(torch.randn(333))
        tensors = [stream._samples, *stream._waiting]
        kept.append(sum(tensor.untyped_storage().nbytes() for tensor in tensors))
    frames = stream.adapter
    most = frames.n_fft + frames.hop_length + 3 * MELS + 3 * D  # of each of the two convolutions, three rows
    assert 0 < max(kept) <= 4 * most


def test_a_stream_without_samples_has_no_tokens():
    assert AudioStream(make()).finish().shape == (0, D)


def test_errors():
    with pytest.raises(ValueError, match=r"normalize='global', .* got 'clip'"):
        AudioStream(AudioFrames(D))
    with pytest.raises(ValueError, match="learnt or loaded before use"):
        AudioStream(AudioFrames(D, normalize="global"))
    stream = AudioStream(make())
    with pytest.raises(ValueError, match=r"samples must be \[S\]: got shape \[1, 5\]"):
        stream.push(torch.zeros(1, 5))
    with pytest.raises(TypeError, match=r"must be floating-point .* got torch.int16"):
        stream.push(torch.zeros(5, dtype=torch.int16))
    stream.finish()
    with pytest.raises(ValueError, match="a finished stream takes no more samples"):
        stream.push(torch.zeros(5))
    with pytest.raises(ValueError, match="a finished stream takes no more samples"):
        stream.finish()
