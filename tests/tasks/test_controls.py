"""Controls: the guess and the linear classifier, on sets small enough to reason about."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")

from mmattn.training.data import Example
from tasks.compare.controls import SCENES_PER_ITEM, linear_control, majority
from tasks.scenes import SceneSet
from tasks.vision.data.digits import STANDARD_LEVEL, Digits, DigitScenes


class Marks(SceneSet):
    """Items that any linear classifier can tell apart; counts how often each scene is composed."""

    def __init__(self, domain, labels, level=0, seed=None, informative=True):
        super().__init__(["low", "high", "none"], labels, level, "fixed", seed)
        self.domain, self.informative, self.composed = domain, informative, []

    def compose(self, index, level, rng):
        self.composed.append(index)
        label = self.labels[index]
        shown = label if self.informative else int(rng.integers(2))
        if self.domain == "vision":
            side = 5 + index % 3  # pictures of several sizes
            item = torch.from_numpy(rng.random((1, side, side), dtype=np.float32))
            item[0, 1, 2] += 3.0 * shown
        elif self.domain == "speech":
            time = np.arange(1600 + 160 * (index % 3)) / 8000
            tone = np.sin(2 * np.pi * (700 + 900 * shown) * time) + 0.1 * rng.standard_normal(len(time))
            item = torch.from_numpy((0.3 * tone).astype(np.float32))
        else:
            words = (["aba", "bab"], ["xyx", "yxy"])[shown]
            item = " ".join(words[i] for i in rng.integers(2, size=5))
        return Example(item, label)

    def size(self, index):
        return 1

    def content(self):
        return ""


LABELS = [0, 1, 1, 0, 1, 0, 1] * 11


def test_majority_names_the_commonest_class_of_training():
    train, test = Marks("text", [1, 1, 0]), Marks("text", [1, 0, 0, 0, 2])
    assert majority(train, test) == pytest.approx(1 / 5)
    assert not train.composed  # labels are known without composing


@pytest.mark.parametrize("domain", ["vision", "speech", "text"])
def test_a_linear_task_is_solved_and_noise_is_not(domain):
    assert linear_control(domain, Marks(domain, LABELS), Marks(domain, LABELS[:53], seed=7)) > 0.95
    empty = Marks(domain, LABELS, informative=False), Marks(domain, LABELS[:53], seed=7, informative=False)
    assert linear_control(domain, *empty) < 0.75


@pytest.mark.parametrize("domain", ["vision", "speech", "text"])
def test_every_training_item_gives_several_scenes_above_level_zero(domain):
    for level, expected in ((0, 1), (2, SCENES_PER_ITEM[domain])):
        train, test = Marks(domain, LABELS, level), Marks(domain, LABELS[:13], level, seed=7)
        linear_control(domain, train, test)
        assert sorted(train.composed) == sorted(list(range(len(LABELS))) * expected)
        assert sorted(test.composed) == list(range(13))


def test_control_repeats_and_leaves_the_random_state_alone():
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        expected = torch.random.get_rng_state()
        results.append(
            linear_control(
                "text", Marks("text", LABELS, 2, informative=False), Marks("text", LABELS, 2, seed=7)
            )
        )
        assert torch.equal(torch.random.get_rng_state(), expected)
    assert results[0] == results[1]


def test_distractors_take_the_task_from_a_linear_classifier():
    accuracy = []
    for level in (0, STANDARD_LEVEL):
        sets = Digits(level=level).sets
        few = DigitScenes(sets["train"].variants[:, :431], np.array(sets["train"].labels[:431]), level)
        accuracy.append(linear_control("vision", few, sets["test"]))
    assert accuracy[0] > 0.8
    assert accuracy[1] < 0.25


def test_an_unknown_domain_is_refused():
    train = Marks("text", LABELS)
    with pytest.raises(ValueError, match=r"^domain must be one of vision, speech, text: got 'smell'$"):
        linear_control("smell", train, train)
