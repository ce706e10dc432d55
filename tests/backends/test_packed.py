"""Packed calls: no sequence knows of another, on any backend and in any grouping."""

from __future__ import annotations

import pytest
import torch

from benchmarks.properties import BACKENDS, eager_flex
from mmattn import ALiBi, Causal, GridBias, Window, attend
from mmattn.backends.cpu.plans import plan

H, K = 2, 7
each_backend = pytest.mark.parametrize("backend", BACKENDS.values(), ids=BACKENDS.keys())
LENGTHS = {
    "equal": [5, 5, 5],
    "nearly equal": [11, 12, 10, 12, 11],
    "wild": [1, 40, 0, 3, 17, 0, 2],
    "falling": [9, 8, 8, 2, 1],
    "ones": [1] * 6,
    "one": [23],
    "empty": [0, 0],
    "none": [],
}
each_lengths = pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())


@pytest.fixture(autouse=True)
def _eager_flex():
    with eager_flex():
        yield


@each_backend
@each_lengths
@pytest.mark.parametrize("mask", [None, Causal(), Window(1, 2), Window(0, 0) | Causal("top-left")])
def test_each_sequence_alone(backend, lengths, mask):
    q, k, v = (torch.randn(sum(lengths), H, K) for _ in range(3))
    out = attend(q, k, v, mask=mask, q_lengths=lengths, backend=backend)
    assert out.shape == q.shape
    for got, *row in zip(*(x.split(lengths) for x in (out, q, k, v)), strict=True):
        want = attend(*(x.transpose(0, 1)[None] for x in row), mask=mask, backend="math")[0].transpose(0, 1)
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize("mask", [None, Causal(), Window(1, 2), Window(0, 0) | Causal("top-left")])
@pytest.mark.parametrize("backend", ["cpu", "sdpa", "math"])
def test_what_a_neighbour_holds_does_not_matter(backend, mask, poison):
    lengths = [11, 12, 10, 12, 11, 3]
    q, k, v = (torch.randn(sum(lengths), H, K) for _ in range(3))

    def run(third):
        leaves = [x.clone() for x in (q, k, v)]
        for x in leaves:
            x[23:33] = third if third is not None else x[23:33]
            x.requires_grad_()
        out = attend(*leaves, mask=mask, q_lengths=lengths, backend=backend)
        out[list(range(23)) + list(range(33, 59))].square().sum().backward()
        return [x.detach().split(lengths) for x in (out, *(leaf.grad for leaf in leaves))]

    for plain, other in zip(run(None), run(poison), strict=True):
        for index, (a, b) in enumerate(zip(plain, other, strict=True)):
            if index != 2:
                torch.testing.assert_close(a, b)
                assert b.isfinite().all()


@each_backend
@pytest.mark.parametrize("bias", [ALiBi(H), GridBias(H, (9,))], ids=["ALiBi", "GridBias"])
@pytest.mark.parametrize("shuffled", [False, True])
def test_a_function_as_bias_asks_for_the_coordinates_of_each_sequence(backend, bias, shuffled):
    of_q, of_k = [5, 3, 0, 5], [7, 3, 2, 0]
    q, k, v = (torch.randn(sum(n), H, K) for n in (of_q, of_k, of_k))
    coords = [torch.cat([torch.arange(n) for n in lengths])[:, None] for lengths in (of_q, of_k)]
    options = {}
    if shuffled:
        coords = [torch.randint(0, 9, (sum(n), 1)) for n in (of_q, of_k)]
        options = {"q_coords": coords[0], "k_coords": coords[1]}
    with torch.no_grad():
        out = attend(q, k, v, bias=bias, q_lengths=of_q, k_lengths=of_k, **options, backend=backend)
        rows = zip(*(x.split(n) for x, n in zip((q, k, v), (of_q, of_k, of_k), strict=True)), strict=True)
        places = zip(coords[0].split(of_q), coords[1].split(of_k), strict=True)
        for got, row, (a, b) in zip(out.split(of_q), rows, places, strict=True):
            want = attend(*(x.transpose(0, 1)[None] for x in row), bias=bias(a, b), backend="math")
            torch.testing.assert_close(got, want[0].transpose(0, 1))


@pytest.mark.parametrize("form", ["every other feature", "transposed", "expanded", "offset", "reversed"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("backend", ["cpu", "sdpa", "math"])
def test_tensors_that_lie_otherwise_in_memory(backend, packed, form):
    def lay(x):
        if form == "every other feature":
            return torch.stack([x, torch.full_like(x, 99.0)], -1).flatten(-2)[..., ::2]
        if form == "transposed":
            return x.transpose(-1, -2).contiguous().transpose(-1, -2)
        if form == "offset":
            return torch.cat([torch.full_like(x[..., :3], 99.0), x], -1)[..., 3:]
        if form == "reversed":
            return x.transpose(0, 1).contiguous().transpose(0, 1)
        return x[..., :1].expand_as(x)

    shape = (12, H, 8) if packed else (2, H, 12, 8)
    tensors = [torch.randn(shape) for _ in range(3)]
    options = {"q_lengths": [5, 7], "mask": Causal(), "backend": backend} if packed else {"backend": backend}
    laid = [lay(x) for x in tensors]
    for i in range(3):
        mixed = [laid[j] if j == i else x for j, x in enumerate(tensors)]
        got = attend(*mixed, **options)
        torch.testing.assert_close(
            got, attend(*(x.clone(memory_format=torch.contiguous_format) for x in mixed), **options)
        )
        want = attend(*(x.double() for x in mixed), **options | {"backend": "math"})
        torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-5)


@each_lengths
def test_a_plan_holds_every_sequence_once(lengths):
    found = plan(tuple(lengths), tuple(lengths))
    assert sorted(i for group in found.groups for i in group.members) == list(range(len(lengths)))
    for group in found.groups:
        assert group.q_tokens == sum(lengths[i] for i in group.members)
        filled = group.queries * len(group.members) - group.q_tokens
        assert 0.3 * filled < 60 * len(group.members)  # microseconds of the filling and of a call
    if found.q_order is not None:
        assert torch.equal(found.q_order[found.q_back], torch.arange(sum(lengths)))


def test_nearly_equal_lengths_share_a_call_and_others_do_not():
    assert len(plan((11, 12, 10, 12, 11), (11, 12, 10, 12, 11)).groups) == 1
    assert len(plan((11, 12, 10, 12, 11), (11, 12, 10, 12, 11), fill=False).groups) == 3
    assert len(plan((3, 200), (3, 200)).groups) == 2
    assert len(plan((3, 40), (3, 40)).groups) == 1
    assert len(plan((3, 60), (3, 60)).groups) == 2
    assert len(plan((3, 60), (3, 60), half=True).groups) == 1
    assert len(plan((0, 3), (0, 3)).groups) == 2
    assert len(plan((3, 3), (0, 3)).groups) == 2
    assert len(plan((300, 301), (300, 301)).groups) == 2  # long ones are better off alone
    equal = plan((7, 7), (7, 7))
    assert (equal.q_order, equal.groups[0].behind, equal.groups[0].q_slots) == (None, None, None)
