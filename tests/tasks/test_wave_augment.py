"""Random changes of waves, held against what they say they do."""

from __future__ import annotations

import math

import pytest
import torch

from tasks.speech.data.augment import BandLimit, Chain, Equalizer, Noise, Reverb, Speed

RATE = 8000


def tone(hertz: float, samples: int = 3989) -> torch.Tensor:
    return 0.5 * torch.sin(2 * math.pi * hertz * torch.arange(samples) / RATE)


def loudest(wave: torch.Tensor) -> float:
    """Frequency of the strongest bin in Hz."""
    return float(torch.fft.rfft(wave * torch.hann_window(len(wave)), 80_000).abs().argmax()) * RATE / 80_000


def decibels(ratio: torch.Tensor) -> torch.Tensor:
    return 10 * ratio.log10()


CHANGES = [Speed(0.2), Equalizer(9.0), BandLimit(), Reverb(), Noise()]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: type(change).__name__)
@pytest.mark.parametrize("samples", [1, 99, 100, 101, 3989])
def test_any_length_gives_finite_samples_and_leaves_the_wave_alone(change, samples):
    wave = torch.randn(samples)
    before = wave.clone()
    changed = change.change(wave, RATE)
    assert changed.dtype == torch.float32
    assert changed.ndim == 1
    assert changed.isfinite().all()
    assert torch.equal(wave, before)
    if not isinstance(change, Speed):
        assert len(changed) == samples


@pytest.mark.parametrize("kind", [Speed, Equalizer, BandLimit, Reverb, Noise])
def test_the_probability_is_the_share_of_changed_waves(kind):
    wave, change = torch.randn(307), kind(probability=0.3)
    same = sum(change(wave, RATE) is wave for _ in range(400))
    assert 0.6 < same / 400 < 0.8
    assert all(kind(probability=0.0)(wave, RATE) is wave for _ in range(20))
    with pytest.raises(ValueError, match=r"^probability must lie in \[0, 1\]: got 1.5$"):
        kind(probability=1.5)


def test_speed_moves_duration_and_pitch_together_and_keeps_the_loudness():
    wave, ratios = tone(500), []
    for _ in range(40):
        changed = Speed(0.2)(wave, RATE)
        ratio = len(changed) / len(wave)
        ratios.append(ratio)
        middle = changed[200:-200]
        assert loudest(middle) == pytest.approx(500 / ratio, rel=0.005)
        assert float(middle.square().mean().sqrt()) == pytest.approx(0.5 / math.sqrt(2), rel=0.02)
    assert min(ratios) < 0.9
    assert max(ratios) > 1.12
    assert min(ratios) > 0.825
    assert max(ratios) < 1.205


def test_speed_agrees_with_the_resampling_of_torchaudio():
    resample = pytest.importorskip("torchaudio.functional").resample
    wave = torch.nn.functional.interpolate(torch.randn(1, 1, 700), 2803, mode="linear")[0, 0]
    wave = wave * torch.hann_window(2803)
    for _ in range(5):
        changed = Speed(0.3)(wave, RATE)
        percent = round(100 * len(changed) / len(wave))
        expected = resample(wave, 100, percent, lowpass_filter_width=64)
        size = min(len(expected), len(changed))
        assert (changed[:size] - expected[:size]).abs().max() < 0.02 * wave.abs().max()


def test_the_equalizer_changes_each_frequency_by_its_own_gain():
    wave = torch.randn(40_009)
    spread = []
    for _ in range(30):
        ratio = Equalizer(6.0, points=4)(wave, RATE)
        response = torch.fft.rfft(ratio).abs().square() / torch.fft.rfft(wave).abs().square()
        bands = torch.stack([decibels(band.median()) for band in response[100:].chunk(16)])
        assert (bands[1:] - bands[:-1]).abs().max() < 15  # smooth
        spread.append(bands)
    deviations = torch.stack(spread).std(0)
    assert ((deviations > 2.5) & (deviations < 9.0)).all()
    flat = Equalizer(0.0)(wave, RATE)
    assert torch.allclose(flat, wave, atol=1e-5)


def test_band_limits_damp_what_lies_beyond_the_edges():
    wave = tone(60) + tone(1000) + tone(3900)
    limit = BandLimit(low_hz=600.0, high_hz=2000.0, slope_db=24.0, probability=1.0)
    powers = []
    for _ in range(60):
        spectrum = torch.fft.rfft(limit(wave, RATE) * torch.hann_window(len(wave))).abs().square()
        hertz = torch.fft.rfftfreq(len(wave), 1 / RATE)
        powers.append([float(spectrum[(hertz - f).abs() < 15].sum()) for f in (60, 1000, 3900)])
    low, middle, high = decibels(torch.tensor(powers)).unbind(1)
    assert (middle - middle.median()).abs().max() < 0.5
    assert (low - middle).min() < -60  # 24 dB for each of the 3.3 octaves below 600 Hz
    assert (low - middle).max() > -6
    assert -25 < (high - middle).min() < -15  # 0.96 octaves above 2000 Hz
    assert (high - middle).max() > -3


def test_reverb_keeps_the_direct_sound_and_adds_what_dies_away():
    impulse = torch.zeros(4001)
    impulse[211] = 1
    ratios = []
    for _ in range(50):
        heard = Reverb(0.2, (0.0, 15.0), probability=1.0)(impulse, RATE)
        assert heard[:211].abs().max() < 1e-5
        assert float(heard[211]) == pytest.approx(1, abs=1e-4)
        tail = heard[212:]
        assert tail[1600:].abs().max() < 1e-5  # 0.2 s later
        ratios.append(float(decibels(1 / tail.square().sum())))
    assert -0.01 < min(ratios) < 3
    assert 12 < max(ratios) < 15.01


def test_noise_has_the_level_and_colour_that_were_asked_for():
    wave = tone(1000, 20_011)
    for tilt in (0.0, -3.0, -6.0):
        noise = Noise((10.0, 10.0), (tilt, tilt))(wave, RATE) - wave
        assert float(decibels(wave.square().mean() / noise.square().mean())) == pytest.approx(10, abs=0.01)
        power = torch.fft.rfft(noise).abs().square()
        hertz = torch.fft.rfftfreq(len(noise), 1 / RATE)
        octaves = [power[(hertz >= f) & (hertz < 2 * f)].mean() for f in (250, 500, 1000, 2000)]
        slope = float(decibels(octaves[3] / octaves[0])) / 3
        assert slope == pytest.approx(tilt, abs=0.7)
    levels = [float(decibels(wave.square().mean() / (Noise((5.0, 40.0))(wave, RATE) - wave).square().mean()))
              for _ in range(40)]  # fmt: skip
    assert 5 <= min(levels) < 12
    assert 33 < max(levels) <= 40.01
    assert Noise()(torch.zeros(401), RATE).abs().max() == 0  # silence has no power to measure noise by


def test_a_chain_applies_its_parts_in_order_and_the_seed_decides():
    chain = Chain((Speed(0.15), Equalizer(), Noise()))
    wave = tone(700)
    torch.manual_seed(5)
    first = chain(wave, RATE)
    torch.manual_seed(5)
    expected = Noise()(Equalizer()(Speed(0.15)(wave, RATE), RATE), RATE)
    assert torch.equal(first, expected)
    assert not torch.equal(first, wave[: len(first)])


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Speed(1.0), r"most must lie in \[0, 1\): got 1.0"),
        (lambda: Equalizer(-1.0), "deviation_db must not be negative: got -1.0"),
        (lambda: Equalizer(points=1), "points must be at least 2: got 1"),
        (lambda: BandLimit(300.0, 200.0), r"low_hz must lie in \[0, high_hz\): got low_hz=300.0, high_hz=200.0"),
        (lambda: Reverb(0.01), "seconds must be at least 0.02: got 0.01"),
        (lambda: Reverb(direct_db=(3.0, 1.0)), "direct_db must be lowest and highest: got 3.0 and 1.0"),
        (lambda: Noise((9.0, 1.0)), "snr_db must be lowest and highest: got 9.0 and 1.0"),
    ],
)  # fmt: skip
def test_arguments_are_checked(make, text):
    with pytest.raises(ValueError, match=f"^{text}$"):
        make()
