"""Dynamic masking: how many, which, what becomes of them, and whole words."""

from __future__ import annotations

import pytest
import torch

from mmattn import TokenBatch
from mmattn.language import DynamicMasking

V = 97
LENGTHS = [1, 13, 0, 29, 7]


def batch(lengths=LENGTHS) -> TokenBatch:
    return TokenBatch(torch.randint(V, (sum(lengths),)), lengths)


def chosen_of_each(hidden, lengths) -> list[int]:
    chosen = torch.zeros(sum(lengths), dtype=torch.bool)
    chosen[hidden.positions] = True
    return [int(part.sum()) for part in chosen.split(lengths)]


@pytest.mark.parametrize("share", [0.15, 0.4, 1.0])
def test_each_sequence_gives_its_share_and_at_least_one(share):
    hidden = DynamicMasking(share)(batch(), V)
    expected = [min(n, max(1, round(share * n))) for n in LENGTHS]
    assert chosen_of_each(hidden, LENGTHS) == expected


def test_of_the_chosen_80_percent_are_hidden_10_random_and_10_kept():
    ids = batch([4001, 5003])
    hidden = DynamicMasking(share=0.5)(ids, V)
    shown, targets = hidden.ids.values[hidden.positions], hidden.targets
    assert torch.equal(targets, ids.values[hidden.positions])
    assert (shown == V).float().mean().item() == pytest.approx(0.8, abs=0.02)
    other = (shown != V) & (shown != targets)
    assert other.float().mean().item() == pytest.approx(0.1 * (V - 1) / V, abs=0.015)
    drawn = shown[other]
    assert len(drawn.unique()) > 0.9 * V  # from the whole vocabulary
    assert int(drawn.max()) < V


def test_all_else_stays_and_the_input_is_not_touched():
    ids = batch()
    before = ids.values.clone()
    hidden = DynamicMasking(0.3)(ids, V)
    left = torch.ones(len(before), dtype=torch.bool)
    left[hidden.positions] = False
    assert torch.equal(hidden.ids.values[left], before[left])
    assert torch.equal(ids.values, before)
    assert hidden.ids.sizes == ids.sizes
    assert torch.equal(hidden.positions, hidden.positions.sort().values)


def test_it_is_drawn_anew_and_a_generator_fixes_it():
    ids, masking = batch(), DynamicMasking(0.3)
    assert not torch.equal(masking(ids, V).positions, masking(ids, V).positions)
    first, second = (masking(ids, V, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first.ids.values, second.ids.values)
    state = torch.random.get_rng_state()
    masking(ids, V, generator=torch.Generator().manual_seed(5))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_every_place_is_chosen_in_its_turn():
    ids = batch([11])
    counts = torch.zeros(11)
    for _ in range(1100):
        counts[DynamicMasking(2 / 11)(ids, V).positions] += 1
    assert counts.min() > 150
    assert counts.max() < 250


def test_unknown_tokens_are_never_chosen():
    ids = batch([17, 5, 3])
    ids.values[[0, 4, 9, 17, 18, 19, 20, 21]] = -1  # the second sequence knows nothing
    for _ in range(20):
        hidden = DynamicMasking(0.5)(ids, V)
        assert chosen_of_each(hidden, [17, 5, 3]) == [7, 0, 2]
        assert (hidden.targets >= 0).all()
        assert torch.equal(hidden.ids.values == -1, ids.values == -1)


def test_whole_words_are_chosen_with_all_their_tokens():
    words = torch.tensor([0, 0, 0, 1, 2, 2, 3, 4, 4, 4, 4, 5])  # four words, then two
    ids = TokenBatch(torch.arange(12), [7, 5])
    masking = DynamicMasking(0.5, mask=1.0, random=0.0, whole_words=True)
    seen = set()
    for _ in range(60):
        hidden = masking(ids, V, words)
        chosen = set(words[hidden.positions].tolist())
        assert torch.equal(torch.isin(words, torch.tensor(sorted(chosen))).nonzero()[:, 0], hidden.positions)
        assert (len(chosen & {0, 1, 2, 3}), len(chosen & {4, 5})) == (2, 1)
        seen |= chosen
    assert seen == {0, 1, 2, 3, 4, 5}


def test_a_word_with_an_unknown_token_is_not_chosen():
    words = torch.tensor([0, 0, 1, 1])
    ids = TokenBatch(torch.tensor([3, -1, 5, 6]), [4])
    for _ in range(9):
        hidden = DynamicMasking(1.0, whole_words=True)(ids, V, words)
        assert hidden.positions.tolist() == [2, 3]


def test_an_empty_batch_has_nothing_to_hide():
    assert len(DynamicMasking()(batch([0, 0]), V).positions) == 0
    assert len(DynamicMasking()(TokenBatch(torch.zeros(0, dtype=torch.long), []), V).targets) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"share": 0.0}, r"^share must lie in \(0, 1\]: got 0.0$"),
        (
            {"mask": 0.9, "random": 0.2},
            r"^mask and random must be shares with a sum of at most 1: got 0.9 and 0.2$",
        ),
        ({"random": -0.1}, r"^mask and random must be shares .*: got 0.8 and -0.1$"),
    ],
)
def test_bad_shares_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DynamicMasking(**arguments)


def test_whole_words_without_words_are_refused():
    with pytest.raises(ValueError, match=r"^whole_words needs the word of each token: got none$"):
        DynamicMasking(whole_words=True)(batch(), V)
