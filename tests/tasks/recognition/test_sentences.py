"""Spoken sentences: words of numbers, times and dates; voices and sentences apart."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

pytest.importorskip("lightning")
pytest.importorskip("espeakng_loader")

from tasks.speech.data.augment import Speed
from tasks.speech.data.spoken import ACCENTS, VARIANTS
from tasks.speech.recognition.data import spoken as module
from tasks.speech.recognition.data.sentences import (
    KINDS,
    ORDINALS,
    SMALL,
    TENS,
    number_words,
    ordinal_words,
    sentences,
    year_words,
)  # fmt: skip
from tasks.speech.recognition.data.spoken import SAMPLE_RATE, SpokenSentences


def value(words: str) -> int:
    """The number that words say, read independently of how they were made."""
    units = {word: number for number, word in enumerate(SMALL)}
    units |= {word: 10 * number for number, word in enumerate(TENS, start=2)}
    total = part = 0
    for word in words.replace(" and", "").split():
        if word == "hundred":
            part *= 100
        elif word == "thousand":
            total, part = total + 1000 * part, 0
        else:
            part += units[word]
    return total + part


def test_number_words_say_the_number():
    for number in [*range(1000), *range(1000, 1_000_000, 997), 999_999, 100_000, 12_006]:
        assert value(number_words(number)) == number
    assert number_words(41_305) == "forty one thousand three hundred and five"
    with pytest.raises(ValueError, match=r"^number must be from 0 to 999999: got 1000000$"):
        number_words(1_000_000)


def test_ordinals_and_years():
    days = [ordinal_words(day) for day in range(1, 32)]
    assert days[:20] == list(ORDINALS)
    assert days[20:] == [f"twenty {o}" for o in ORDINALS[:9]] + ["thirtieth", "thirty first"]
    assert len({year_words(year) for year in range(1800, 2100)}) == 300
    assert year_words(1800) == "eighteen hundred"
    assert year_words(2010) == "twenty ten"


def test_sentences_differ_follow_the_seed_and_leave_out_what_they_must():
    first = sentences(400, seed=3)
    assert len(set(first)) == 400
    assert sentences(400, seed=3) == first != sentences(400, seed=4)
    assert all(re.fullmatch(r"[a-z']+( [a-z']+)*", sentence) for sentence in first)
    others = sentences(400, seed=3, without=frozenset(first))
    assert not set(others) & set(first)
    assert len({len(sentence.split()) for sentence in first}) > 6
    assert len(KINDS) == 4


@pytest.fixture(scope="module")
def sets():
    small = {"train": 24, "val": 7, "test": 11, "test_accents": 5}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SIZES", small)
        return SpokenSentences(train_sentences=24).sets


def test_voices_accents_and_sentences_are_apart(sets):
    assert {name: len(part) for name, part in sets.items()} == {
        "train": 24, "val": 7, "test": 11, "test_accents": 5
    }  # fmt: skip
    texts = [one.text for part in sets.values() for one in part.sentences]
    assert len(set(texts)) == len(texts)
    voices = {name: [one.voice.split("+") for one in part.sentences] for name, part in sets.items()}
    for name, variants in (("train", "train"), ("val", "val"), ("test", "test"), ("test_accents", "test")):
        assert {variant for _, variant in voices[name]} <= set(VARIANTS[variants])
        accents = "test" if name == "test_accents" else "train"
        assert {accent for accent, _ in voices[name]} <= set(ACCENTS[accents])
    assert not set(VARIANTS["train"]) & set(VARIANTS["test"])
    assert len({variant for _, variant in voices["train"]}) > 12


def test_waves_last_as_long_as_their_words_at_one_loudness(sets):
    for part in sets.values():
        for index in range(len(part)):
            wave, text = part[index]
            assert wave.dtype == torch.float32
            assert len(wave) == part.size(index)
            assert 0.15 < len(wave) / SAMPLE_RATE / len(text.split()) < 1.5
            assert wave.abs().max() <= 1
    levels = [float(sets["train"][i].item.square().mean().sqrt()) for i in range(24)]
    assert np.median(levels) == pytest.approx(0.1, rel=0.02)


def test_test_sentences_do_not_depend_on_how_many_there_are_to_train_on(sets, monkeypatch):
    monkeypatch.setattr(module, "SIZES", {"train": 24, "val": 7, "test": 11, "test_accents": 5})
    fewer = module._utterances({"train": 3, "val": 7, "test": 11, "test_accents": 5})
    assert [said.text for said in fewer["test"]] == [one.text for one in sets["test"].sentences]
    assert len(fewer["train"]) == 3
    assert SpokenSentences(train_sentences=24).fingerprint() == {n: s.fingerprint() for n, s in sets.items()}


def test_changes_belong_to_training(sets, monkeypatch):
    monkeypatch.setattr(module, "SIZES", {"train": 24, "val": 7, "test": 11, "test_accents": 5})
    data = SpokenSentences(train_sentences=24, transforms=[Speed(0.4)], noise=0.3)
    assert torch.equal(data.sets["val"][3].item, sets["val"][3].item)
    assert len(data.sets["train"][3].item) != len(sets["train"][3].item)
    shortest = {said.text: said.samples for said in data.sets["train"].spoken()}
    assert all(
        shortest[one.text] == pytest.approx(len(one.wave) / 1.4, abs=1) for one in sets["train"].sentences
    )


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"^train_sentences must lie between 1 and 20000: got 0$"):
        SpokenSentences(train_sentences=0)
