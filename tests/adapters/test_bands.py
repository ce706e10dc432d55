"""Log-mel frames that do not tell the speaker's loudness, microphone or room."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

pytest.importorskip("torchaudio")

from mmattn import AudioFrames
from mmattn.adapters import BandNormFrames

N_MELS = 37


def waves() -> list[torch.Tensor]:
    return [torch.randn(samples) * scale for samples, scale in ((4001, 0.1), (997, 0.4), (2503, 0.01))]


def test_without_its_two_changes_it_gives_the_frames_of_the_library():
    plain, same = AudioFrames(8, 8000, N_MELS), BandNormFrames(8, None, 0.0, sample_rate=8000, n_mels=N_MELS)
    items = waves()
    assert torch.equal(plain.features(items).values, same.features(items).values)


def test_one_loudness_and_one_channel_give_one_result():
    adapter = BandNormFrames(8, level=0.1, bands=1.0, sample_rate=8000, n_mels=N_MELS)
    wave = torch.randn(4001)
    expected = adapter.features([wave]).values
    assert torch.allclose(adapter.features([7 * wave]).values, expected, atol=1e-4)
    # an impulse response much shorter than a window multiplies each band: white noise tells no other change
    echoed = torch.nn.functional.conv1d(wave[None, None], torch.tensor([[[0.6, 1.0]]]), padding=1)[
        0, 0, :4001
    ]
    plain = AudioFrames(8, 8000, N_MELS)
    before = (plain.features([wave]).values - plain.features([echoed]).values).square().mean()
    after = (expected - adapter.features([echoed]).values).square().mean()
    assert after < 0.6 * before


def test_a_clip_does_not_depend_on_its_batch_mates():
    adapter = BandNormFrames(8, level=0.05, bands=0.7, deviations=True, sample_rate=8000, n_mels=N_MELS)
    items = waves()
    together = adapter(items).split()
    for wave, tokens in zip(items, together, strict=True):
        assert torch.allclose(adapter([wave]).values, tokens.values, atol=1e-5)
    assert adapter([torch.zeros(401)]).values.isfinite().all()


def test_bands_of_each_clip_have_mean_zero_and_deviation_one():
    adapter = BandNormFrames(8, deviations=True, sample_rate=8000, n_mels=N_MELS)
    plain = AudioFrames(8, 8000, N_MELS)
    items = waves()
    quiet = [0.1 * wave / wave.square().mean().sqrt() for wave in items]
    for clip, before in zip(adapter.features(items).split(), plain.features(quiet).split(), strict=True):
        rows = before.values.numpy()
        centred = rows - rows.mean(0)
        expected = centred / np.sqrt(centred.var(0) + 0.01)
        assert np.abs(clip.values.numpy() - expected).max() < 1e-4


def test_a_lower_level_hides_what_is_soft():
    loud, soft = torch.randn(2000), torch.randn(2000) * 10 ** (-50 / 20)
    for level, hears in ((0.1, True), (0.001, False)):
        adapter = BandNormFrames(8, level, 0.0, sample_rate=8000, n_mels=N_MELS)
        tail = adapter.features([torch.cat([loud, soft])]).values[30:45]
        assert (tail.std() > 0.02) == hears


def test_a_floor_hides_the_noise_of_a_room():
    wave = torch.cat([torch.randn(4000), torch.zeros(4000)])
    noise = torch.randn(8000) * 10 ** (-50 / 20)
    apart = {}
    for floor in (None, 0.01):
        adapter = BandNormFrames(8, 0.1, 0.0, floor=floor, sample_rate=8000, n_mels=N_MELS)
        quiet, noisy = (adapter.features([each]).values for each in (wave, wave + noise))
        apart[floor] = float((quiet - noisy).square().mean() / quiet.var())
    assert apart[0.01] < 0.01 * apart[None]


def test_values_above_a_floor_are_computed_from_the_power_of_each_band():
    wave = torch.randn(3001)
    adapter = BandNormFrames(8, 0.2, 0.0, floor=0.03, sample_rate=8000, n_mels=N_MELS)
    louder = wave * 0.2 / wave.square().mean().sqrt()
    powers = AudioFrames(8, 8000, N_MELS).log_mel(torch.nn.functional.pad(louder, (128, 128))).double().exp()
    found = adapter.features([wave]).values
    assert np.abs(found.numpy() - np.log1p(powers.numpy()[: len(found)] / 0.03) / 3).max() < 1e-4
    assert not adapter.features([torch.zeros(900)]).values.max() > 1e-3


def test_quiet_ends_are_cut_and_regions_lie_in_the_whole_wave():
    adapter = BandNormFrames(8, trim_db=30, sample_rate=8000, n_mels=N_MELS, subsampling=2)
    word = torch.randn(2400)
    wave = torch.cat([torch.randn(1600) * 1e-3, word, torch.randn(4000) * 1e-3])
    tokens, [regions] = adapter([wave]), adapter.regions([wave])
    assert list(tokens.sizes) == [len(regions)]
    assert (
        int(regions[0, 0]) == 1600 - 2 * 80 - 160
    )  # 30 ms left, and half a window of 20 ms that holds some of it
    assert int(regions[-1, 1]) == 4000 + 2 * 80 + 160
    alone = adapter([wave[1280:4320]])
    assert torch.equal(tokens.values, alone.values)
    assert adapter.spectrum(wave).shape == (101, N_MELS)
    assert torch.equal(adapter([7 * wave]).coords, tokens.coords)


def test_a_hiss_is_not_taken_for_silence():
    adapter = BandNormFrames(8, trim_db=30, sample_rate=8000, n_mels=N_MELS)
    time = torch.arange(2400) / 8000
    vowel, hum = torch.sin(2 * math.pi * 300 * time), torch.sin(2 * math.pi * 50 * time)
    hiss = torch.randn(2400).diff(append=torch.zeros(1))
    edges = {
        name: adapter.regions([torch.cat([vowel, end * 0.015 / end.square().mean().sqrt()])])[0]
        for name, end in (("hiss", hiss), ("hum", hum))
    }  # both 33.5 dB below the vowel
    assert int(edges["hiss"][-1, 1]) == 4800
    assert int(edges["hum"][-1, 1]) <= 2400 + 400


@pytest.mark.parametrize("samples", [1, 79, 159, 160, 161, 400])
def test_what_is_short_or_silent_or_loud_throughout_stays_whole(samples):
    adapter = BandNormFrames(8, trim_db=30, sample_rate=8000, n_mels=N_MELS)
    for wave in (torch.ones(samples), torch.zeros(samples)):
        [regions] = adapter.regions([wave])
        assert (int(regions[0, 0]), int(regions[-1, 1])) == (0, samples)
        assert adapter([wave]).values.isfinite().all()


def test_a_clip_does_not_depend_on_its_batch_mates_with_floor_and_trimming():
    adapter = BandNormFrames(8, bands=0.5, floor=0.01, trim_db=20, sample_rate=8000, n_mels=N_MELS)
    items = [*waves(), torch.cat([torch.zeros(900), torch.randn(700), torch.zeros(1100)])]
    for wave, tokens in zip(items, adapter(items).split(), strict=True):
        assert torch.allclose(adapter([wave]).values, tokens.values, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"level": 0.0}, "level must be above 0: got 0.0"),
        ({"bands": 1.5}, r"bands must lie in \[0, 1\]: got 1.5"),
        ({"floor": 0.0}, "floor must be above 0: got 0.0"),
        ({"floor": 0.1, "normalize": "global"}, "with a floor, normalize must be 'clip': got 'global'"),
        ({"trim_db": -3.0}, "trim_db must be above 0: got -3.0"),
    ],
)
def test_arguments_are_checked(options, text):
    with pytest.raises(ValueError, match=f"^{text}$"):
        BandNormFrames(8, **options)
