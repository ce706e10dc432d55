"""Absolute positions follow their formulas; rotary positions and biases are tested in positions/."""

from __future__ import annotations

import math

import pytest
import torch

from mmattn import LearnedPositions, SinusoidalPositions, TokenBatch


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
