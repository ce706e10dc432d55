"""Tokenizers give the text back."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmattn.adapters.text import BPETokenizer, ByteTokenizer, Tokenizer

pytest.importorskip("tokenizers")

TEXTS = [
    'Zwei Männer, die im Freien sind: "Hallo!" -- (ja?)',
    "  two  spaces, a\ttab\n and an end ",
    "",
    "...!?!",
    "it's 3.5€ — 日本語。🙂🙂 ’twas",
    "cafe\u0301 \u212b ﬁ \u0130",
]


@pytest.fixture(scope="module")
def bpe() -> BPETokenizer:
    tokenizer = BPETokenizer(vocab_size=310)
    tokenizer.train(TEXTS * 3 + ["Zwei Männer!", "a dog, a cat", "it's a dog."] * 5)
    return tokenizer


@pytest.mark.parametrize("text", TEXTS)
def test_bpe_gives_the_text_back(bpe, text):
    (ids,) = bpe.encode([text])
    assert bpe.decode(ids) == unicodedata.normalize("NFC", text)
    again = BPETokenizer(vocab_size=310)
    again.load_state(bpe.state())
    assert again.decode(ids) == bpe.decode(ids)


@given(text=st.text())
def test_any_text_comes_back(bpe, text):
    assert bpe.decode(bpe.encode([text])[0]) == unicodedata.normalize("NFC", text)
    assert ByteTokenizer().decode(ByteTokenizer().encode([text])[0]) == text


def test_folded_case_stays_folded():
    tokenizer = BPETokenizer(vocab_size=300, lowercase=True)
    tokenizer.train(["Stop, Hund!"] * 9)
    assert tokenizer.decode(tokenizer.encode(["HUND, Stop!"])[0]) == "hund, stop!"


def test_half_a_character_is_marked(bpe):
    ids = ByteTokenizer().encode(["é"])[0]
    assert ByteTokenizer().decode(ids[:1]) == "\ufffd"
    (pieces,) = bpe.encode(["語"])
    assert len(pieces) > 1
    assert bpe.decode(pieces[:1]) == "\ufffd"


def test_a_tokenizer_without_a_way_back_says_so():
    class Letters(Tokenizer):
        vocab_size = 26

        def encode(self, texts):
            return [[ord(letter) - 97 for letter in text] for text in texts]

        def spans(self, text):
            return [(i, i + 1) for i in range(len(text))]

    with pytest.raises(TypeError, match=r"^a tokenizer must have a way back to text to decode: got Letters$"):
        Letters().decode([1, 2])
    with pytest.raises(ValueError, match="must be trained or loaded before use"):
        BPETokenizer().decode([1])
