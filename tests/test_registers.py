"""Registers stand in front of every sequence, and leave it as it was."""

from __future__ import annotations

import pytest
import torch

from mmattn import MultiHeadAttention, Registers, RotaryPositions, TokenBatch

LENGTHS = [3, 0, 5, 2]


def make() -> tuple[Registers, TokenBatch]:
    torch.manual_seed(0)
    coords = torch.randint(1, 9, (10, 2))
    return Registers(2, 7), TokenBatch(torch.randn(10, 7), LENGTHS, coords)


def test_they_stand_in_front():
    registers, tokens = make()
    longer = registers(tokens)
    assert longer.sizes == (5, 2, 7, 4)
    for one, before in zip(longer.split(), tokens.split(), strict=True):
        assert torch.equal(one.values[:2], registers.table)
        assert torch.equal(one.values[2:], before.values)
        assert not one.coords[:2].any()
        assert torch.equal(one.coords[2:], before.coords)


def test_and_go_again():
    registers, tokens = make()
    back = registers.remove(registers(tokens))
    assert back.sizes == tokens.sizes
    assert torch.equal(back.values, tokens.values)
    assert torch.equal(back.coords, tokens.coords)


def test_dense_is_packed():
    registers, _ = make()
    x = torch.randn(3, 5, 7)
    assert torch.equal(registers(x).flatten(0, 1), registers(TokenBatch.from_padded(x)).values)
    assert torch.equal(registers.remove(registers(x)), x)


def test_they_learn_and_are_not_turned():
    registers = Registers(2, 8)
    attention = MultiHeadAttention(8, 2, positions=RotaryPositions())
    tokens = registers(TokenBatch(torch.randn(10, 8), LENGTHS))
    q, _, _ = attention.project(tokens)
    plain = MultiHeadAttention(8, 2)
    plain.load_state_dict(attention.state_dict())
    torch.testing.assert_close(q[:2], plain.project(tokens).q[:2])
    attention(tokens).values.sum().backward()
    assert registers.table.grad.abs().sum() > 0


def test_none_is_refused():
    with pytest.raises(ValueError, match="count must be at least 1: got 0"):
        Registers(0, 8)
