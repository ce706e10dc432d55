"""Decoding against the list of all alignments."""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import groupby, product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from mmattn import TokenBatch
from mmattn.recognition import beam_search, greedy


def every_reading(logits: torch.Tensor) -> dict[tuple[int, ...], float]:
    """The probability of each sequence of units, over all alignments."""
    log_probs, found = logits.double().log_softmax(-1).tolist(), defaultdict(float)
    for path in product(range(logits.shape[1]), repeat=len(logits)):
        reading = tuple(unit for unit, _ in groupby(path) if unit)
        found[reading] += math.exp(sum(log_probs[t][unit] for t, unit in enumerate(path)))
    return dict(found)


@given(st.integers(1, 5), st.integers(2, 4), st.integers(0, 1000), st.sampled_from([0.3, 1.0, 3.0]))
def test_a_wide_beam_finds_every_reading_with_its_probability(length, vocab_size, seed, spread):
    torch.manual_seed(seed)
    logits = torch.randn(length, vocab_size) * spread
    want = every_reading(logits)
    found = beam_search(logits, beam_size=2000)
    assert {tuple(ids) for ids, _ in found} == set(want)
    for ids, score in found:
        assert math.exp(score) == pytest.approx(want[tuple(ids)], rel=1e-9)
    assert tuple(found[0].ids) == max(want, key=lambda reading: want[reading])
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True)


@given(st.integers(0, 1000))
def test_a_narrow_beam_underestimates_and_keeps_its_size(seed):
    torch.manual_seed(seed)
    logits = torch.randn(5, 4) * 2
    want = every_reading(logits)
    found = beam_search(logits, beam_size=3)
    assert len(found) == 3
    assert len({tuple(ids) for ids, _ in found}) == 3
    for ids, score in found:
        assert math.exp(score) <= want[tuple(ids)] * (1 + 1e-9)


def test_scores_are_those_of_the_loss():
    logits = torch.randn(9, 5) * 3
    for ids, score in beam_search(logits, beam_size=5000)[:4]:
        loss = F.ctc_loss(
            logits.double().log_softmax(-1)[:, None], torch.tensor([ids]), [9], [len(ids)], reduction="sum"
        )
        assert -score == pytest.approx(loss.item(), rel=1e-6)


def test_the_beam_finds_what_greedy_misses():
    logits = torch.tensor([[0.6, 0.4], [0.6, 0.4]]).log()
    assert greedy(TokenBatch(logits, [2])) == [[]]
    assert beam_search(logits, 2)[0].ids == [1]


@given(st.lists(st.lists(st.integers(0, 3), max_size=7), min_size=1, max_size=5))
def test_greedy_reads_the_best_path_of_each_clip(paths):
    flat = torch.tensor([unit for path in paths for unit in path], dtype=torch.long)
    logits = TokenBatch(F.one_hot(flat, 4).float(), [len(path) for path in paths])
    assert greedy(logits) == [[unit for unit, _ in groupby(path) if unit] for path in paths]


def test_impossible_units_are_never_read():
    logits = torch.zeros(4, 3)
    logits[:, 2] = -math.inf
    found = beam_search(logits, 100)
    assert {tuple(ids) for ids, _ in found} == {(), (1,), (1, 1)}
    assert sum(math.exp(score) for _, score in found) == pytest.approx(1)


def test_ties_are_read_alike_every_time():
    logits = torch.zeros(6, 4)
    assert all(beam_search(logits, 5) == beam_search(logits, 5) for _ in range(5))


def test_a_clip_without_tokens_says_nothing():
    assert beam_search(torch.zeros(0, 4), 3) == [([], 0.0)]
    assert greedy(TokenBatch(torch.zeros(0, 4), [0, 0])) == [[], []]


def test_long_clips_and_many_units_lose_no_digits():
    logits = torch.randn(400, 300) * 4
    [ids, score], *_ = beam_search(logits, 4)
    log_probs = logits.double().log_softmax(-1)[:, None]
    loss = F.ctc_loss(log_probs, torch.tensor([ids]), [400], [len(ids)], reduction="sum").item()
    best_path = log_probs.amax(-1).sum().item()
    assert best_path <= score <= -loss + 1e-6
    assert score == pytest.approx(-loss, rel=0.02)


def test_errors():
    with pytest.raises(ValueError, match="beam_size must be at least 1: got 0"):
        beam_search(torch.zeros(3, 2), 0)
    with pytest.raises(ValueError, match=r"logits must be \[T, V\], of one clip: got shape \[1, 3, 2\]"):
        beam_search(torch.zeros(1, 3, 2), 2)
