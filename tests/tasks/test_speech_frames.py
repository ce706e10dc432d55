"""Randomly changed log-mel frames."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

pytest.importorskip("torchaudio")
pytest.importorskip("lightning")

from mmattn import AudioFrames, TokenBatch, build_encoder
from mmattn.adapters import BandNormFrames
from tasks.speech.frames import BandGains, BandMix, EdgeCut, Tempo, VocalTractWarp
from tasks.speech.module import KeywordSpotting

N_MELS = 37


def waves() -> list[torch.Tensor]:
    return [torch.randn(samples) * scale for samples, scale in ((4001, 0.1), (997, 0.4), (2503, 0.01))]


def hertz(band: float) -> float:
    """Centre of a band of torchaudio's scale, computed from the definition of mel."""
    top = 2595 * math.log10(1 + 4000 / 700)
    return 700 * (10 ** (top * (band + 1) / (N_MELS + 1) / 2595) - 1)


@pytest.mark.parametrize("factor", [0.85, 1.0, 1.2])
def test_a_warp_moves_a_peak_to_its_frequency_times_the_factor(factor):
    frequencies = np.array([hertz(band) for band in range(N_MELS)])
    for centre in (400.0, 900.0, 1700.0):
        peak = torch.from_numpy(np.exp(-0.5 * ((frequencies - centre) / 150) ** 2)).float()
        warped = (
            VocalTractWarp().warp(TokenBatch(peak[None], [1]), torch.tensor([[factor]])).values[0].numpy()
        )
        expected = np.exp(-0.5 * ((frequencies / factor - centre) / 150) ** 2)
        below = frequencies < 3000
        assert np.abs(warped - expected)[below].max() < 0.12  # a band is up to 130 Hz wide there
        assert abs(np.average(frequencies[below], weights=warped[below] ** 4) / centre / factor - 1) < 0.02


def test_the_warp_keeps_both_ends_and_its_order():
    warp = VocalTractWarp(most=0.3)
    line = torch.arange(N_MELS).float().repeat(3, 1)
    factors = torch.tensor([[0.7], [1.0], [1.3]])
    low, same, high = warp.warp(TokenBatch(line, [1, 1, 1]), factors).values
    assert torch.allclose(same, line[0], atol=1e-3)
    assert (low[1:] >= low[:-1]).all()
    assert (high[1:] >= high[:-1]).all()
    assert (low[5:30] > line[0, 5:30]).all()  # a longer tract: each band hears what lay higher
    assert (high[5:30] < line[0, 5:30]).all()
    assert abs(float(low[-1]) - (N_MELS - 1)) < 1  # the last band lies a little below the end
    assert abs(float(high[-1]) - (N_MELS - 1)) < 1


def test_each_clip_is_warped_by_its_own_factor_in_training_alone():
    frames = TokenBatch(torch.randn(1, N_MELS).repeat(11, 1), [4, 7])
    warp = VocalTractWarp(0.2)
    first, second = warp(frames).values.split([4, 7])
    assert torch.equal(first, first[:1].expand(4, -1))
    assert torch.equal(second, second[:1].expand(7, -1))
    assert not torch.allclose(first[0], second[0])
    assert warp.eval()(frames) is frames


def test_gains_are_one_smooth_curve_for_each_clip_in_training_alone():
    frames = TokenBatch(torch.randn(40, N_MELS), [17, 23])
    gains = BandGains(0.5, points=4)
    ends = []
    for _ in range(200):
        added = gains(frames).values - frames.values
        for part in added.split([17, 23]):
            assert (part - part[:1]).abs().max() < 1e-5
            curve = part[0].numpy()
            points = curve[[0, 12, 24, 36]]  # 4 points over 37 bands
            assert np.abs(curve - np.interp(np.arange(N_MELS), [0, 12, 24, 36], points)).max() < 1e-4
            ends.append(points)
    assert np.allclose(np.std(ends, axis=0), 0.5, atol=0.08)
    assert np.abs(np.corrcoef(np.array(ends).T) - np.eye(4)).max() < 0.2
    assert gains.eval()(frames) is frames
    assert BandGains(0.0)(frames) is frames


def test_gains_do_what_a_filter_of_the_wave_does():
    adapter = AudioFrames(8, 8000, N_MELS)
    wave = torch.randn(16_001)
    echoed = torch.nn.functional.conv1d(wave[None, None], torch.tensor([[[0.6, 1.0]]]), padding=1)[
        0, 0, :16_001
    ]
    frames, filtered = (
        adapter.mel_scale(adapter.spectrogram(w).abs().square()).log() for w in (wave, echoed)
    )
    response = (
        0.6**2 + 1 + 1.2 * torch.cos(2 * math.pi * torch.tensor([hertz(b) for b in range(N_MELS)]) / 8000)
    )
    difference = (filtered - frames).mean(1)
    assert (difference - response.log()).abs().max() < 0.1


def test_bands_take_over_mean_and_deviation_of_another_clip_in_part():
    clips = [torch.randn(n, 5) * scale + shift for n, scale, shift in ((53, 1, 0), (31, 3, 7), (17, 0.5, -4))]
    frames = TokenBatch.from_sequences(clips)
    statistics = [torch.stack([clip.mean(0), clip.std(0, correction=0)]) for clip in clips]
    mix = BandMix(probability=0.6, alpha=0.4)
    changed_clips, shares = 0, []
    for _ in range(200):
        for index, part in enumerate(mix(frames).split()):
            found = torch.stack([part.values.mean(0), part.values.std(0, correction=0)])
            moved = found - statistics[index]
            if moved.abs().max() < 1e-3:
                continue
            changed_clips += 1
            # towards one of the others, all bands by one share, at most half of the way
            ways = [statistics[other] - statistics[index] for other in range(3) if other != index]
            fits = [float((moved * way).sum() / way.square().sum()) for way in ways]
            errors = [float((moved - fit * way).abs().max()) for fit, way in zip(fits, ways, strict=True)]
            assert min(errors) < 5e-3
            shares.append(fits[errors.index(min(errors))])
            shape = (clips[index] - statistics[index][0]) / statistics[index][1]
            assert torch.allclose((part.values - found[0]) / found[1], shape, atol=2e-2)
    assert 0.2 < changed_clips / 600 < 0.5  # of 0.6, a third meets itself
    assert 0.45 < max(shares) <= 0.501
    assert min(shares) > 0
    assert torch.allclose(BandMix(0.0)(frames).values, frames.values)
    assert mix.eval()(frames) is frames


def test_tempo_resamples_each_clip_between_its_first_and_last_frame():
    clips = [torch.randn(n, 5) for n in (53, 1, 17)]
    tempo = Tempo(0.4)
    seen = []
    for _ in range(30):
        changed = tempo(TokenBatch.from_sequences(clips))
        for clip, part in zip(clips, changed.split(), strict=True):
            length = len(part.values)
            assert len(clip) / 1.4 - 0.5 <= length <= len(clip) * 1.4 + 0.5
            if len(clip) > 1:
                x = np.linspace(0, len(clip) - 1, length)
                expected = np.stack(
                    [np.interp(x, np.arange(len(clip)), column) for column in clip.T.numpy()], 1
                )
                assert np.abs(part.values.numpy() - expected).max() < 1e-4
                assert part.coords[:, 0].tolist() == list(range(length))
        seen.append(changed.sizes[0])
    assert len(set(seen)) > 10
    assert min(seen) < 43
    assert max(seen) > 64
    frames = TokenBatch.from_sequences(clips)
    assert tempo.eval()(frames) is frames


def test_ends_are_cut_off_and_what_is_left_stays_as_it_was():
    clips = [torch.arange(n, dtype=torch.float32)[:, None].repeat(1, 3) for n in (40, 1, 0, 21)]
    frames = TokenBatch.from_sequences(clips)
    cut = EdgeCut(0.3, probability=0.5)
    starts, stops = [], []
    for _ in range(400):
        parts = cut(frames).split()
        for clip, part in zip(clips, parts, strict=True):
            left = part.values[:, 0].tolist()
            assert left == list(range(int(left[0]), int(left[-1]) + 1)) if left else len(clip) == 0
            assert part.coords[:, 0].tolist() == list(range(len(left)))
        starts.append(parts[0].values[0, 0].item())
        stops.append(39 - parts[0].values[-1, 0].item())
    for cuts in (starts, stops):
        assert max(cuts) == 11  # the last whole frame below 0.3 of 40
        assert 0.4 < np.mean(np.array(cuts) == 0) < 0.65  # half, and those cut by less than a frame
    assert abs(np.corrcoef(starts, stops)[0, 1]) < 0.15  # each end for itself
    assert EdgeCut(0.3, probability=0.0)(frames).sizes == frames.sizes
    assert cut.eval()(frames) is frames


def test_the_task_changes_frames_in_training_alone():
    adapter = BandNormFrames(12, sample_rate=8000, n_mels=N_MELS)
    task = KeywordSpotting(
        adapter, build_encoder(12, 1, 2), 3, frame_augment=[BandGains(1.0), VocalTractWarp(0.3), Tempo(0.5)]
    )
    items = waves()
    plain = adapter(items)
    changed = [task.train().tokens(items) for _ in range(5)]
    assert len({tokens.sizes for tokens in changed}) > 1
    assert all(len(tokens) == 3 for tokens in changed)
    assert torch.equal(task.eval().tokens(items).values, plain.values)
    with torch.no_grad():
        together = task(items)
        for wave, logits in zip(items, together, strict=True):
            assert torch.allclose(task([wave])[0], logits, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: VocalTractWarp(1.0), r"most must lie in \[0, 1\): got 1.0"),
        (lambda: VocalTractWarp(edge=1.0), r"edge must lie in \(0, 1\): got 1.0"),
        (lambda: BandGains(-1.0), "deviation must not be negative: got -1.0"),
        (lambda: BandGains(points=1), "points must be at least 2: got 1"),
        (lambda: BandMix(probability=1.1), r"probability must lie in \[0, 1\]: got 1.1"),
        (lambda: BandMix(alpha=0.0), "alpha must be above 0: got 0.0"),
        (lambda: Tempo(-0.1), "most must not be negative: got -0.1"),
        (lambda: EdgeCut(0.5), r"most must lie in \[0, 0.5\): got 0.5"),
        (lambda: EdgeCut(probability=1.1), r"probability must lie in \[0, 1\]: got 1.1"),
    ],
)
def test_arguments_are_checked(make, text):
    with pytest.raises(ValueError, match=f"^{text}$"):
        make()
