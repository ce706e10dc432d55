"""Spoken sentences out of text, by eSpeak NG (GPL 3, brought by the package espeakng-loader)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchaudio.transforms import Resample

from mmattn.training.data import Pair
from tasks.speech.data import espeak
from tasks.speech.data.augment import Chain
from tasks.speech.data.spoken import ACCENTS, VARIANTS, check_heard
from tasks.speech.data.waves import INT16_SCALE
from tasks.speech.recognition.data.sentences import sentences
from tasks.speech.recognition.data.transcribed import (
    RecognitionData,
    Spoken,
    TranscribedSet,
    digest,
    shortest,
)

SAMPLE_RATE = 8000
"""Samples a second."""

SIZES = {"train": 5000, "val": 200, "test": 300, "test_accents": 300}
"""Sentences of each set."""

SPEAKERS = {
    "train": ("train", "train"),
    "val": ("train", "val"),
    "test": ("train", "test"),
    "test_accents": ("test", "test"),
}
"""From which set of ACCENTS and which of VARIANTS (tasks/speech/data/spoken.py) the speakers of a set are drawn."""

_SEEDS = {"train": 201, "val": 202, "test": 203, "test_accents": 204}
_RATES = (130, 200)  # words a minute
_PITCHES = (20, 80)
_LOUDNESS = 0.1  # root mean square of every sentence
_LOUDEST = 0.98
_PARTS = (
    4  # processes that speak; a fixed number, since eSpeak NG's noise runs on from one utterance to the next
)


class Sentence(NamedTuple):
    """One spoken sentence.

    Attributes:
        wave: samples ``[S]``, int16, at :data:`SAMPLE_RATE`.
        text: its words.
        voice: eSpeak NG's name of the voice, ``"accent+variant"``.
        source: digest of the wave as eSpeak NG gave it, which no arithmetic of this machine has touched.
    """

    wave: Tensor
    text: str
    voice: str
    source: str


class SentenceSet(TranscribedSet):
    """Spoken sentences.

    Args:
        sentences: what is said.
        augment: random changes; ``None`` for evaluation.
    """

    def __init__(self, sentences: Sequence[Sentence], augment: Chain | None = None) -> None:
        self.sentences = list(sentences)
        self.augment = augment

    def __len__(self) -> int:
        return len(self.sentences)

    def draw(self, index: int) -> Pair:
        sentence = self.sentences[index]
        wave = sentence.wave.float() / INT16_SCALE
        if self.augment is not None:
            wave = self.augment(wave, SAMPLE_RATE).clamp(-1, 1)
        return Pair(wave, sentence.text)

    def size(self, index: int) -> int:
        """Samples of sentence ``index``, before any change of speed."""
        return len(self.sentences[index].wave)

    def spoken(self) -> Iterator[Spoken]:
        for sentence in self.sentences:
            name = f"{sentence.text!r} by {sentence.voice}"
            yield Spoken(name, shortest(len(sentence.wave), self.augment), sentence.text)

    def fingerprint(self) -> str:
        return digest(f"{one.voice} {one.source} {one.text}" for one in self.sentences)


class SpokenSentences(RecognitionData):
    """Numbers, times, dates and commands spoken by eSpeak NG: 5,000 sentences to train on, 600 to be tested on.

    No sentence and no speaker (voice variant) of ``val`` or a test set occurs in ``train``. ``test`` has the accents
    of ``train``; those of ``test_accents``, Caribbean and Lancaster, do not occur in training either.

    Args:
        train_sentences: number of training sentences, up to 20,000.
        **kwargs: the changes in training and the arguments of the base; see RecognitionData.

    Raises:
        ImportError: espeakng-loader is not installed (when the sets are built).
        RuntimeError: eSpeak NG does not start.
        ValueError: a number is out of range.
    """

    synthetic = True

    def __init__(self, train_sentences: int = SIZES["train"], **kwargs: Any) -> None:
        super().__init__(sample_rate=SAMPLE_RATE, **kwargs)
        if not 1 <= train_sentences <= 20_000:
            raise ValueError(f"train_sentences must lie between 1 and 20000: got {train_sentences}")
        self.train_sentences = train_sentences

    def build(self) -> dict[str, TranscribedSet]:
        """Let the sentences be spoken, once for each process."""
        sizes = SIZES | {"train": self.train_sentences}
        return {
            name: SentenceSet(found, self.augment if name == "train" else None)
            for name, found in speak(tuple(sizes.items())).items()
        }


@cache
def speak(sizes: tuple[tuple[str, int], ...]) -> dict[str, list[Sentence]]:
    """The sentences of each set, as many as asked for.

    Raises:
        ValueError: a voice gave no sound.
    """
    utterances = _utterances(dict(sizes))
    everything = list(chain.from_iterable(utterances.values()))
    step = -(-len(everything) // _PARTS)
    parts = [everything[start : start + step] for start in range(0, len(everything), step)]
    with ThreadPoolExecutor(_PARTS) as pool:  # each waits for a process of its own
        raw = list(chain.from_iterable(pool.map(espeak.record, parts)))
    waves = [np.frombuffer(wave, dtype=np.int16) for wave in raw]
    check_heard(everything, waves)
    spoken = iter(
        Sentence(
            _levelled(at_rate),
            said.text,
            said.voice,
            hashlib.sha256(source.astype("<i2").tobytes()).hexdigest(),
        )
        for said, source, at_rate in zip(everything, waves, _resampled(waves), strict=True)
    )
    return {name: [next(spoken) for _ in said] for name, said in utterances.items()}


def _utterances(sizes: dict[str, int]) -> dict[str, list[espeak.Utterance]]:
    """What the speakers of each set say, each sentence with its own voice, rate and pitch.

    The test sentences are drawn first, so that they are the same for any number of training sentences.
    """
    said: dict[str, list[espeak.Utterance]] = {}
    taken: set[str] = set()
    for name in sorted(sizes, key=lambda name: name == "train"):
        texts = sentences(sizes[name], _SEEDS[name], frozenset(taken))
        taken.update(texts)
        rng = np.random.default_rng(_SEEDS[name] + 1000)
        accents, variants = ACCENTS[SPEAKERS[name][0]], VARIANTS[SPEAKERS[name][1]]
        said[name] = [
            espeak.Utterance(
                text,
                f"{accents[rng.integers(len(accents))]}+{variants[rng.integers(len(variants))]}",
                int(rng.integers(_RATES[0], _RATES[1] + 1)),
                int(rng.integers(_PITCHES[0], _PITCHES[1] + 1)),
            )
            for text in texts
        ]
    return {name: said[name] for name in sizes}


def _resampled(waves: Sequence[NDArray[np.int16]]) -> Iterator[Tensor]:
    """The waves at :data:`SAMPLE_RATE`, their values divided by 32,768."""
    filtered = Resample(espeak.SAMPLE_RATE, SAMPLE_RATE)
    for wave in waves:
        yield filtered(torch.from_numpy(wave.astype(np.float32) / INT16_SCALE))


def _levelled(wave: Tensor) -> Tensor:
    """The wave as int16, at the common loudness or as near to it as its highest peak allows."""
    factor = min(_LOUDNESS / float(wave.square().mean().sqrt()), _LOUDEST / float(wave.abs().max()))
    return (wave * factor * INT16_SCALE).round().to(torch.int16)
