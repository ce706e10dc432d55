"""The controls, measured answer by answer."""

from __future__ import annotations

import pytest

pytest.importorskip("sklearn")

from tasks.compare.controls import linear_answers, linear_control, majority
from tasks.compare.measuring import Effort, measure, measure_linear, measure_majority
from tests.tasks.compare.small import Bright, model
from tests.tasks.compare.test_measuring import FEW


def test_answers_are_those_of_the_control():
    data = Bright(level=2)
    train, test = data.scenes("train", 2, None), data.sets["test"]
    judged = [test[i] for i in range(len(test))]
    answers = linear_answers("vision", train, judged)
    right = [answer == example.label for answer, example in zip(answers, judged, strict=True)]
    assert 0 < sum(right) < 31  # so that answers in another order would be noticed
    assert sum(right) / 31 == linear_control("vision", train, test)
    found = measure_linear("vision", data, seed=3)
    assert found.correct["2"] == "".join(str(int(one)) for one in right)
    assert (found.domain, found.arm, found.seed, found.standard) == ("vision", "linear", 3, "2")
    assert [share for share, _ in found.curves["accuracy/share"]] == [0, 1 / 2, 2 / 3]


def test_the_linear_control_is_trained_at_each_level_and_repeats():
    data = Bright(level=2, train_levels="mixed")
    found = measure_linear("vision", data, effort=Effort(levels=(), examples=19))
    assert {level: len(marks) for level, marks in found.correct.items()} == {"0": 19, "2": 19}
    assert found.correct["0"].count("1") > found.correct["2"].count("1")
    assert measure_linear("vision", data, effort=Effort(levels=(), examples=19)) == found


def test_the_guess_is_that_of_the_commonest_class():
    data = Bright(level=2)
    found = measure_majority("vision", data)
    expected = majority(data.sets["train"], data.sets["test"])
    for marks in found.correct.values():
        assert marks.count("1") / len(marks) == pytest.approx(expected)


def test_controls_and_models_answer_the_same_questions():
    data = Bright(level=2)
    digests = {made("vision", data, effort=FEW).test for made in (measure_linear, measure_majority)}
    assert digests == {measure(model(), data, "attention", effort=FEW).test}


def test_an_unknown_domain_is_refused():
    with pytest.raises(ValueError, match=r"^domain must be one of vision, speech, text: got 'smell'$"):
        measure_linear("smell", Bright(level=1))
