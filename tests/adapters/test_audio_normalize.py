"""Log-mel frames normalised by a training set."""

from __future__ import annotations

import pytest
import torch

from mmattn import AudioFrames

pytest.importorskip("torchaudio")

D, RATE, MELS = 11, 4000, 13
SAMPLES = [1999, 40, 1, 799, 1200]


@pytest.fixture
def waves() -> list[torch.Tensor]:
    return [torch.randn(count) * 0.3 for count in SAMPLES]


def make(**options) -> AudioFrames:
    return AudioFrames(D, sample_rate=RATE, n_mels=MELS, normalize="global", **options)


@pytest.mark.parametrize("options", [{}, {"n_fft": 127, "hop_length": 64}, {"n_fft": 64, "hop_length": 101}])
def test_each_band_of_the_training_set_has_mean_0_and_deviation_1(waves, options):
    frames = make(**options)
    frames.fit(iter(waves))
    values = frames.features(waves).values
    torch.testing.assert_close(values.mean(0), torch.zeros(MELS), rtol=0, atol=1e-4)
    torch.testing.assert_close(values.std(0, correction=0), torch.ones(MELS), rtol=1e-3, atol=0)


def test_all_clips_are_moved_alike(waves):
    frames, plain = make(), AudioFrames(D, sample_rate=RATE, n_mels=MELS)
    frames.fit(waves)
    ours, clips = frames.features(waves), plain.features(waves)
    for part, clip in list(zip(ours.split(), clips.split(), strict=True))[:1]:
        log_mel = part.values * frames.deviation + frames.mean
        want = (log_mel - log_mel.mean()) / (log_mel.var(correction=0) + 1e-5).sqrt()
        torch.testing.assert_close(clip.values, want, rtol=1e-3, atol=1e-3)
    quiet = frames.features([0.1 * wave for wave in waves])
    assert float((ours.values - quiet.values).mean()) > 0.5


def test_batch_mates_do_not_matter(waves):
    frames = make()
    frames.fit(waves[:2])
    for part, wave in zip(frames(waves).split(), waves, strict=True):
        torch.testing.assert_close(part.values, frames([wave]).values, rtol=1e-5, atol=1e-5)


def test_the_statistics_travel_in_the_state_dict(waves):
    frames, other = make(), make()
    assert not frames.ready
    frames.fit(waves)
    assert frames.ready
    other.load_state_dict(frames.state_dict())
    assert other.ready
    assert torch.equal(other.features(waves).values, frames.features(waves).values)
    frames.fit([0.1 * wave for wave in waves])  # anew, not in addition
    assert float((other.mean - frames.mean).mean()) > 1


def test_the_state_dict_of_clips_has_nothing_new():
    plain = AudioFrames(D, sample_rate=RATE, n_mels=MELS)
    assert plain.ready
    assert set(make().state_dict()) - set(plain.state_dict()) == {"mean", "deviation"}


def test_silence_is_finite():
    frames = make()
    frames.fit([torch.zeros(800)])
    assert frames([torch.zeros(90), torch.randn(300)]).values.isfinite().all()


def test_numbers_of_frames_and_tokens(waves):
    frames = make(subsampling=2)
    frames.fit(waves)
    assert tuple(map(frames.num_frames, SAMPLES)) == frames.features(waves).sizes
    assert tuple(map(frames.num_tokens, SAMPLES)) == frames(waves).sizes


def test_errors(waves):
    with pytest.raises(ValueError, match=r"learnt or loaded before use, call fit\(waves\): got none"):
        make()(waves)
    with pytest.raises(ValueError, match="learnt from waves: got none"):
        make().fit([])
    with pytest.raises(ValueError, match="fit is for normalize='global': got 'clip'"):
        AudioFrames(D).fit(waves)
    with pytest.raises(ValueError, match="normalize must be 'clip' or 'global': got 'batch'"):
        AudioFrames(D, normalize="batch")
