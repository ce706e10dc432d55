"""Characters and pieces of words."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmattn.recognition import BPEUnits, CharacterUnits

TEXTS = ["the cat sat on the mat", "the hat is on the cat", "über — naïve", "thirty three thin thieves"] * 5


@given(st.lists(st.text(alphabet="abcäß —", min_size=1), min_size=1))
def test_characters_come_back(texts):
    units = CharacterUnits()
    units.train(texts)
    ids = units.encode(texts)
    assert [units.decode(sequence) for sequence in ids] == texts
    flat = {index for sequence in ids for index in sequence}
    assert min(flat) >= 1
    assert max(flat) < units.vocab_size


def test_ids_follow_the_code_points_not_the_order_of_the_texts():
    units, other = CharacterUnits(), CharacterUnits()
    units.train(["cab", "d"])
    other.train(["d", "abc"])
    assert units.characters == other.characters == "abcd"
    assert units.encode(["abcd"]) == [[1, 2, 3, 4]]


def test_composed_and_decomposed_characters_are_one():
    units = CharacterUnits("é")
    assert units.encode(["é", "e\N{COMBINING ACUTE ACCENT}"]) == [[1], [1]]


def test_case_is_folded_on_request():
    units = CharacterUnits("Ab", lowercase=True)
    assert units.vocab_size == 3
    assert units.decode(units.encode(["aBA"])[0]) == "aba"


def test_blanks_and_ids_without_a_character_are_nothing():
    units = CharacterUnits("ab", vocab_size=9)
    assert units.decode([0, 1, 0, 8, 2, 3]) == "ab"


def test_the_state_of_characters_is_text():
    units, other = CharacterUnits(vocab_size=9), CharacterUnits(vocab_size=9)
    assert units.state() == ""
    assert not units.ready
    units.train(['a"ß'])
    assert json.loads(units.state()) == ['"', "a", "ß"]
    other.load_state(units.state())
    assert other.ready
    assert other.encode(['ß"']) == units.encode(['ß"'])
    other.load_state("")
    assert not other.ready


def test_errors_of_characters():
    units = CharacterUnits("abc")
    with pytest.raises(ValueError, match=r"may hold the characters 'abc': got 'x', 'é'"):
        units.encode(["axé", "b"])
    with pytest.raises(ValueError, match=r"given, learnt or loaded before use: call train\(texts\)"):
        CharacterUnits().encode(["a"])
    with pytest.raises(ValueError, match=r"vocab_size must be at least 4, .* got 3 for 'abc'"):
        CharacterUnits("abc", vocab_size=3)
    with pytest.raises(ValueError, match=r"vocab_size must be at least 5, .* got 3 for 'abcd'"):
        CharacterUnits(vocab_size=3).train(["abcd"])
    with pytest.raises(ValueError, match=r"vocab_size must be at least 2, .* got 1"):
        CharacterUnits(vocab_size=1)
    with pytest.raises(ValueError, match="got none with a character"):
        CharacterUnits().train(["", ""])


@pytest.fixture(scope="module")
def pieces() -> BPEUnits:
    pytest.importorskip("tokenizers")
    units = BPEUnits(vocab_size=300)
    units.train(TEXTS)
    return units


def test_pieces_come_back_and_are_fewer_than_bytes(pieces):
    texts = [*TEXTS, "something never seen: 3 €", ""]
    ids = pieces.encode(texts)
    assert [pieces.decode(sequence) for sequence in ids] == texts
    flat = [index for sequence in ids for index in sequence]
    assert min(flat) >= 1
    assert max(flat) < pieces.vocab_size
    assert len(ids[0]) < len(TEXTS[0].encode()) - 5
    assert pieces.decode([0, *ids[0], 0]) == TEXTS[0]
    assert pieces.decode([*ids[0], 299]) in (TEXTS[0], TEXTS[0] + pieces.decode([299]))


def test_the_state_of_pieces_is_text(pieces):
    other = BPEUnits(vocab_size=300)
    assert not other.ready
    assert other.state() == ""
    other.load_state(pieces.state())
    assert other.ready
    text = "the cat " + "".join(random.Random(1).choices("abc é", k=20))
    assert other.encode([text]) == pieces.encode([text])
    with pytest.raises(ValueError, match="one more than the pieces: got 258"):
        BPEUnits(vocab_size=258).load_state(pieces.state())


def test_errors_of_pieces():
    with pytest.raises(ValueError, match=r"vocab_size must be at least 258, .* got 257"):
        BPEUnits(vocab_size=257)
    with pytest.raises(ValueError, match="trained or loaded before use"):
        BPEUnits().encode(["a"])
    with pytest.raises(ValueError, match="trained or loaded before use"):
        BPEUnits().decode([3])
