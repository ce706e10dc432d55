"""The quoted sentence among others: catalogs, sets and scenes."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

pytest.importorskip("django")

from tasks.text.data import quoted
from tasks.text.data.quoted import LANGUAGES, QuotedLanguage, QuotedScenes, Sentence, normalise


def test_level_zero_is_the_quoted_sentence_alone():
    examples = QuotedLanguage(level=0).sets["test"]
    for index in (0, 101, 1009):
        text, label, relevant = examples[index]
        sentence = examples.sentences[index]
        assert text == f"«{sentence.text}»"
        assert label == sentence.label
        assert relevant == (0, len(text))


@pytest.mark.parametrize("level", [1, 2, 5])
def test_region_is_the_quoted_sentence(level):
    examples = QuotedLanguage(level=level).sets["test"]
    starts = []
    for index in range(0, len(examples), 53):
        text, label, (start, stop) = examples[index]
        assert text[start:stop] == f"«{examples.sentences[index].text}»"
        assert label == examples.sentences[index].label
        assert text.count("«") == text.count("»") == 1
        starts.append(start)
    first = sum(start == 0 for start in starts) / len(starts)
    assert first == pytest.approx(1 / (level + 1), abs=0.2)


def test_distractors_are_whole_sentences_of_other_languages_and_the_same_set():
    sets = QuotedLanguage(level=2).sets
    for name in ("train", "test"):
        languages = {}
        for sentence in sets[name].sentences:
            languages.setdefault(sentence.text, sentence.label)
        for index in range(0, 997, 7):
            text, label, (start, stop) = sets[name][index]
            before, after = text[:start].strip(), text[stop:].strip()
            alone = [part for part in (before, after) if part in languages]
            assert all(languages[part] != label for part in alone)
            if before and after:  # one on either side: each is one sentence
                assert len(alone) == 2


def test_no_message_and_no_sentence_is_in_two_sets():
    sets = QuotedLanguage().sets
    for what in ("message", "text"):
        seen = {
            name: {getattr(s, what).casefold() for s in scenes.sentences} for name, scenes in sets.items()
        }
        assert not seen["train"] & seen["val"]
        assert not seen["train"] & seen["test"]
        assert not seen["val"] & seen["test"]
        assert min(len(values) for values in seen.values()) > 50


def test_sentences_are_translated_clean_and_of_one_language():
    members = [sentence for scenes in QuotedLanguage(level=0).sets.values() for sentence in scenes.sentences]
    assert all(12 <= len(sentence.text) <= 80 for sentence in members)
    assert all(sentence.text.casefold() != sentence.message for sentence in members)
    assert not [s.text for s in members if set(s.text) & set('«»“”„"{}')]
    assert max(Counter(sentence.text for sentence in members).values()) == 1


def test_every_language_is_in_every_set():
    sets = QuotedLanguage().sets
    assert len(LANGUAGES) == len(set(LANGUAGES)) == 39
    for name, least in (("train", 230), ("val", 20), ("test", 60)):
        counts = Counter(sets[name].labels)
        assert set(counts) == set(range(39))
        assert min(counts.values()) >= least
    assert len(sets["train"]) > 10_000


def test_normalise_drops_placeholders_markup_and_quotes():
    assert normalise("Le champ « %(name)s » n'est pas <b>valide</b> : “{}” %s &amp; %.1f KB") == (
        "Le champ n'est pas valide : KB"
    )
    assert normalise("'один' комп’ютер ‘два’") == "один комп’ютер два"
    assert normalise("\u202bسلام\u202c  دنیا\n") == "سلام دنیا"


def test_test_scenes_are_fixed_and_training_scenes_follow_the_seed():
    first, second = QuotedLanguage().sets, QuotedLanguage().sets
    torch.manual_seed(1)
    a = [first["train"][index] for index in range(13)]
    torch.manual_seed(2)
    b = [first["train"][index] for index in range(13)]
    torch.manual_seed(1)
    assert a != b
    assert a == [second["train"][index] for index in range(13)]
    assert [first["test"][i] for i in range(13)] == [second["test"][i] for i in range(13)]
    assert [first["val"][i] for i in range(13)] == [second["val"][i] for i in range(13)]


def test_mixed_levels_reach_from_plain_to_level():
    sentences = [Sentence("aa aa", 0, "a"), Sentence("bb bb", 1, "b"), Sentence("cc cc", 2, "c")]
    sentences += [Sentence(f"x{i} x{i}", i, f"x{i}") for i in range(3, 39)]
    scenes = QuotedScenes(sentences, level=3, train_levels="mixed")
    lengths = Counter(len(scenes[0].item.split()) // 2 - 1 for _ in range(211))
    assert set(lengths) == {0, 1, 2, 3}
    assert min(lengths.values()) > 25
    fixed = QuotedScenes(sentences, level=3, train_levels="mixed", seed=5)
    assert {len(fixed[index].item.split()) // 2 - 1 for index in range(39)} == {3}


def test_fingerprint_follows_the_content():
    data = QuotedLanguage()
    prints = data.fingerprint()
    assert prints["test_plain"] == QuotedLanguage(level=0).fingerprint()["test"] != prints["test"]
    assert prints == QuotedLanguage().fingerprint()
    scenes = data.sets["val"]
    changed = QuotedScenes([scenes.sentences[0]._replace(text="andere woorden"), *scenes.sentences[1:]], 2)
    assert changed.fingerprint() != scenes.fingerprint()
    assert scenes.size(0) > len(scenes.sentences[0].text)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"^level must be at least 0: got -1$"):
        QuotedLanguage(level=-1)
    with pytest.raises(ValueError, match=r"^train_levels must be 'fixed' or 'mixed': got 'some'$"):
        QuotedLanguage(train_levels="some")


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setattr(quoted.importlib.util, "find_spec", lambda name: None)
    quoted._load.cache_clear()
    with pytest.raises(ImportError, match=r'^QuotedLanguage needs Django: pip install "mmattn\[tasks\]"$'):
        QuotedLanguage().setup()
