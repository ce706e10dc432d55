"""Beam search against exhaustive search, greedy decoding and a beam search spelt out in Python."""

from __future__ import annotations

import itertools
import math
import zlib

import pytest
import torch

from mmattn.translation import beam_search
from mmattn.translation.beam import length_factor


class Tree:
    """A model that knows each prefix by itself: its logits are drawn by the input and the ids so far."""

    def __init__(self, names, vocabulary: int, sharpness: float = 1.0) -> None:
        self.rows = [(name, ()) for name in names]
        self.vocabulary, self.sharpness = vocabulary, sharpness
        self.widths: list[int] = []

    def logits(self, name, prefix) -> torch.Tensor:
        seed = zlib.crc32(repr((name, prefix)).encode())
        drawn = torch.randn(self.vocabulary + 1, generator=torch.Generator().manual_seed(seed))
        return self.sharpness * drawn

    def step(self, last) -> torch.Tensor:
        self.widths.append(len(self.rows))
        if last is not None:
            assert len(last) == len(self.rows)
            self.rows = [(name, (*ids, int(i))) for (name, ids), i in zip(self.rows, last, strict=True)]
        return torch.stack([self.logits(*row) for row in self.rows])

    def select(self, rows) -> None:
        self.rows = [self.rows[row] for row in rows.tolist()]


def log_probs(tree: Tree, name, prefix) -> list[float]:
    return tree.logits(name, prefix).log_softmax(0).tolist()


def every_sequence(tree: Tree, name, limit: int, penalty: float) -> dict[tuple[int, ...], float]:
    """The score of every sequence that may come out."""
    scores = {}
    for length in range(limit + 1):
        for ids in itertools.product(range(tree.vocabulary), repeat=length):
            total = sum(log_probs(tree, name, ids[:i])[token] for i, token in enumerate(ids))
            total += log_probs(tree, name, ids)[-1]
            scores[ids] = total / ((5 + length + 1) / 6) ** penalty
    return scores


def slow_beam_search(tree: Tree, name, limit: int, size: int, penalty: float):
    """What beam_search says it does, one hypothesis at a time."""
    live, done = [((), 0.0)], []
    for length in range(limit + 1):
        grown = []
        for ids, score in live:
            for token, more in enumerate(log_probs(tree, name, ids)):
                if length < limit or token == tree.vocabulary:
                    grown.append((ids, token, score + more))
        grown.sort(key=lambda entry: -entry[2])
        ended = [entry for entry in grown[:size] if entry[1] == tree.vocabulary]
        done += [(ids, score / ((6 + length) / 6) ** penalty) for ids, _, score in ended]
        live = [((*ids, token), score) for ids, token, score in grown if token != tree.vocabulary][:size]
        best = max((score for _, score in done), default=-math.inf)
        reachable = live[0][1] / ((6 + limit) / 6) ** penalty if live else -math.inf
        if len(done) >= size or best >= reachable:
            break
    return max(done, key=lambda entry: entry[1])


@pytest.mark.parametrize("penalty", [0.0, 0.6, 1.4])
def test_a_beam_that_holds_everything_is_exhaustive_search(penalty):
    names, limits = list("abcdefg"), [3, 0, 3, 1, 2, 3, 3]
    tree = Tree(names, 3)
    lengths = set()
    for name, limit, found in zip(names, limits, beam_search(tree, limits, 3**3 * 4, penalty), strict=True):
        wanted = every_sequence(tree, name, limit, penalty)
        ids = max(wanted, key=wanted.__getitem__)
        assert found.ids == ids
        assert found.score == pytest.approx(wanted[ids], abs=1e-5)
        assert found.log_prob == pytest.approx(
            wanted[ids] * float(length_factor(len(ids) + 1, penalty)), abs=1e-5
        )
        lengths.add(len(ids))
    assert len(lengths) > 1


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_it_is_the_search_spelt_out(size, penalty):
    names, limits = range(23), [1 + index % 7 for index in range(23)]
    tree = Tree(names, 5, sharpness=2.0)
    found = beam_search(tree, limits, size, penalty)
    for name, limit, best in zip(names, limits, found, strict=True):
        ids, score = slow_beam_search(tree, name, limit, size, penalty)
        assert best.ids == ids
        assert best.score == pytest.approx(score, abs=1e-5)


def test_a_beam_of_one_is_greedy():
    names = range(31)
    tree = Tree(names, 4)
    for name, best in zip(names, beam_search(tree, [9] * 31, 1), strict=True):
        ids: tuple[int, ...] = ()
        while len(ids) < 9:
            token = int(tree.logits(name, ids).argmax())
            if token == 4:
                break
            ids += (token,)
        assert best.ids == ids


def test_wider_beams_score_no_worse_on_the_whole():
    scores = [
        sum(best.score for best in beam_search(Tree(range(40), 6, 2.0), [8] * 40, size)) for size in (1, 3, 9)
    ]
    assert scores[0] < scores[1] < scores[2]


def test_a_result_does_not_depend_on_the_others():
    names, limits = range(17), [2 + index % 5 for index in range(17)]
    together = beam_search(Tree(names, 5, 2.0), limits, 3)
    for name, limit, best in zip(names, limits, together, strict=True):
        assert beam_search(Tree([name], 5, 2.0), [limit], 3) == [best]


def test_inputs_that_are_done_leave_the_batch():
    tree = Tree(range(11), 5, 2.0)
    beam_search(tree, range(1, 12), 2)
    assert tree.widths[0] == 11  # one row for each input, before there is anything to choose from
    assert tree.widths[1] <= 22
    assert tree.widths[1:] == sorted(tree.widths[1:], reverse=True)
    assert 0 < tree.widths[-1] < tree.widths[1]


def test_a_longer_one_wins_by_the_penalty_alone():
    class Two:
        """Either nothing, with probability 0.5, or four tokens that are sure once begun, with 0.4."""

        def __init__(self) -> None:
            self.lengths = [0]

        def step(self, last):
            table = {0: [0.4, 0.1, 0.5], 4: [0.0, 0.0, 1.0]}
            rows = [table.get(length, [1.0, 0.0, 0.0]) for length in self.lengths]
            self.lengths = [length + 1 for length in self.lengths]
            return torch.tensor(rows).clamp_min(1e-30).log()

        def select(self, rows):
            self.lengths = [self.lengths[row] for row in rows.tolist()]

    assert beam_search(Two(), [6], 2, 0.0)[0].ids == ()
    best = beam_search(Two(), [6], 2, 1.0)[0]
    assert best.ids == (0, 0, 0, 0)
    assert best.log_prob == pytest.approx(math.log(0.4))
    assert best.score == pytest.approx(math.log(0.4) * 6 / 10)


def test_nothing_to_search():
    assert beam_search(Tree([], 3), [], 2) == []


@pytest.mark.parametrize(
    ("limits", "options", "message"),
    [
        ([3], {"beam_size": 0}, "beam_size must be at least 1: got 0"),
        ([3], {"length_penalty": -0.5}, "length_penalty must not be negative: got -0.5"),
        ([3, -1], {}, "limits must not be negative: got -1"),
    ],
)
def test_numbers_out_of_range(limits, options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        beam_search(Tree(limits, 3), limits, **options)
