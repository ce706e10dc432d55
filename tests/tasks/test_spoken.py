"""Whole words among cut words: voices, sets and scenes."""

from __future__ import annotations

import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("espeakng_loader")
pytest.importorskip("torchaudio")

from tasks.speech.data import espeak, spoken
from tasks.speech.data.spoken import (
    ACCENTS,
    SAMPLE_RATE,
    VARIANTS,
    WORDS,
    Recording,
    SpokenCommands,
    SpokenScenes,
)


@pytest.fixture(scope="module")
def sets():
    return SpokenCommands().sets


def test_level_zero_is_the_plain_word(sets):
    examples = SpokenCommands(level=0).sets["test"]
    for index in (0, 101, 503):
        wave, label, relevant = examples[index]
        assert wave.dtype == torch.float32
        assert wave.ndim == 1
        assert torch.equal(wave, torch.from_numpy(examples.recordings[index].wave))
        assert relevant == (0, len(wave))
        assert label == examples.recordings[index].label
        assert 0.05 < len(wave) / SAMPLE_RATE < 0.9
        edges = torch.stack([wave[:3].abs().max(), wave[-3:].abs().max()])
        assert (edges > 0.01 * wave.abs().max()).all()  # silence is trimmed on either side


def test_region_holds_the_whole_word(sets):
    places = []
    for index in range(0, 1000, 37):
        wave, label, (start, stop) = sets["test"][index]
        word = sets["test"].recordings[index].wave
        assert label == sets["test"].recordings[index].label
        assert stop - start == len(word)
        assert 2.05 < len(wave) / SAMPLE_RATE < 2.6
        assert wave.abs().max() <= 1
        correlation = np.corrcoef(wave[start:stop].numpy(), word)[0, 1]
        assert correlation > 0.98  # nothing but noise lies over it
        places.append(start / len(wave))
    assert min(places) < 0.2
    assert max(places) > 0.6


def test_distractors_are_cut_words_of_other_commands_that_nothing_overlaps():
    waves = [np.full(1200, 0.1 + 0.01 * label, dtype=np.float32) for label in range(10)]
    recordings = [Recording(wave, label, "en", "") for label, wave in enumerate(waves)]
    scenes = SpokenScenes(recordings, level=3, seed=1)
    for index in range(10):
        wave, _, (start, stop) = scenes[index]
        loud = (wave.abs() > 0.06).numpy()
        assert loud[start:stop].mean() > 0.95
        rest = np.concatenate([loud[:start], loud[stop:]])
        assert 3 * 350 < rest.sum() < 3 * 620  # three thirds to three halves, less their faded ends
        assert wave.max() < 0.35  # two pieces over each other would be louder


def test_distractors_come_from_other_words(sets):
    rng = np.random.default_rng(0)
    drawn = [sets["train"].labels[sets["train"].other(4, rng)] for _ in range(307)]
    assert set(drawn) == set(range(10)) - {4}


def test_noise_grows_with_level():
    quiet = []
    for level in (1, 3, 5):
        scenes = SpokenCommands(level=level).sets["test"]
        floors = [np.quantile(scenes[index].item.abs().numpy(), 0.2) for index in range(0, 100, 7)]
        quiet.append(np.mean(floors))
    assert quiet[0] < quiet[1] < quiet[2]
    assert spoken.signal_to_noise(3) == 18


def test_no_voice_is_in_two_sets(sets):
    heard = {name: {recording.voice for recording in examples.recordings} for name, examples in sets.items()}
    for a, b in (("train", "val"), ("train", "test"), ("val", "test")):
        assert not heard[a] & heard[b]
        assert not set(ACCENTS[a]) & set(ACCENTS[b])
        assert not set(VARIANTS[a]) & set(VARIANTS[b])
        for part in (0, 1):  # neither an accent nor a variant
            assert not {v.split("+")[part] for v in heard[a]} & {v.split("+")[part] for v in heard[b]}
    assert len(heard["test"]) > 40
    assert len(heard["train"]) > 290


def test_variants_alike_lie_in_one_set():
    import espeakng_loader

    folder = Path(espeakng_loader.get_data_path()) / "voices" / "!v"
    settings = {}
    for name, variants in VARIANTS.items():
        for variant in variants:
            lines = {
                line.split("//")[0].strip() for line in (folder / variant).read_text("latin-1").splitlines()
            }
            kept = {" ".join(line.split()) for line in lines}
            settings[name, variant] = {
                x for x in kept if x and not x.startswith(("name", "language", "gender"))
            }
    for (a, x), (b, y) in combinations(settings.items(), 2):
        assert a[0] == b[0] or len(x & y) < 0.6 * len(x | y), (a, b)


def test_sets_are_balanced_and_audible(sets):
    for name, size in (("train", 3000), ("val", 500), ("test", 1000)):
        assert np.bincount(sets[name].labels).tolist() == [size // 10] * 10
        levels = [np.sqrt(np.mean(recording.wave**2)) for recording in sets[name].recordings]
        assert min(levels) > 0.09
        assert max(levels) < 0.101
    assert sets["train"].class_names == WORDS


def test_speech_is_the_same_whatever_was_spoken_before(sets):
    said = [espeak.Utterance("go", "en-us+f2", 150, 40), espeak.Utterance("stop", "en-029", 200, 60)]
    first = espeak.record(said)
    espeak.record([espeak.Utterance("something else", "en+whisper")])
    assert espeak.record(said) == first
    assert len(first[0]) > 2000
    assert first[0] != first[1]
    slower = espeak.record([said[0]._replace(rate=90)])
    assert len(slower[0]) > len(first[0])


def test_unknown_voices_are_refused():
    with pytest.raises(RuntimeError, match=r"variant must be one that eSpeak NG knows: got \['nobody'\]"):
        espeak.record([espeak.Utterance("go", "en-us+nobody")])
    with pytest.raises(RuntimeError, match=r"voice must be one that it knows: got 'xx-nowhere'"):
        espeak.record([espeak.Utterance("go", "xx-nowhere")])


def test_test_scenes_are_fixed_and_training_scenes_follow_the_seed(sets):
    other = SpokenCommands().sets
    torch.manual_seed(1)
    a = sets["train"][11]
    torch.manual_seed(2)
    b = sets["train"][11]
    torch.manual_seed(1)
    again = other["train"][11]
    assert a.item.shape != b.item.shape or not torch.equal(a.item, b.item)
    assert torch.equal(a.item, again.item)
    assert a.relevant == again.relevant
    for name in ("val", "test"):
        assert torch.equal(sets[name][11].item, other[name][11].item)


def test_composing_leaves_the_recordings_alone(sets):
    before = sets["val"].fingerprint()
    waves = [recording.wave.copy() for recording in sets["val"].recordings]
    for index in range(101):
        sets["val"][index]
    assert all(np.array_equal(w, r.wave) for w, r in zip(waves, sets["val"].recordings, strict=True))
    assert sets["val"].fingerprint() == before


def test_mixed_levels_reach_from_plain_to_level():
    sets = SpokenCommands(level=3, train_levels="mixed").sets
    seconds = np.array([len(sets["train"][index].item) / SAMPLE_RATE for index in range(211)])
    bands = [(0, 1.2), (1.5, 1.8), (1.8, 2.1), (2.16, 2.6)]
    assert all(((low <= seconds) & (seconds < high)).sum() > 25 for low, high in bands)
    assert all(len(sets["test"][index].item) >= 2.1 * SAMPLE_RATE for index in range(0, 100, 7))


def test_fingerprint_and_size(sets):
    prints = {name: s.fingerprint() for name, s in sets.items()}
    assert prints["test_plain"] == SpokenCommands(level=0).fingerprint()["test"] != prints["test"]
    assert SpokenCommands().fingerprint() == prints
    first, *rest = sets["val"].recordings
    assert SpokenScenes([first._replace(source="0"), *rest], 3).fingerprint() != sets["val"].fingerprint()
    assert sets["train"].size(0) >= len(sets["train"][0].item)
    assert SpokenCommands(level=0).sets["val"].size(5) == len(sets["val"].recordings[5].wave)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"^level must be at least 0: got -1$"):
        SpokenCommands(level=-1)
    with pytest.raises(ValueError, match=r"^train_levels must be 'fixed' or 'mixed': got 'some'$"):
        SpokenCommands(train_levels="some")


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(
        ImportError, match=r'^SpokenCommands needs espeakng-loader: pip install "mmattn\[tasks\]"$'
    ):
        espeak.record([espeak.Utterance("go", "en")])
