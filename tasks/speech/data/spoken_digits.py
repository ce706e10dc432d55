"""Digits spoken by the voices of eSpeak NG, to be heard beside the few speakers of a collection."""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from tasks.speech.data import espeak
from tasks.speech.data.spoken import ACCENTS, VARIANTS, check_heard, resampled, trimmed
from tasks.speech.data.waves import WaveSet

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

SPELLED = {
    "cs": "ziro van tů srí fór fajv siks sevn ejt najn",
    "de": "siero wann tuh trie foor feif ßicks ßewen äjt nein",
    "el": "ζίρο γουάν του θρι φορ φάιβ σιξ σέβεν έιτ νάιν",
    "es": "siro uán tu tri for faib six seven eit náin",
    "fi": "siro van tuu srii foor faiv siks seven eit nain",
    "fr": "zirau ouanne tou sri faure faïve sixe sévène éïte naïne",
    "hi": "ज़ीरो वन टू थ्री फ़ोर फ़ाइव सिक्स सेवन एट नाइन",
    "hu": "ziró van tú szrí fór fájv sziksz szeven ejt nájn",
    "it": "siro uán tu tri for fáiv sics séven éit náin",
    "nl": "ziero wan toe srie foor faif siks sevven eet nain",
    "pl": "ziro łan tu sri for fajw siks sewen ejt najn",
    "sv": "siro vann tu sri for fajv sicks seven ejt najn",
}
"""The English digits as other languages would spell what their speakers say: read by the rules of those languages,
they come out with a foreign accent."""

_SEED = 211
_FOREIGN = 0.5  # share of the waves
_RATES, _PITCHES = (110, 241), (10, 91)  # words a minute, and eSpeak NG's scale from 0 to 100


def spoken_digits(count: int, sample_rate: int) -> WaveSet:
    """Digits in turn, each with its own accent, voice, rate and pitch; the same for every call.

    Half are spoken with English accents, half with the foreign ones of :data:`SPELLED`. English accents and voices
    are all those of :class:`~tasks.speech.data.spoken.SpokenCommands`, whatever their set there. The waves are
    trimmed, and of one loudness.

    Args:
        count: number of waves.
        sample_rate: of the waves, in Hz.

    Raises:
        ImportError: espeakng-loader or torchaudio is not installed.
        RuntimeError: eSpeak NG does not start.

    Example:
        >>> wave, label, _ = spoken_digits(20, 8000)[13]
        >>> wave.ndim, label
        (1, 3)
    """
    utterances = digit_utterances(count)
    raw = [np.frombuffer(wave, dtype=np.int16) for wave in espeak.record(utterances)]
    check_heard(utterances, raw)
    return WaveSet(
        [torch.from_numpy(trimmed(wave)) for wave in resampled(raw, sample_rate)],
        [str(i % len(WORDS)) for i in range(count)],
        [hashlib.sha256(wave.astype("<i2").tobytes()).digest() for wave in raw],
        [str(digit) for digit in range(len(WORDS))],
        sample_rate,
    )


def digit_utterances(count: int) -> list[espeak.Utterance]:
    """What is said, and how: the digits in turn."""
    rng = np.random.default_rng(_SEED)
    english = [accent for part in ACCENTS.values() for accent in part]
    variants = [variant for part in VARIANTS.values() for variant in part]
    foreign = {language: words.split() for language, words in SPELLED.items()}
    spoken = []
    for i in range(count):
        accents = [*foreign] if rng.random() < _FOREIGN else english
        accent = accents[rng.integers(len(accents))]
        voice = f"{accent}+{variants[rng.integers(len(variants))]}"
        rate, pitch = int(rng.integers(*_RATES)), int(rng.integers(*_PITCHES))
        words = foreign.get(accent, WORDS)
        spoken.append(espeak.Utterance(words[i % len(WORDS)], voice, rate, pitch))
    return spoken
