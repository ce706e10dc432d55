"""Batches of like length, and the base of the data modules."""

from __future__ import annotations

import hashlib
import math

import pytest
import torch

pytest.importorskip("lightning")

from mmattn.training.data import ClassificationData, Example, ExampleSet, LengthBatchSampler, collate

SIZES = [int(n) for n in torch.randint(1, 400, (211,), generator=torch.Generator().manual_seed(0))]


def spread(batches: list[list[int]]) -> float:
    """Share of a batch padded to its longest item that would be padding."""
    padded = sum(len(batch) * max(SIZES[i] for i in batch) for batch in batches)
    return 1 - sum(SIZES) / padded


@pytest.mark.parametrize("pool", [1, 3, 16, 1000])
@pytest.mark.parametrize("batch_size", [1, 7, 211, 500])
def test_every_index_once(batch_size, pool):
    sampler = LengthBatchSampler(SIZES, batch_size, pool)
    batches = list(sampler)
    assert sorted(i for batch in batches for i in batch) == list(range(211))
    assert len(batches) == len(sampler) == math.ceil(211 / batch_size)
    assert sorted(map(len, batches))[1:] == [batch_size] * (len(batches) - 1)


def test_like_sizes_come_together():
    plain, pooled, sorted_all = (spread(list(LengthBatchSampler(SIZES, 7, pool))) for pool in (1, 8, 1000))
    assert plain > 0.3 > 0.12 > pooled > sorted_all
    assert sorted_all < 0.04


def test_batches_come_in_no_order_of_size():
    longest = [max(SIZES[i] for i in batch) for batch in LengthBatchSampler(SIZES, 7, 1000)]
    assert longest != sorted(longest)
    assert longest != sorted(longest, reverse=True)


@pytest.mark.parametrize("pool", [1, 16])
def test_seeds(pool):
    sampler = LengthBatchSampler(SIZES, 7, pool)
    torch.manual_seed(3)
    first, second = list(sampler), list(sampler)
    torch.manual_seed(3)
    assert list(sampler) == first != second


def test_sampler_errors():
    with pytest.raises(ValueError, match=r"batch_size must be at least 1: got 0"):
        LengthBatchSampler(SIZES, 0)
    with pytest.raises(ValueError, match=r"pool must be at least 1: got 0"):
        LengthBatchSampler(SIZES, 7, 0)


def test_batches_within_a_budget():
    sampler = LengthBatchSampler(SIZES, 7, max_size=2 * max(SIZES))
    epochs = [list(sampler) for _ in range(3)]
    assert epochs[0] != epochs[1]
    for batches in epochs:
        assert len(batches) == len(sampler)
        assert sorted(i for batch in batches for i in batch) == list(range(len(SIZES)))
        sums = [sum(SIZES[i] for i in batch) for batch in batches]
        assert max(sums) <= 2 * max(SIZES)
        assert max(map(len, batches)) <= 7
    # short items go together up to the number allowed, long ones up to the budget
    assert len({len(batch) for batch in epochs[0]}) > 1
    assert len(LengthBatchSampler(SIZES, 7, max_size=10**9)) == -(-len(SIZES) // 7)


def test_a_budget_must_hold_every_item():
    with pytest.raises(
        ValueError, match=rf"max_size must hold the largest item, of size {max(SIZES)}: got 3"
    ):
        LengthBatchSampler(SIZES, 7, max_size=3)


def test_collate_stacks_pictures_of_one_shape_only():
    like = collate([Example(torch.full((3, 5, 7), float(i)), i, (0, 1, 2, 3)) for i in range(2)])
    assert like.items.shape == (2, 3, 5, 7)
    assert like.items[1].unique().item() == 1
    assert like.labels.tolist() == [0, 1]
    assert like.labels.dtype == torch.int64
    assert like.relevant == [(0, 1, 2, 3)] * 2
    unlike = collate([Example(torch.zeros(3, 5, 7), 0), Example(torch.zeros(3, 7, 5), 1)])
    assert [item.shape for item in unlike.items] == [(3, 5, 7), (3, 7, 5)]
    waves = collate([Example(torch.zeros(5), 0), Example(torch.zeros(5), 1)])
    assert isinstance(waves.items, list)
    assert waves.relevant == [None, None]
    assert collate([Example("a", 0), Example("bc", 1)]).items == ["a", "bc"]


class Words(ExampleSet):
    class_names = ("short", "long")

    def __init__(self, words: list[str]) -> None:
        self.words = words

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, index: int) -> Example:
        return Example(self.words[index], int(len(self.words[index]) > 3))

    def size(self, index: int) -> int:
        return len(self.words[index])

    def fingerprint(self) -> str:
        return hashlib.sha256("\n".join(self.words).encode()).hexdigest()


class WordData(ClassificationData):
    built = 0

    def build(self) -> dict[str, ExampleSet]:
        self.built += 1
        sets = {"train": Words(["a" * (1 + i % 11) for i in range(53)]), "val": Words(["b"] * 3)}
        return sets | {"test": Words(["c"] * 5), "test_hard": Words(["d", "dddd"])}


def test_data_module():
    data = WordData(batch_size=7)
    data.setup("fit")
    assert (data.class_names, data.num_classes, data.test_names) == (
        ("short", "long"),
        2,
        ("test", "test_hard"),
    )
    batches = list(data.train_dataloader())
    assert sorted(word for batch in batches for word in batch.items) == sorted(data.training_texts())
    assert max(len({len(word) for word in batch.items}) for batch in batches) <= 3
    assert [word for batch in data.val_dataloader() for word in batch.items] == ["b"] * 3
    assert [len(next(iter(loader)).labels) for loader in data.test_dataloader()] == [5, 2]
    assert [len(batch.items) for batch in data.predict_dataloader()] == [5]
    assert set(data.fingerprint()) == {"train", "val", "test", "test_hard"}
    assert len(set(data.fingerprint().values())) == 4
    assert data.built == 1


def test_data_module_errors():
    with pytest.raises(ValueError, match=r"batch_size must be at least 1: got 0"):
        WordData(batch_size=0)
    data = WordData()
    data.sets["train"].words[0] = b"bytes"
    with pytest.raises(TypeError, match=r"a tokenizer learns from strings: got bytes"):
        data.training_texts()
