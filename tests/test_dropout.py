"""Dropout from random bytes: its rate, scale and gradient, and whole branches."""

from __future__ import annotations

import pytest
import torch

from mmattn.dropout import Dropout, DropPath


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
def test_rate_and_scale_to_the_resolution_of_a_byte(p):
    x = torch.full((211, 499), 3.0)
    out = Dropout(p)(x)
    rate = round(p * 256) / 256
    assert (out == 0).float().mean().item() == pytest.approx(rate, abs=0.006)
    kept = out[out != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 3.0 / (1 - rate)))
    assert out.mean().item() == pytest.approx(3.0, rel=0.03)


def test_all_bytes_of_a_word_are_random_and_independent():
    dropped = Dropout(0.5)(torch.ones(8 * 4001)) == 0
    columns = dropped.reshape(-1, 8).float()
    assert (columns.mean(0) - 0.5).abs().max() < 0.05
    correlations = columns.T.corrcoef() - torch.eye(8)
    assert correlations.abs().max() < 0.1


def test_rates_near_zero_and_one():
    x = torch.randn(997)
    assert torch.equal(Dropout(0.001)(x), x)  # below half a byte step
    assert torch.equal(Dropout(0.0)(x), x)
    out = Dropout(0.9999)(x)
    torch.testing.assert_close(out[out != 0], 256 * x[out != 0])


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 5, 11), (0, 5)])
def test_any_shape(shape):
    x = torch.ones(shape)
    out = Dropout(0.5)(x)
    assert out.shape == shape
    assert set(out.flatten().tolist()) <= {0.0, 2.0}


def test_the_gradient_uses_the_same_mask():
    x = torch.randn(31, 37).t().requires_grad_()  # not contiguous
    out = Dropout(0.3)(x)
    out.sum().backward()
    assert torch.equal(out, x * x.grad)
    assert (x.grad == 0).any()
    assert (x.grad > 1).any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_is_kept(dtype):
    x = torch.ones(997, dtype=dtype, requires_grad=True)
    out = Dropout(0.5)(x)
    out.sum().backward()
    assert out.dtype == x.grad.dtype == dtype
    assert set(out.tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("make", [Dropout, DropPath])
def test_seeds(make):
    args = [torch.randn(101, 3)] + ([torch.ones(101, dtype=torch.long)] if make is DropPath else [])
    module = make(0.5)
    torch.manual_seed(1)
    first, second = module(*args), module(*args)
    torch.manual_seed(1)
    assert torch.equal(module(*args), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("make", [Dropout, DropPath])
def test_identity_outside_training(make):
    x, lengths = torch.randn(11, 3), torch.tensor([4, 7])
    args = (x, lengths) if make is DropPath else (x,)
    assert make(0.9).eval()(*args) is x
    assert make(0.0)(*args) is x


def test_drop_path_drops_whole_sequences():
    lengths = torch.randint(0, 5, (1009,))
    x = torch.ones(int(lengths.sum()), 3)
    out = DropPath(0.2)(x, lengths)
    parts = [part for part in out.split(lengths.tolist()) if len(part)]
    assert all(len(part.unique()) == 1 for part in parts)
    dropped = sum(float(part[0, 0]) == 0 for part in parts) / len(parts)
    assert dropped == pytest.approx(0.2, abs=0.05)
    torch.testing.assert_close(out[out != 0], torch.full_like(out[out != 0], 1.25))


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
def test_errors(p):
    with pytest.raises(ValueError, match=rf"dropout must lie in \[0, 1\): got {p}"):
        Dropout(p)
    with pytest.raises(ValueError, match=rf"drop_path must lie in \[0, 1\): got {p}"):
        DropPath(p)
