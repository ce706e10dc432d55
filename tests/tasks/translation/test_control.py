"""What stands beside the translations without attention."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("lightning")
pytest.importorskip("sacrebleu")

from mmattn.training.data import Pair
from tasks.text.translation import control
from tasks.text.translation.control import learn_lexicon, lexicon_control, linear_control, linear_scores, main
from tasks.text.translation.data import ParallelData, ParallelSet

WORDS = {"eins": "one", "zwei": "two", "drei": "three", "vier": "four", "fünf": "five", "sechs": "six"}


class Parallel(ParallelData):
    """Pairs that a function makes of drawn numbers."""

    def __init__(self, make, sizes=None):
        super().__init__()
        self.make = make
        self.sizes = sizes or {"train": 400, "val": 20, "test": 60}

    def build(self):
        generator = torch.Generator().manual_seed(0)
        return {name: ParallelSet(self._pairs(size, generator)) for name, size in self.sizes.items()}

    def _pairs(self, size, generator):
        return [self.make(torch.randint(6, (5,), generator=generator).tolist()) for _ in range(size)]


def counted(numbers, backwards=False):
    german, english = list(WORDS), list(WORDS.values())
    said = [english[n] for n in numbers]
    return Pair(" ".join(german[n] for n in numbers), " ".join(said[::-1] if backwards else said))


def test_words_are_translated_in_their_order():
    assert lexicon_control(Parallel(counted)) == 1.0
    assert lexicon_control(Parallel(lambda numbers: counted(numbers, backwards=True))) < 0.3


def test_the_lexicon_knows_no_order():
    pairs = [counted([n, (n + 1) % 6, (n + 3) % 6], backwards=True) for n in range(6)]
    found = learn_lexicon([pair.item for pair in pairs], [pair.target for pair in pairs])
    assert found == WORDS


def test_unknown_words_are_copied_and_marks_stand_close(monkeypatch):
    said = []
    monkeypatch.setattr(control, "scores", lambda found, wanted: said.extend(found) or {"bleu": 0.0})
    sets = iter([Pair("eins", "one"), Pair("eins.", "one."), Pair("eins, Berlin.", "one, Berlin.")])
    lexicon_control(Parallel(lambda _: next(sets), {"train": 2, "test": 1}))
    assert said == ["one, Berlin."]


def test_places_are_read_from_single_words_but_not_from_their_order():
    pytest.importorskip("sklearn")

    def told(numbers):
        day, month = numbers[0], numbers[1]
        return Pair(f"{list(WORDS)[day]} im m{month}", f"0{month}-0{day}")

    def only_by_order(numbers):
        return Pair(f"{numbers[0]} {numbers[1]}", f"{numbers[0]}{numbers[1]}")

    assert linear_control(Parallel(told)) == 1.0
    sizes = {"train": 400, "test": 300}
    assert linear_control(Parallel(only_by_order, sizes)) < 0.7  # same digits 1/6, of the others half: 0.58


def test_every_test_set_is_judged():
    pytest.importorskip("sklearn")
    data = Parallel(lambda n: Pair(f"m{n[0]}", f"0{n[0]}"), {"train": 60, "test": 20, "test_far": 10})
    assert linear_scores(data) == {"test": 1.0, "test_far": 1.0}


def test_targets_of_several_lengths_are_refused():
    pytest.importorskip("sklearn")
    with pytest.raises(ValueError, match="all targets must be equally long: got lengths from 15 to"):
        linear_control(Parallel(lambda n: Pair("x", "x" * (15 + n[0]))))


def test_the_program_prints_what_was_asked_for(monkeypatch, capsys):
    monkeypatch.setattr(control, "linear_scores", lambda data: {"test": 0.5})
    monkeypatch.setattr(control, "lexicon_control", lambda data: 0.25)
    main([])
    main(["somewhere"])
    told = capsys.readouterr().out.splitlines()
    assert told == ["dates, linear, test: 50.0% exactly right", "Multi30k, word by word: 25.0 BLEU"]
