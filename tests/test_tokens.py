"""TokenBatch: what goes in comes out again, in every form."""

from __future__ import annotations

import pickle

import pytest
import torch

from mmattn import TokenBatch


@pytest.fixture
def batch() -> TokenBatch:
    """Four sequences, one of them empty, with width 5 and coordinates on two axes."""
    return TokenBatch(torch.randn(11, 5), [3, 0, 7, 1], torch.arange(22).reshape(11, 2))


def assert_same(first: TokenBatch, second: TokenBatch) -> None:
    assert first.sizes == second.sizes
    assert torch.equal(first.values, second.values)
    assert torch.equal(first.coords, second.coords)


def test_derived_numbers(batch):
    assert len(batch) == 4
    assert batch.sizes == (3, 0, 7, 1)
    assert batch.lengths.dtype == torch.int64
    assert batch.segment_ids.tolist() == [0] * 3 + [2] * 7 + [3]
    assert repr(batch) == (
        "TokenBatch(4 sequences, 11 tokens, lengths 0..7, values [11, 5] float32, coords [11, 2], cpu)"
    )
    assert "0 sequences, 0 tokens, no lengths" in repr(TokenBatch(torch.zeros(0, 5), []))


def test_coords_count_inside_each_sequence_by_default():
    assert TokenBatch(torch.zeros(5), [2, 0, 3]).coords.tolist() == [[0], [1], [0], [1], [2]]


def test_from_sequences(batch):
    parts = batch.values.split(batch.sizes)
    assert_same(TokenBatch.from_sequences(parts, batch.coords.split(batch.sizes)), batch)
    assert TokenBatch.from_sequences(parts).coords[:, 0].tolist() == [0, 1, 2, *range(7), 0]


def test_padded_and_back(batch):
    padded, mask = batch.to_padded(fill=-9.0)
    assert padded.shape == (4, 7, 5)
    assert mask.sum(1).tolist() == [3, 0, 7, 1]
    assert bool((padded[~mask] == -9.0).all())
    assert torch.equal(padded[2], batch.values[3:10])
    by_lengths = TokenBatch.from_padded(padded, batch.lengths)
    by_mask = TokenBatch.from_padded(padded, mask=mask)
    assert torch.equal(by_lengths.values, batch.values)
    assert by_lengths.coords[:, 0].tolist() == [0, 1, 2, *range(7), 0]
    assert_same(by_mask, by_lengths)


def test_from_padded_takes_tokens_from_anywhere_in_a_row_with_their_columns():
    values = torch.arange(10).reshape(2, 5)
    mask = torch.tensor([[False, True, False, True, True], [True, False, False, False, False]])
    tokens = TokenBatch.from_padded(values, mask=mask)
    assert tokens.values.tolist() == [1, 3, 4, 5]
    assert tokens.sizes == (3, 1)
    assert tokens.coords[:, 0].tolist() == [1, 3, 4, 0]


def test_from_padded_coords_shared_and_of_each_row():
    values = torch.randn(2, 3, 5)
    shared = torch.tensor([[0, 7], [1, 8], [2, 9]])
    assert TokenBatch.from_padded(values, [1, 2], coords=shared).coords.tolist() == [[0, 7], [0, 7], [1, 8]]
    own = torch.stack([shared, shared + 100])
    tokens = TokenBatch.from_padded(values, [1, 2], coords=own)
    assert tokens.coords.tolist() == [[0, 7], [100, 107], [101, 108]]


def test_uniform_lengths_are_a_plain_reshape():
    values = torch.randn(2, 3, 5)
    assert TokenBatch.from_padded(values).values.data_ptr() == values.data_ptr()


def test_split_and_concat_undo_each_other(batch):
    parts = batch.split()
    assert [part.sizes for part in parts] == [(3,), (0,), (7,), (1,)]
    assert_same(TokenBatch.concat(parts), batch)


def test_select_repeats_and_reorders(batch):
    chosen = batch.select([3, 2, 0, 3])
    assert chosen.sizes == (1, 7, 3, 1)
    parts = batch.split()
    assert_same(chosen, TokenBatch.concat([parts[i] for i in (3, 2, 0, 3)]))
    assert_same(batch.select(torch.tensor([2, 0, 3, 1])).select([1, 3, 0, 2]), batch)


def test_replace_keeps_the_sequences(batch):
    other = batch.replace(torch.zeros(11, 2))
    assert other.sizes == batch.sizes
    assert other.coords is batch.coords
    assert other.values.shape == (11, 2)
    with pytest.raises(ValueError, match=r"values must keep the 11 tokens: got 10"):
        batch.replace(torch.zeros(10, 2))


def test_gradients_pass_through_padding_and_selection(batch):
    values = batch.values.clone().requires_grad_()
    padded, _ = batch.replace(values).select([2, 0]).to_padded()
    padded.sum().backward()
    assert values.grad.sum(1).tolist() == [5.0] * 10 + [0.0]


def test_pickle_and_device(batch):
    assert batch.segment_ids is not None  # derived values need not travel
    assert_same(pickle.loads(pickle.dumps(batch)), batch)
    assert batch.to("cpu") is batch
    moved = batch.to("meta")
    assert moved.device.type == "meta"
    assert moved.coords.device.type == "meta"
    assert moved.lengths.device.type == "cpu"


@pytest.mark.parametrize(
    ("error", "text", "make"),
    [
        (TypeError, r"values must be a tensor \[T, ...\]: got list", lambda: TokenBatch([1], [1])),
        (ValueError, r"must have a token axis .* got a scalar", lambda: TokenBatch(torch.tensor(1.0), [1])),
        (
            ValueError,
            r"lengths must add up to the number of tokens: got a sum of 4 for 5 tokens",
            lambda: TokenBatch(torch.zeros(5), [1, 3]),
        ),
        (ValueError, r"lengths must not be negative: got -2", lambda: TokenBatch(torch.zeros(5), [7, -2])),
        (
            TypeError,
            r"lengths must be integers: got torch.float32",
            lambda: TokenBatch(torch.zeros(2), [2.0]),
        ),
        (TypeError, r"lengths must be integers: got torch.bool", lambda: TokenBatch(torch.zeros(1), [True])),
        (
            ValueError,
            r"lengths must be one-dimensional \[B\]: got shape \[1, 1\]",
            lambda: TokenBatch(torch.zeros(2), [[2]]),
        ),
        (
            ValueError,
            r"coords must be \[T, A\] with T=5 tokens: got shape \[3, 2\]",
            lambda: TokenBatch(torch.zeros(5), [5], torch.zeros(3, 2)),
        ),
        (ValueError, r"coords must be \[T, A\]", lambda: TokenBatch(torch.zeros(5), [5], torch.zeros(5))),
        (ValueError, r"at least one sequence: got none", lambda: TokenBatch.from_sequences([])),
        (
            ValueError,
            r"share their trailing shape: got \[\(2,\), \(3,\)\]",
            lambda: TokenBatch.from_sequences([torch.zeros(1, 3), torch.zeros(1, 2)]),
        ),
        (ValueError, r"values must be \[B, L, ...\]", lambda: TokenBatch.from_padded(torch.zeros(3))),
        (
            ValueError,
            r"give lengths or mask, not both",
            lambda: TokenBatch.from_padded(torch.zeros(1, 2), [1], mask=torch.ones(1, 2) > 0),
        ),
        (
            ValueError,
            r"one for each row: got 3 for 2 rows",
            lambda: TokenBatch.from_padded(torch.zeros(2, 5), [1, 1, 1]),
        ),
        (
            ValueError,
            r"not exceed the padded length 5: got 7",
            lambda: TokenBatch.from_padded(torch.zeros(2, 5), [7, 1]),
        ),
        (
            ValueError,
            r"mask must be boolean \[B, L\] = \[2, 5\], True = real: got torch.float32 \[2, 5\]",
            lambda: TokenBatch.from_padded(torch.zeros(2, 5), mask=torch.ones(2, 5)),
        ),
        (
            TypeError,
            r"order must hold indices, not a mask: got torch.bool",
            lambda: TokenBatch(torch.zeros(2), [1, 1]).select([True, False]),
        ),
        (ValueError, r"at least one batch: got none", lambda: TokenBatch.concat([])),
        (
            ValueError,
            r"batches must share trailing shape and coordinate axes",
            lambda: TokenBatch.concat(
                [TokenBatch(torch.zeros(1, 2), [1]), TokenBatch(torch.zeros(1, 2), [1], torch.zeros(1, 2))]
            ),
        ),
    ],
)
def test_errors(error, text, make):
    with pytest.raises(error, match=text):
        make()
