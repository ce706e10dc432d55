"""Digits spoken by eSpeak NG's voices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("espeakng_loader")
pytest.importorskip("torchaudio")

from tasks.speech.data.spoken_digits import SPELLED, WORDS, digit_utterances, spoken_digits


@pytest.fixture(scope="module")
def digits():
    return spoken_digits(203, 8000)


def test_the_digits_come_in_turn_at_one_loudness(digits):
    assert len(digits) == 203
    assert [digits[i].label for i in range(203)] == [i % 10 for i in range(203)]
    for i in range(0, 203, 7):
        wave = digits[i].item
        assert wave.dtype == torch.float32
        assert 0.1 < len(wave) / 8000 < 1.5
        assert 0.09 < float(wave.square().mean().sqrt()) < 0.101


def test_each_has_its_own_voice_and_what_is_said_is_its_label():
    spoken = digit_utterances(203)
    for i, u in enumerate(spoken):
        language = u.voice.partition("+")[0]
        words = SPELLED[language].split() if language in SPELLED else WORDS
        assert words[i % 10] == u.text
    foreign = {u.voice.partition("+")[0] for u in spoken} & set(SPELLED)
    assert foreign == set(SPELLED)
    assert 70 < sum(u.voice.partition("+")[0] in SPELLED for u in spoken) < 135
    assert len({u.voice for u in spoken}) > 150
    assert min(u.rate for u in spoken) < 120 < 230 < max(u.rate for u in spoken)
    assert min(u.pitch for u in spoken) < 15 < 85 < max(u.pitch for u in spoken)


def test_words_are_told_apart_by_their_duration_as_the_words_are(digits):
    seconds = np.array([digits.size(i) for i in range(200)]).reshape(20, 10).mean(0) / 8000
    assert (
        seconds[[0, 7]].min() > seconds[[2, 8]].max()
    )  # zero and seven have two syllables, two and eight one


def test_another_rate_and_a_second_call_give_the_same_words(digits):
    again, double = spoken_digits(12, 8000), spoken_digits(12, 16_000)
    for i in range(12):
        # the filter sees other neighbours, and nothing else
        assert torch.allclose(again[i].item, digits[i].item, atol=1e-4)
        assert again.digests[i] == double.digests[i] == digits.digests[i]
        ratio = len(double[i].item) / len(again[i].item)
        assert (
            1.95 < ratio < 3.2
        )  # nothing below 4 kHz is trimmed that was not, and the hiss of six above it is heard
