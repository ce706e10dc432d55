"""The lengths, batches and labels that the attention benchmark draws."""

from __future__ import annotations

from itertools import chain
from statistics import mean

import pytest
import torch
from torch.nn import functional as F

from benchmarks.attention import data, learnable, steps


@pytest.mark.parametrize(
    ("name", "measured"), [("SST-2", 18.5), ("FSDD", 44.2), ("connected digits", 242.0), ("Multi30k", 16.1)]
)
def test_drawn_lengths_have_the_mean_of_the_data(name, measured):
    lengths = data.draw_lengths(name, 20_011)
    assert mean(lengths) == pytest.approx(measured, rel=0.02)
    assert min(lengths) >= data.LENGTHS[name][0]
    assert max(lengths) <= data.LENGTHS[name][-1]
    assert lengths == data.draw_lengths(name, 20_011) != data.draw_lengths(name, 20_011, seed=1)


def test_each_table_has_a_rising_length_for_each_percentage():
    for table in data.LENGTHS.values():
        assert len(table) == len(data.PERCENT)
        assert list(table) == sorted(table)


def test_buckets_hold_the_same_sequences_with_little_padding():
    lengths = data.draw_lengths("FSDD", 7 * 16)
    random, bucketed = data.random_batches(lengths, 7), data.bucketed_batches(lengths, 7)
    assert sorted(chain(*random)) == sorted(chain(*bucketed))
    assert bucketed != sorted(bucketed)

    def padding(groups):
        return mean(batch.padding for batch in data.batches_of(groups, 3, 10))

    assert padding(bucketed) < 0.08 < 0.3 < padding(random)


def test_spread_takes_batches_of_all_sizes():
    assert data.spread([[n] for n in (5, 1, 8, 2, 7, 3, 6, 4)], 4) == [[2], [4], [6], [8]]
    assert data.spread([[3], [1], [2]], 3) == [[1], [2], [3]]


def test_a_batch_is_the_same_packed_and_padded():
    (batch,) = data.batches_of([[2, 5, 3]], 7, classes=10)
    values, mask = batch.padded
    assert values.shape == (3, 5, 7)
    assert mask.sum(1).tolist() == [2, 5, 3]
    assert torch.equal(values[mask], batch.values)
    assert batch.padding == pytest.approx(1 - 10 / 15)
    assert data.tokens([batch, batch]) == 20


def test_the_floor_of_the_learnable_task_is_the_entropy_of_its_labels():
    others = learnable.WRONG / steps.CLASSES
    shares = torch.tensor([1 - learnable.WRONG + others] + [others] * (steps.CLASSES - 1))
    assert shares.sum().item() == pytest.approx(1.0)
    assert learnable.floor() == pytest.approx(
        torch.distributions.Categorical(shares).entropy().item(), rel=1e-6
    )


def test_the_classes_of_the_learnable_task_are_the_same_for_training_and_test():
    def means(seed):
        (batch,) = learnable.pictures(8, 1, 1009, seed)
        return torch.stack([batch.values[batch.labels == c].mean(0) for c in range(steps.CLASSES)]).flatten(1)

    alike = F.cosine_similarity(means(1)[:, None], means(2), dim=-1)
    assert alike.argmax(1).tolist() == list(range(steps.CLASSES))
