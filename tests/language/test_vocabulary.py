"""Vocabularies: words by frequency, tokenizer ids, and which token belongs to which word."""

from __future__ import annotations

import re

import pytest
import torch

from mmattn import TextNgrams, TextTokens
from mmattn.adapters.text import BPETokenizer
from mmattn.language import TokenVocabulary, WordVocabulary

TEXTS = ["the cat sat on the mat", "the dog sat", "a dog , a cat , the end"]


def words(**options) -> tuple[TextNgrams, WordVocabulary]:
    adapter = TextNgrams(7, buckets=97, max_ngram=3, max_piece=6, **options)
    vocabulary = WordVocabulary(size=11, min_count=2)
    vocabulary.learn(adapter, TEXTS)
    return adapter, vocabulary


def test_words_come_by_frequency_then_by_letter():
    adapter, vocabulary = words()
    # the 4, then "," "a" "cat" "dog" "sat" 2 each; what occurs once is left out
    assert vocabulary.texts(adapter, range(7)) == ["the", ",", "a", "cat", "dog", "sat", ""]
    assert vocabulary.encode(adapter, ["the end , sat", "", "mat"]).ids.values.tolist() == [0, -1, 1, 5, -1]


def test_the_most_frequent_words_are_kept():
    adapter, vocabulary = words()[0], WordVocabulary(size=2, min_count=1)
    vocabulary.learn(adapter, TEXTS)
    assert vocabulary.texts(adapter, [0, 1]) == ["the", ","]


@pytest.mark.parametrize("word_ngrams", [0, 1, 2])
def test_the_output_matrix_is_the_words_own_embeddings(word_ngrams):
    adapter, vocabulary = words(word_ngrams=word_ngrams)
    if adapter.words is not None:
        torch.nn.init.normal_(adapter.words.weight)
    output = vocabulary.output(adapter)
    assert output.shape == (11, 7)
    for number, word in enumerate(["the", ",", "a", "cat", "dog", "sat"]):
        assert torch.allclose(output[number], adapter([word]).values[0], atol=1e-6)


def test_rare_words_alone_are_refused():
    adapter, vocabulary = words()
    with pytest.raises(ValueError, match=r"^a word must occur min_count=2 times: got 2 rarer words$"):
        WordVocabulary(5).learn(adapter, ["one two"])
    with pytest.raises(ValueError, match=r"^size must be at least 1: got 0$"):
        WordVocabulary(0)
    assert vocabulary.ready(adapter)
    assert not WordVocabulary(5).ready(adapter)


def test_words_survive_the_state_dict():
    adapter, vocabulary = words()
    other = WordVocabulary(size=11)
    other.load_state_dict(vocabulary.state_dict())
    assert other.texts(adapter, range(6)) == vocabulary.texts(adapter, range(6))
    assert torch.equal(other.output(adapter), vocabulary.output(adapter))


def test_bytes_of_one_word_belong_together():
    adapter = TextTokens(7)
    texts = ["Zoë's café: 3€", "", "日本 a"]
    numbers = TokenVocabulary(256).words(adapter, texts).tolist()
    expected, word = [], -1
    for text in texts:
        for run in re.findall(r"\s?(?:\w+|[^\w\s])|\s", text):
            word += 1
            expected += [word] * len(run.encode())
    assert numbers == expected


def test_pieces_of_one_word_belong_together():
    pytest.importorskip("tokenizers")
    adapter = TextTokens(7, BPETokenizer(265))
    vocabulary = TokenVocabulary(265)
    assert not vocabulary.ready(adapter)
    vocabulary.learn(adapter, TEXTS)
    assert vocabulary.ready(adapter)
    texts = ["the unseen cat , sat", "a dog"]
    numbers = vocabulary.words(adapter, texts)
    ids = vocabulary.encode(adapter, texts).ids
    assert len(ids.values) == len(numbers) > 7
    joined: dict[int, str] = {}
    for number, piece in zip(numbers.tolist(), vocabulary.texts(adapter, ids.values.tolist()), strict=True):
        joined[number] = joined.get(number, "") + piece
    assert [text.strip() for text in joined.values()] == ["the", "unseen", "cat", ",", "sat", "a", "dog"]
