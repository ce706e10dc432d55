"""Find the whole word: spoken commands among cut words of other commands.

Source: speech that eSpeak NG (GPL 3, brought by the package espeakng-loader) makes out of text when the sets
are built. The words are ten of those of Speech Commands (P. Warden, 2018, https://arxiv.org/abs/1804.03209).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mmattn.training.data import Example
from tasks.scenes import SceneData, SceneSet, TrainLevels
from tasks.speech.data import espeak

STANDARD_LEVEL = 3
"""Level of the comparison: three cut words in 2.1 to 2.5 s, noise 18 dB below the word."""

SAMPLE_RATE = 8000
"""Samples a second."""

WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
"""The commands."""

ACCENTS = {
    "train": ("en", "en-us", "en-gb-scotland", "en-gb-x-gbcwmd", "en-gb-x-rp"),
    "val": ("en-us-nyc",),
    "test": ("en-029", "en-gb-x-gbclan"),
}
"""English accents of each set: British, American, Scottish, West Midlands and Received Pronunciation are
heard in training; New York in validation; Caribbean and Lancaster in the test."""

_TRAIN = (
    "Alex Andrea Annie Demonic Denis Diogo Henrique Hugo Mario Marco Michael Mike mike2 Nguyen Reed "
    "Tweaky UniRobot anika anikaRobot antonio benjamin caleb david ed f1 f3 grandma grandpa ian iven "
    "iven3 iven4 john kaukovalta klatt klatt2 klatt3 klatt4 klatt5 klatt6 m1 m4 m6 m8 marcelo max "
    "michel miguel norbert paul pedro robosoft robosoft2 robosoft3 robosoft4 robosoft5 robosoft6 "
    "robosoft7 robosoft8 sandro shelby whisper zac"
)
_VAL = "Jacky Lee boris edward edward2 f5 fast m3 m7 quincy rob robert"
_TEST = (
    "Andy AnxiousAndy Gene Gene2 Storm adam aunty belinda croak f2 f4 gustave linda m2 m5 pablo "
    "steph steph2 steph3 travis victor"
)
VARIANTS = {
    "train": (*_TRAIN.split(), "Mr serious"),
    "val": tuple(_VAL.split()),
    "test": tuple(_TEST.split()),
}
"""Speakers (eSpeak NG's voice variants) of each set. Variants that share 60 % of their settings lie in one
set, as do those numbered from one name (klatt, klatt2, ...), save the plain speakers f1 to f5 and m1 to m8.
Left out: Alicia, announcer, iven2, RicishayMax, RicishayMax2, RicishayMax3 and whisperf, whose words a linear
classifier that knows other voices mistakes in 15 to 40 % of cases (2.6 % over all)."""

SIZES = {"train": 3000, "val": 500, "test": 1000}
"""Words in each set."""

_SPLIT_SEEDS = {"train": 101, "val": 102, "test": 103}
_RMS = 0.1  # of every word: loudness must not tell target from distractor
_BABBLERS = 4  # voices that speak at once in the background
_CUTS = (1 / 2, 1 / 3)  # parts of a word that a fragment may be
_FADE = 40  # samples, 5 ms: a cut must not click


class Recording(NamedTuple):
    """One word.

    Attributes:
        wave: samples ``[S]`` at 8 kHz in [-1, 1], without silence around the word.
        label: index of the word.
        voice: eSpeak NG's name of the voice, ``"accent+variant"``.
        source: digest of the wave as eSpeak NG gave it, which no arithmetic of this machine has touched.
    """

    wave: NDArray[np.float32]
    label: int
    voice: str
    source: str


def signal_to_noise(level: int) -> float:
    """Power of the words over that of the noise in a scene, in dB."""
    return 30.0 - 4.0 * level


def least_seconds(level: int) -> float:
    """Seconds of the shortest scene; scenes are up to a fifth longer, and more where words need it."""
    return 1.2 + 0.3 * level


class SpokenScenes(SceneSet):
    """Whole command words, each among ``level`` cut words of other commands.

    A scene is a wave ``[S]`` at 8 kHz with the start and stop of the whole word in samples. Level 0 is the
    word alone. Above, halves and thirds of other words lie before and after it at random times, as loud as
    the word within 3 dB and nowhere over it; behind all lie white noise and, as strong, the babble of four voices.

    Args:
        recordings: the plain items.
        level: number of cut words.
        train_levels: see :class:`~tasks.scenes.SceneSet`.
        seed: see :class:`~tasks.scenes.SceneSet`.
    """

    def __init__(
        self,
        recordings: Sequence[Recording],
        level: int,
        train_levels: TrainLevels = "fixed",
        seed: int | None = None,
    ) -> None:
        super().__init__(WORDS, [recording.label for recording in recordings], level, train_levels, seed)
        self.recordings = list(recordings)

    def compose(self, index: int, level: int, rng: np.random.Generator) -> Example:
        word, label = self.recordings[index].wave, self.labels[index]
        if level == 0:
            return Example(torch.from_numpy(word.copy()), label, (0, len(word)))
        pieces = [self._fragment(label, rng) for _ in range(level)]
        place = int(rng.integers(level + 1))
        pieces.insert(place, word)
        spoken = sum(len(piece) for piece in pieces)
        nominal = int(SAMPLE_RATE * least_seconds(level) * (1 + 0.2 * rng.random()))
        length = max(nominal, spoken + SAMPLE_RATE // 10)
        # The silence is cut at random times into what lies before each piece and after the last.
        silence = np.sort(rng.integers(0, length - spoken + 1, len(pieces))).tolist()
        amplitude = _RMS * 10 ** (-signal_to_noise(level) / 20)
        scene = rng.standard_normal(length, dtype=np.float32) + self._babble(length, rng)
        scene *= np.float32(amplitude / np.sqrt(2))
        relevant, done = (0, 0), 0
        for position, (piece, gap) in enumerate(zip(pieces, silence, strict=True)):
            start = gap + done
            scene[start : start + len(piece)] += piece
            done += len(piece)
            if position == place:
                relevant = (start, start + len(piece))
        np.clip(scene, -1, 1, out=scene)
        return Example(torch.from_numpy(scene), label, relevant)

    def _babble(self, length: int, rng: np.random.Generator) -> NDArray[np.float32]:
        """Several voices at once, too many to make out, with the power of unit noise."""
        babble = np.zeros(length, dtype=np.float32)
        for _ in range(_BABBLERS):
            at = -int(rng.integers(SAMPLE_RATE // 4))
            while at < length:
                word = self.recordings[rng.integers(len(self.recordings))].wave
                begin, end = max(at, 0), min(at + len(word), length)
                if begin < end:  # a short word may end before the scene begins
                    babble[begin:end] += word[begin - at : end - at]
                at += len(word) + SAMPLE_RATE // 20
        return babble / np.float32(_RMS * np.sqrt(_BABBLERS))

    def _fragment(self, label: int, rng: np.random.Generator) -> NDArray[np.float32]:
        word = self.recordings[self.other(label, rng)].wave
        length = int(len(word) * _CUTS[rng.integers(len(_CUTS))])
        start = int(rng.integers(2)) * (len(word) - length)  # its beginning or its end
        piece: NDArray[np.float32] = word[start : start + length] * np.float32(10 ** rng.uniform(-0.15, 0.15))
        piece[:_FADE] *= _RAMP
        piece[-_FADE:] *= _RAMP[::-1]
        return piece

    def size(self, index: int) -> int:
        """Samples of word ``index`` at level 0; above, of the longest scene of its level that is usual."""
        if self.level == 0:
            return len(self.recordings[index].wave)
        return int(SAMPLE_RATE * least_seconds(self.level) * 1.2)

    def content(self) -> str:
        content = hashlib.sha256()
        for recording in self.recordings:
            content.update(f"{recording.voice} {recording.label} {recording.source}\n".encode())
        return content.hexdigest()


_RAMP = np.linspace(0, 1, _FADE, dtype=np.float32)


def trimmed(wave: NDArray[np.float32]) -> NDArray[np.float32]:
    """The wave from its first to its last sample above 2 % of the largest, at the common loudness."""
    heard = np.flatnonzero(np.abs(wave) > 0.02 * np.abs(wave).max())
    word = wave[heard[0] : heard[-1] + 1]
    louder = word * (_RMS / np.sqrt(np.mean(word * word)))
    clipped: NDArray[np.float32] = np.clip(louder, -1, 1).astype(np.float32)
    return clipped


def _utterances(name: str) -> list[espeak.Utterance]:
    """What the voices of a set say: the words in turn, each with its own voice, rate and pitch."""
    rng = np.random.default_rng(_SPLIT_SEEDS[name])
    accents, variants = ACCENTS[name], VARIANTS[name]
    spoken = []
    for i in range(SIZES[name]):
        voice = f"{accents[rng.integers(len(accents))]}+{variants[rng.integers(len(variants))]}"
        rate, pitch = int(rng.integers(130, 221)), int(rng.integers(20, 81))
        spoken.append(espeak.Utterance(WORDS[i % len(WORDS)], voice, rate, pitch))
    return spoken


def check_heard(utterances: Sequence[espeak.Utterance], waves: Sequence[NDArray[np.int16]]) -> None:
    """Refuse voices that say nothing.

    Raises:
        ValueError: a wave is silent.
    """
    pairs = zip(utterances, waves, strict=True)
    silent = sorted({u.voice for u, wave in pairs if not np.any(np.abs(wave) > 300)})
    if silent:
        raise ValueError(f"every voice must be heard: silent are {', '.join(silent)}")


@cache
def _load() -> dict[str, list[Recording]]:
    sets = {name: _utterances(name) for name in SIZES}
    everything = [utterance for utterances in sets.values() for utterance in utterances]
    raw = [np.frombuffer(wave, dtype=np.int16) for wave in espeak.record(everything)]
    check_heard(everything, raw)
    recordings = iter(
        Recording(
            trimmed(wave),
            WORDS.index(u.text),
            u.voice,
            hashlib.sha256(source.astype("<i2").tobytes()).hexdigest(),
        )
        for u, source, wave in zip(everything, raw, resampled(raw, SAMPLE_RATE), strict=True)
    )
    return {name: list(islice(recordings, len(utterances))) for name, utterances in sets.items()}


def resampled(waves: Sequence[NDArray[np.int16]], sample_rate: int) -> list[NDArray[np.float32]]:
    """eSpeak NG's waves at another sample rate, their values divided by 32,768, with silence behind the shorter."""
    from torchaudio.functional import resample

    changed: list[NDArray[np.float32]] = []
    for start in range(0, len(waves), 64):  # many at a time: each call makes its filter anew
        chunk = [torch.from_numpy(wave.astype(np.float32) / 32768) for wave in waves[start : start + 64]]
        padded = torch.nn.utils.rnn.pad_sequence(chunk, batch_first=True)
        changed.extend(resample(padded, espeak.SAMPLE_RATE, sample_rate).numpy())
    return changed


class SpokenCommands(SceneData):
    """Spoken commands to be found among cut words: ten classes, 3,000 / 500 / 1,000 words, voices apart.

    Args:
        level: number of cut words; 0 is plain word recognition.
        train_levels: ``"fixed"`` trains at ``level``, ``"mixed"`` at levels drawn from 0 to ``level``.
        batch_size: examples per step.
        num_workers: worker processes of each loader; 0 loads in the main process.
        length_pool: batches sorted by length together in training.

    Raises:
        ImportError: espeakng-loader or torchaudio is not installed (when the sets are built).
        RuntimeError: eSpeak NG does not start.
        ValueError: ``level`` is negative or ``train_levels`` unknown.

    Example:
        >>> wave, label, (start, stop) = SpokenCommands(level=3).sets["test"][0]
        >>> wave.ndim, 0 <= start < stop <= len(wave)
        (1, True)
    """

    sample_rate = SAMPLE_RATE
    synthetic = True

    def __init__(
        self,
        level: int = STANDARD_LEVEL,
        train_levels: TrainLevels = "fixed",
        batch_size: int = 64,
        num_workers: int = 0,
        length_pool: int = 16,
    ) -> None:
        super().__init__(level, train_levels, batch_size, num_workers, length_pool)

    def scenes(self, name: str, level: int, seed: int | None) -> SpokenScenes:
        return SpokenScenes(_load()[name], level, self.train_levels, seed)
