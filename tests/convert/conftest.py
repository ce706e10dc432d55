"""What the tests of all conversions share."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn


@pytest.fixture(autouse=True)
def _double():
    """Double precision, so that what is equal to rounding is equal to 1e-12, and a seed."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def randomise() -> Callable[[nn.Module], nn.Module]:
    """All parameters drawn anew, zero biases and norms of ones among them, so that none can be left out unnoticed."""

    def draw(module: nn.Module) -> nn.Module:
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(torch.randn_like(parameter) * 0.5)
        return module

    return draw


@pytest.fixture
def assert_faithful():
    """A converted module has nothing in common with its source, draws no random number and keeps the state."""

    def check(convert: Callable[[nn.Module], nn.Module], source: nn.Module) -> None:
        before, state = torch.get_rng_state(), copy.deepcopy(source.state_dict())
        result = convert(source)
        assert torch.equal(torch.get_rng_state(), before), "the global random state has moved"
        assert not {p.data_ptr() for p in result.parameters()} & {p.data_ptr() for p in source.parameters()}
        assert not {id(p) for p in result.modules()} & {id(p) for p in source.modules()}
        assert all(p.device.type == "cpu" and p.requires_grad for p in result.parameters())
        with torch.no_grad():
            for parameter in result.parameters():
                parameter.zero_()
        assert_same_state(source.state_dict(), state)
        for mode in (True, False):
            assert {part.training for part in convert(source.train(mode)).modules()} == {mode}
        frozen = convert(copy.deepcopy(source).requires_grad_(False))
        assert not any(p.requires_grad for p in frozen.parameters())
        half = convert(copy.deepcopy(source).to(torch.bfloat16))
        assert {p.dtype for p in half.parameters()} == {torch.bfloat16}

    return check


@pytest.fixture
def same_state():
    return assert_same_state


def assert_same_state(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert list(one) == list(other)
    for name, value in one.items():
        assert value.dtype == other[name].dtype
        assert torch.equal(value, other[name]), name


@pytest.fixture
def close():
    """Equal to the rounding of doubles, or of what a library computes in less whatever it is given."""

    def check(one: Tensor, other: Tensor, tolerance: float = 1e-12) -> None:
        torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)

    return check
