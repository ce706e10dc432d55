"""Patterns that ask for coordinates, sequences or bands."""

from __future__ import annotations

import pytest
import torch

from mmattn import Causal, KeyLengths, Neighbourhood, Prefix, Segments, Window, attend
from mmattn.masks import Band, Pairs

B, N, M = 3, 5, 7


def test_neighbourhood_is_a_box_around_the_query():
    queries, keys = torch.randint(0, 6, (N, 2)), torch.randint(0, 6, (M, 2))
    dense = Neighbourhood((1, 2)).dense(N, M, query_coords=queries, key_coords=keys)
    want = [[abs(int(q[0] - k[0])) <= 1 and abs(int(q[1] - k[1])) <= 2 for k in keys] for q in queries]
    assert dense.tolist() == want
    assert 0 < dense.sum() < N * M
    assert Neighbourhood((1, 2)).uses_coords
    assert not Neighbourhood([1, 2]).per_sequence
    assert Neighbourhood([1, 2]) == Neighbourhood((1, 2))


def test_neighbourhood_on_one_axis_is_a_window():
    coords = torch.arange(M)[:, None]
    dense = Neighbourhood((2,)).dense(M, M, query_coords=coords, key_coords=coords)
    assert torch.equal(dense, Window(2, 2).dense(M, M))
    halves = Neighbourhood((0.5,)).dense(M, M, query_coords=coords + 0.5, key_coords=coords)
    assert torch.equal(halves, Window(0, 1).dense(M, M))


def test_neighbourhood_of_unsigned_coordinates():
    coords = torch.arange(M, dtype=torch.uint8)[:, None]
    dense = Neighbourhood((2,)).dense(M, M, query_coords=coords, key_coords=coords)
    assert torch.equal(dense, Window(2, 2).dense(M, M))


def test_neighbourhood_of_each_sequence():
    queries, keys = torch.randint(0, 6, (B, N, 1)), torch.randint(0, 6, (B, M, 1))
    dense = Neighbourhood((1,)).dense(N, M, query_coords=queries, key_coords=keys)
    assert dense.shape == (B, 1, N, M)
    for b in range(B):
        alone = Neighbourhood((1,)).dense(N, M, query_coords=queries[b], key_coords=keys[b])
        assert torch.equal(dense[b, 0], alone)


def test_prefix():
    assert Prefix(2).dense(N, M).sum(1).tolist() == [2] * N
    assert Prefix(2).dense(N, M)[:, :2].all()
    assert Prefix(99).dense(N, M).all()
    assert not Prefix(2).per_sequence
    of_each = Prefix((0, 7, 3))
    assert of_each.per_sequence
    assert of_each.dense(N, M).sum(-1)[:, 0].tolist() == [[0] * N, [7] * N, [3] * N]
    assert Prefix(torch.tensor([2, 3])) == Prefix((2, 3))
    language_model = (Causal() | Prefix(4)).dense(M, M)
    assert torch.equal(language_model, Causal().dense(M, M) | (torch.arange(M) < 4))


PATTERNS = [
    Causal(),
    Causal("top-left"),
    Window(1, 2),
    Window(2, 0, "top-left"),
    Causal() & Window(3, 3),
    Window(0, 9) & Causal("top-left"),
    Window(0, 1) & Window(1, 0, "top-left"),
]


@pytest.mark.parametrize(("n", "m"), [(5, 7), (7, 5), (6, 6), (1, 8), (8, 1)])
@pytest.mark.parametrize("pattern", PATTERNS, ids=repr)
def test_a_band_is_the_pattern(pattern, n, m):
    low, high = pattern.band(n, m)
    distance = torch.arange(m) - torch.arange(n)[:, None]
    inside = torch.ones(n, m, dtype=torch.bool)
    inside &= (distance >= low) if low is not None else inside
    inside &= (distance <= high) if high is not None else inside
    assert torch.equal(inside, pattern.dense(n, m))


def test_what_is_no_band_has_none():
    no_bands = [
        Causal() | Window(1, 1), Causal() & KeyLengths((3,)), KeyLengths((3,)), Prefix(2), Segments(((0,),)),
        Neighbourhood((1,)), Prefix(2) & Window(1, 1),
    ]  # fmt: skip
    for pattern in no_bands:
        assert pattern.band(N, M) is None
    assert Causal().band(N, M) == Band(None, 2)
    assert Window(1, 2).band(N, M) == Band(1, 4)


SELECTABLE = [
    KeyLengths((2, 5, 3)),
    Prefix((0, 4, 2)),
    Segments(((0, 0, 1), (1, 1, 2), (3, 3, 3)), ((0, 1, 1), (1, 2, 2), (3, 3, 4))),
    Segments(((0, 0, 1), (1, 1, 2), (3, 3, 3))),
    Causal() & KeyLengths((2, 1, 3)),
    Prefix((0, 4, 2)) | (Window(0, 0) & KeyLengths((1, 2, 3))),
]


@pytest.mark.parametrize("pattern", SELECTABLE, ids=repr)
def test_select_is_rows_of_the_whole(pattern):
    m = 3 if "Segments" in repr(pattern) else 5
    picked = pattern.select([2, 0, 2])
    assert type(picked) is type(pattern)
    assert torch.equal(picked.dense(3, m), pattern.dense(3, m)[[2, 0, 2]])


def test_select_leaves_what_is_the_same_for_all():
    for pattern in (Causal(), Window(1, 2), Prefix(3), Neighbourhood((1,)), Causal() & Prefix(3)):
        assert pattern.select([5, 1]) == pattern


@pytest.mark.parametrize("pattern", SELECTABLE, ids=repr)
def test_one_pair_at_a_time(pattern):
    """As FlexAttention asks: numbers of sequence, query and key."""
    m = 3 if "Segments" in repr(pattern) else 5
    dense = pattern.dense(3, m)[:, 0]
    found = [
        [
            [
                bool(pattern.allowed(Pairs(*map(torch.tensor, (i, j)), 3, m, sequence=torch.tensor(b))))
                for j in range(m)
            ]
            for i in range(3)
        ]
        for b in range(3)
    ]
    assert found == dense.tolist()


Q_LENGTHS, K_LENGTHS = (3, 5, 0, 3), (4, 4, 2, 7)
OF_EACH = {
    "lengths": KeyLengths((1, 4, 0, 5)),
    "prefix": Causal() & Prefix((2, 0, 2, 3)),
    "segments": Segments(
        ((0, 1, 1), (2, 2, 0, 0, 0), (), (1, 1, 1)),
        ((0, 0, 1, 1), (0, 0, 2, 2), (5, 5), (1, 0, 1, 0, 1, 0, 1)),
    ),
    "neighbours": Neighbourhood((1, 2)) & Prefix((4, 4, 4, 6)),
}


@pytest.mark.parametrize("backend", ["cpu", "sdpa", "math"])
@pytest.mark.parametrize("mask", OF_EACH.values(), ids=OF_EACH.keys())
def test_packed_each_sequence_has_its_own(mask, backend):
    q, k, v = (torch.randn(sum(n), 2, 11) for n in (Q_LENGTHS, K_LENGTHS, K_LENGTHS))
    of_q, of_k = torch.randint(0, 5, (len(q), 2)), torch.randint(0, 5, (len(k), 2))
    out = attend(
        q,
        k,
        v,
        mask=mask,
        q_lengths=Q_LENGTHS,
        k_lengths=K_LENGTHS,
        q_coords=of_q,
        k_coords=of_k,
        backend=backend,
    )
    rows = zip(*(x.split(n) for x, n in ((q, Q_LENGTHS), (k, K_LENGTHS), (v, K_LENGTHS))), strict=True)
    coords = zip(of_q.split(Q_LENGTHS), of_k.split(K_LENGTHS), strict=True)
    for index, (got, row, (a, b)) in enumerate(zip(out.split(Q_LENGTHS), rows, coords, strict=True)):
        alone = mask.select([index]).dense(len(a), len(b), query_coords=a, key_coords=b)
        want = attend(*(x.transpose(0, 1)[None] for x in row), mask=alone, backend="math")
        torch.testing.assert_close(got, want[0].transpose(0, 1))


@pytest.mark.parametrize("backend", ["cpu", "sdpa", "math"])
def test_packed_neighbourhood_counts_where_no_coordinates_are_given(backend):
    x = torch.randn(11, 2, 7)
    counted = attend(x, x, x, mask=Neighbourhood((1,)), q_lengths=[4, 7], backend=backend)
    window = attend(x, x, x, mask=Window(1, 1), q_lengths=[4, 7], backend="math")
    torch.testing.assert_close(counted, window)


def test_a_key_length_beyond_its_own_sequence_is_refused():
    x = torch.randn(7, 2, 5)
    with pytest.raises(ValueError, match=r"lengths must not exceed the 3 keys: got 4"):
        attend(x, x, x, mask=KeyLengths((4, 4)), q_lengths=[4, 3])
