"""Rotary positions depend on differences alone; absolute positions follow their formulas."""

from __future__ import annotations

import math

import pytest
import torch

from mmattn import LearnedPositions, RotaryPositions, SinusoidalPositions, TokenBatch

H, K = 3, 14


def product(rotary, q, k, q_place, k_place) -> torch.Tensor:
    """``[H]``: products of one query and one key at their places."""
    turned = [
        rotary.rotate(x[None], rotary.tables(torch.tensor([place]), K))
        for x, place in ((q, q_place), (k, k_place))
    ]
    return (turned[0] * turned[1]).sum(-1)[0]


@pytest.mark.parametrize(
    ("q_place", "k_place", "shift"),
    [([3], [17], [101]), ([5, 2], [1, 7], [31, 53]), ([1, 2, 3], [3, 2, 7], [11, 0, 5])],
    ids=["1-D", "2-D", "3-D"],
)
def test_products_depend_on_the_difference_alone(q_place, k_place, shift):
    rotary, (q, k) = RotaryPositions(base=100.0), torch.randn(2, H, K)
    here = product(rotary, q, k, q_place, k_place)
    there = product(
        rotary, q, k, [a + s for a, s in zip(q_place, shift, strict=True)],
        [a + s for a, s in zip(k_place, shift, strict=True)],
    )  # fmt: skip
    torch.testing.assert_close(here, there, rtol=1e-4, atol=1e-4)
    for axis in range(len(q_place)):
        moved = list(k_place)
        moved[axis] += 1
        assert (product(rotary, q, k, q_place, moved) - here).abs().min() > 1e-3


def test_rotation_of_each_pair_by_a_plain_loop():
    rotary, x = RotaryPositions(base=50.0), torch.randn(5, H, K)
    coords = torch.randint(0, 13, (5, 2))
    out = rotary.rotate(x, rotary.tables(coords, K))
    pairs = K // 2 // 2  # of each axis; the seventh pair is left over
    want = x.clone()
    for t in range(5):
        for p in range(2 * pairs):
            axis, step = divmod(p, pairs)
            angle = float(coords[t, axis]) * 50.0 ** -(step / pairs)
            for h in range(H):
                a, b = x[t, h, 2 * p], x[t, h, 2 * p + 1]
                want[t, h, 2 * p] = a * math.cos(angle) - b * math.sin(angle)
                want[t, h, 2 * p + 1] = a * math.sin(angle) + b * math.cos(angle)
    torch.testing.assert_close(out, want)
    assert torch.equal(out[..., 12:], x[..., 12:])


def test_rotation_keeps_norms_dtype_and_shape():
    rotary = RotaryPositions()
    coords = torch.arange(7)[:, None]
    tables = rotary.tables(coords, K)
    assert tables.shape == (7, K // 2)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        x = torch.randn(2, 7, H, K).to(dtype)
        out = rotary.rotate(x, tables)
        assert out.dtype == dtype
        assert out.shape == x.shape
        torch.testing.assert_close(out.norm(dim=-1), x.norm(dim=-1), rtol=0.02, atol=0.02)
    assert torch.equal(rotary.rotate(x, rotary.tables(torch.zeros(7, 1), K)), x)


def test_rotary_has_no_state():
    assert not RotaryPositions().state_dict()
    assert repr(RotaryPositions(50)) == "RotaryPositions(base=50)"


@pytest.mark.parametrize("axes", [1, 2])
def test_sinusoidal_by_a_plain_loop(axes):
    width, base = 20, 70.0
    coords = torch.randint(0, 13, (5, axes))
    values = torch.randn(5, width)
    out = SinusoidalPositions(width, base)(TokenBatch(values, [2, 3], coords))
    count = width // (2 * axes)
    want = values.clone()
    for t in range(5):
        for axis in range(axes):
            for i in range(count):
                angle = float(coords[t, axis]) / base ** (i / count)
                want[t, 2 * count * axis + i] += math.sin(angle)
                want[t, 2 * count * axis + count + i] += math.cos(angle)
    torch.testing.assert_close(out.values, want)
    assert out.sizes == (2, 3)


def test_learned_table():
    learned = LearnedPositions([3, 5], 7)
    coords = torch.tensor([[0, 4], [2, 1], [2, 1]])
    values = torch.randn(3, 7)
    out = learned(TokenBatch(values, [1, 2], coords)).values
    torch.testing.assert_close(out - values, torch.stack([learned.table[0, 4], *2 * [learned.table[2, 1]]]))
    out.sum().backward()
    assert learned.table.grad.sum(-1).nonzero().tolist() == [[0, 4], [2, 1]]
    assert learned.table.grad[2, 1].tolist() == [2.0] * 7


@pytest.mark.parametrize(
    ("text", "make"),
    [
        (r"base must be above 1: got 1", lambda: RotaryPositions(1)),
        (r"got head_dim=7, axes=1", lambda: RotaryPositions().tables(torch.zeros(5, 1), 7)),
        (r"got head_dim=2, axes=2", lambda: RotaryPositions().tables(torch.zeros(5, 2), 2)),
        (
            r"embed_dim must be a multiple of 2 \* axes: got embed_dim=14, axes=2",
            lambda: SinusoidalPositions(14)(TokenBatch(torch.zeros(5, 14), [5], torch.zeros(5, 2))),
        ),
        (
            r"coords must have 2 axes for a table \[3, 5\]: got 1",
            lambda: LearnedPositions([3, 5], 7)(TokenBatch(torch.zeros(2, 7), [2])),
        ),
        (
            r"positions must lie in the table \[3\]: got up to \[4\]",
            lambda: LearnedPositions([3], 7)(TokenBatch(torch.zeros(5, 7), [5])),
        ),
        (
            r"positions must lie in the table \[3\]",
            lambda: LearnedPositions([3], 7)(TokenBatch(torch.zeros(1, 7), [1], torch.tensor([[-1]]))),
        ),
    ],
)
def test_errors(text, make):
    with pytest.raises(ValueError, match=text):
        make()
