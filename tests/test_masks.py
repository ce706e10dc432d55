"""Patterns against plain loops over pairs, their algebra, and the importers."""

from __future__ import annotations

import pytest
import torch

from mmattn import (
    Causal,
    KeyLengths,
    Neighbourhood,
    Pattern,
    Prefix,
    Segments,
    Window,
    from_attention_mask,
    from_key_padding_mask,
)

N, M = 5, 7


def by_loop(rule, n: int = N, m: int = M) -> list[list[bool]]:
    return [[bool(rule(i, j)) for j in range(m)] for i in range(n)]


def test_causal_bottom_right_sees_all_keys_from_the_last_query():
    dense = Causal().dense(N, M)
    assert dense.dtype == torch.bool
    assert dense.tolist() == by_loop(lambda i, j: j <= i + M - N)
    assert dense[-1].all()
    assert not dense[0].all()


def test_causal_top_left_is_torch_is_causal():
    dense = Causal(align="top-left").dense(N, M)
    assert dense.tolist() == by_loop(lambda i, j: j <= i)
    q, k, v = torch.randn(2, 3, N, 11), torch.randn(2, 3, M, 11), torch.randn(2, 3, M, 11)
    sdpa = torch.nn.functional.scaled_dot_product_attention
    torch.testing.assert_close(sdpa(q, k, v, dense), sdpa(q, k, v, is_causal=True))


def test_more_queries_than_keys_leave_the_first_queries_alone():
    assert Causal().dense(M, N).any(1).tolist() == [False, False, True, True, True, True, True]


@pytest.mark.parametrize(("align", "shift"), [("bottom-right", M - N), ("top-left", 0)])
def test_window(align, shift):
    dense = Window(2, 1, align=align).dense(N, M)
    assert dense.tolist() == by_loop(lambda i, j: -2 <= j - i - shift <= 1)


def test_key_lengths():
    dense = KeyLengths((7, 0, 3)).dense(N, M)
    assert dense.shape == (3, 1, N, M)
    assert dense.sum(-1)[:, 0].tolist() == [[7] * N, [0] * N, [3] * N]
    assert dense[2, 0].tolist() == by_loop(lambda i, j: j < 3)
    assert KeyLengths(torch.tensor([2, 3])) == KeyLengths((2, 3))


def test_segments():
    queries, keys = ((0, 0, 1, 1, 2), (5, 5, 5, 5, 5)), ((0, 1, 1, 2, 2, 2, 9), (5, 5, 4, 4, 4, 4, 4))
    dense = Segments(queries, keys).dense(N, M)
    assert dense.shape == (2, 1, N, M)
    for b in range(2):
        assert dense[b, 0].tolist() == by_loop(lambda i, j, b=b: queries[b][i] == keys[b][j])
    of_itself = Segments(queries).dense(N, N)
    assert of_itself[0, 0].tolist() == by_loop(lambda i, j: queries[0][i] == queries[0][j], N, N)


def test_algebra():
    both, either = Causal() & Window(1, 2), Causal() | Window(1, 2)
    causal, window = Causal().dense(N, M), Window(1, 2).dense(N, M)
    assert torch.equal(both.dense(N, M), causal & window)
    assert torch.equal(either.dense(N, M), causal | window)
    assert not torch.equal(both.dense(N, M), either.dense(N, M))
    mixed = KeyLengths((2, 7)) & Causal()
    assert mixed.dense(N, M).shape == (2, 1, N, M)
    assert torch.equal(mixed.dense(N, M)[1, 0], causal)


def test_patterns_are_values():
    assert Causal() & Window(1, 2) == Causal() & Window(1, 2)
    assert Causal() & Window(1, 2) != Causal() & Window(2, 1)
    assert Causal() & Window(1, 2) != Causal() | Window(1, 2)
    assert len({Causal(), Causal(), Causal("top-left"), KeyLengths((1,)), KeyLengths((1,))}) == 3
    with pytest.raises(AttributeError):
        Window(1, 2).left = 3
    assert repr(Causal() | Window(1, 2)) == "Or(Causal(align='bottom-right'), Window(left=1, right=2))"
    assert repr(Window(1, 2, align="top-left")) == "Window(left=1, right=2, align='top-left')"


def test_per_sequence_spreads_through_the_algebra():
    assert not (Causal() & Window(1, 2)).per_sequence
    assert (Causal() & KeyLengths((1,))).per_sequence
    assert (KeyLengths((1,)) | Causal()).per_sequence
    assert (Causal() | (Window(1, 2) & Segments(((0,),)))).per_sequence


def test_a_pattern_of_ones_own_joins_in():
    class EveryThird(Pattern):
        def allowed(self, pairs):
            return (pairs.key % 3 == 0) & (pairs.query >= 0)

    assert (EveryThird() & Causal()).dense(N, M).tolist() == by_loop(
        lambda i, j: j % 3 == 0 and j <= i + M - N
    )


def test_from_key_padding_mask_agrees_with_torch():
    ignored = torch.arange(M) >= torch.tensor([[3], [M]])
    mask = from_key_padding_mask(ignored)
    assert mask.shape == (2, 1, 1, M)
    assert torch.equal(mask.expand(2, 1, N, M), KeyLengths((3, M)).dense(N, M))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float32])
def test_from_attention_mask(dtype):
    ones = (torch.arange(M) < torch.tensor([[3], [M]])).to(dtype)
    mask = from_attention_mask(ones)
    assert mask.dtype == torch.bool
    assert torch.equal(mask.expand(2, 1, N, M), KeyLengths((3, M)).dense(N, M))


@pytest.mark.parametrize(
    ("text", "make"),
    [
        (r"align must be 'bottom-right' or 'top-left': got 'middle'", lambda: Causal("middle")),
        (r"align must be 'bottom-right' or 'top-left': got 'middle'", lambda: Window(1, 1, "middle")),
        (r"left and right must not be negative: got left=1, right=-1", lambda: Window(1, -1)),
        (r"lengths must not be negative: got -3", lambda: KeyLengths((2, -3))),
        (r"lengths must not exceed the 7 keys: got 11", lambda: KeyLengths((2, 11)).dense(N, M)),
        (
            r"segments must cover 5 queries and 7 keys: got 3 tokens",
            lambda: Segments(((0, 0, 1),)).dense(N, M),
        ),
        (r"length must not be negative: got -1", lambda: Prefix(-1)),
        (r"length must not be negative: got -3", lambda: Prefix((2, -3))),
        (r"length must be one for each sequence: got 2, asked for 2", lambda: Prefix((2, 3)).select([0, 2])),
        (r"lengths must be one for each sequence: got 1, asked for 4", lambda: KeyLengths((2,)).select([4])),
        (r"queries must be one for each sequence: got 1, asked for 1", lambda: Segments(((0,),)).select([1])),
        (
            r"keys must be one for each sequence: got 1, asked for 1",
            lambda: Segments(((0,), (0,)), ((1,),)).select([1]),
        ),
        (r"radius must be one number from 0 for each axis: got \(\)", lambda: Neighbourhood(())),
        (r"radius must be one number from 0 for each axis: got \(1, -2\)", lambda: Neighbourhood((1, -2))),
        (
            r"Neighbourhood needs the coordinates of queries and keys: got none",
            lambda: Neighbourhood((1,)).dense(N, M),
        ),
        (
            r"radius must have one number for each axis: got 1 for 2 axes",
            lambda: Neighbourhood((1,)).dense(
                N, M, query_coords=torch.zeros(N, 2), key_coords=torch.zeros(M, 2)
            ),
        ),
        (
            r"must be boolean \[B, M\], True = ignore: got torch.int64",
            lambda: from_key_padding_mask(torch.ones(2, 3).long()),
        ),
        (r"must be boolean \[B, M\], True = ignore", lambda: from_key_padding_mask(torch.ones(3) > 0)),
        (
            r"attention_mask must be \[B, M\] of 0 and 1",
            lambda: from_attention_mask(torch.full((2, 3), -1e9)),
        ),
        (
            r"attention_mask must be \[B, M\] of 0 and 1: got shape \[3\]",
            lambda: from_attention_mask(torch.ones(3)),
        ),
    ],
)
def test_errors(text, make):
    with pytest.raises(ValueError, match=text):
        make()
