"""Cross-entropy from features is torch's own, gradients included."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from mmattn.translation import linear_cross_entropy, loss

T, D, V = 23, 5, 13


def inputs(dtype=torch.float64):
    hidden, weight, bias = (torch.randn(*shape, dtype=dtype) for shape in ((T, D), (V, D), (V,)))
    return [x.requires_grad_() for x in (hidden, weight, bias)], torch.randint(0, V, (T,))


@pytest.mark.parametrize("chunk", [1024, 7])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_it_is_torchs_cross_entropy(monkeypatch, chunk, smoothing):
    monkeypatch.setattr(loss, "_CHUNK", chunk)
    parts, labels = inputs()
    ours = linear_cross_entropy(*parts, labels, smoothing)
    theirs = F.cross_entropy(F.linear(*parts), labels, label_smoothing=smoothing)
    torch.testing.assert_close(ours, theirs)
    found, wanted = (torch.autograd.grad(3 * value, parts) for value in (ours, theirs))
    torch.testing.assert_close(found, wanted)
    with torch.no_grad():
        torch.testing.assert_close(linear_cross_entropy(*parts, labels, smoothing), theirs)


def test_what_needs_no_gradient_gets_none():
    parts, labels = inputs()
    parts[0].requires_grad_(False)
    linear_cross_entropy(*parts, labels).backward()
    assert parts[0].grad is None
    assert parts[1].grad is not None


def test_autocast_rounds_the_products_alone():
    parts, labels = inputs(torch.float32)
    exact = linear_cross_entropy(*parts, labels, 0.1)
    wanted = torch.autograd.grad(exact, parts)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = linear_cross_entropy(*parts, labels, 0.1)
    found = torch.autograd.grad(rounded, parts)
    assert rounded.dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0.01, atol=0.0)
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == torch.float32
        assert not torch.equal(one, other)
        assert (one - other).norm() < 0.02 * other.norm()


def test_a_true_id_without_any_probability_leaves_the_loss_finite():
    hidden = torch.tensor([[400.0]], requires_grad=True)
    weight, bias = torch.tensor([[1.0], [-1.0]]), torch.zeros(2)
    value = linear_cross_entropy(hidden, weight, bias, torch.tensor([1]))
    (gradient,) = torch.autograd.grad(value, hidden)
    assert value.isfinite()
    assert value > 80
    torch.testing.assert_close(gradient, torch.tensor([[2.0]]))


def test_errors():
    parts, labels = inputs()
    with pytest.raises(ValueError, match=r"^label_smoothing must lie in \[0, 1\): got 1.0$"):
        linear_cross_entropy(*parts, labels, 1.0)
    with pytest.raises(ValueError, match=r"^hidden must hold at least one token: got none$"):
        linear_cross_entropy(parts[0][:0], *parts[1:], labels[:0])
