"""Dropped weights on the cpu backend: rate, scale, mean, and one mask for both directions."""

from __future__ import annotations

import pytest
import torch

from mmattn import Causal, Window, attend

H, N = 3, 61
each_rate = pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])


def whole(p: float) -> float:
    """The rate that is meant: a multiple of 1/256."""
    return round(p * 256) / 256


def weights(q, k, **options):
    """The weights themselves, dropped and raised: values are unit vectors."""
    unit = torch.eye(k.shape[2], dtype=q.dtype).expand(*k.shape[:3], -1)
    room = k.shape[2] - q.shape[-1]
    q, k = (torch.nn.functional.pad(x, (0, room)) for x in (q, k))
    return attend(q, k, unit, scale=0.4, **options)


def draw(batch=2, dtype=torch.float32, n=N, m=N):
    return torch.randn(batch, H, n, 11).to(dtype), torch.randn(batch, H, m, 11).to(dtype)


@each_rate
def test_rate_and_scale(p):
    q, k = draw(batch=40)
    kept, out = weights(q, k, backend="cpu"), weights(q, k, dropout=p, backend="cpu")
    dropped = out == 0
    count, rate = dropped.numel(), whole(p)
    # four standard deviations of a binomial share: at most 0.003 here, under 1/256
    spread = 4 * (rate * (1 - rate) / count) ** 0.5
    assert spread < 1 / 256
    assert dropped.double().mean().item() == pytest.approx(rate, abs=spread)
    torch.testing.assert_close(out[~dropped], kept[~dropped] / (1 - rate))


def test_neighbours_are_dropped_independently():
    out = weights(*draw(batch=40), dropout=0.5, backend="cpu") == 0
    flat = out.flatten().double() * 2 - 1
    for shift in (1, 2, 4, 8, 64, N, H * N):
        together = (flat[shift:] * flat[:-shift]).mean().item()
        assert abs(together) < 4 / len(flat) ** 0.5


@each_rate
def test_the_mean_of_the_result_is_kept(p):
    q, k = draw(batch=1, n=7, m=13)
    v = torch.randn(1, H, 13, 11)
    many = 4000
    out = attend(*(x.expand(many, -1, -1, -1) for x in (q, k, v)), dropout=p, backend="cpu")
    plain = attend(q, k, v, backend="cpu")[0]
    error = out.std(0) / many**0.5
    assert ((out.mean(0) - plain).abs() < 5 * error + 1e-6).all()


def test_a_rate_below_half_a_step_drops_nothing_and_says_so_in_the_choice():
    q, k = draw()
    torch.testing.assert_close(weights(q, k, dropout=0.001, backend="cpu"), weights(q, k, backend="cpu"))


@pytest.mark.parametrize("packed", [False, True])
def test_the_same_seed_drops_the_same(packed):
    q = torch.randn(12, H, 11)
    options = {"q_lengths": [5, 7]} if packed else {}
    x = q if packed else q.transpose(0, 1)[None]

    def once(seed):
        torch.manual_seed(seed)
        return attend(x, x, x, dropout=0.4, backend="cpu", **options)

    assert torch.equal(once(3), once(3))
    assert not torch.equal(once(3), once(4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mask", [None, Causal(), Window(3, 1)])
def test_backward_uses_the_mask_of_forward(dtype, mask):
    """The mask is read off from a call whose values are unit vectors, and put into the formula."""
    n, p = 17, 0.4
    q, k = draw(batch=2, dtype=dtype, n=n, m=n)
    wide = torch.nn.functional.pad
    q, k = (wide(x, (0, n - 11)).requires_grad_() for x in (q, k))
    v = torch.randn(2, H, n, n).to(dtype).requires_grad_()
    grad = torch.randn(2, H, n, n).to(dtype)
    torch.manual_seed(7)
    unit = torch.eye(n, dtype=dtype).expand(2, H, n, n)
    # zero queries: all weights are alike and none of them underflows
    factors = attend(torch.zeros_like(q), k, unit, mask=mask, dropout=p, backend="cpu").detach() != 0
    torch.manual_seed(7)
    out = attend(q, k, v, mask=mask, dropout=p, backend="cpu")
    out.backward(grad)
    a, b, c = (x.detach().double().requires_grad_() for x in (q, k, v))
    logits = a @ b.mT * n**-0.5
    if mask is not None:
        logits = logits.masked_fill(~mask.dense(n, n), -torch.inf)
    want = (logits.softmax(-1) * factors / (1 - whole(p))) @ c
    want.backward(grad.double())
    # some 20 numbers of order 1 are added up, each with a few roundings
    room = 40 * torch.finfo(dtype).eps
    torch.testing.assert_close(out.double(), want, rtol=room, atol=room)
    for got, right in ((q, a), (k, b), (v, c)):
        torch.testing.assert_close(got.grad.double(), right.grad, rtol=room, atol=room)


def test_packed_and_in_blocks_dropped_weights_are_dropped_in_both_directions():
    """By finite differences, with the same seed for every call."""
    lengths, mask = [140, 3, 9], Window(2, 1)
    q, k, v = (torch.randn(sum(lengths), 1, 2, dtype=torch.float64, requires_grad=True) for _ in range(3))
    grad = torch.randn(sum(lengths), 1, 2, dtype=torch.float64)

    def loss():
        torch.manual_seed(5)
        return (attend(q, k, v, mask=mask, dropout=0.5, q_lengths=lengths, backend="cpu") * grad).sum()

    loss().backward()
    for x in (q, k, v):
        step = torch.randn_like(x)
        slope = (x.grad * step).sum()
        with torch.no_grad():
            x += 1e-6 * step
            above = loss()
            x -= 2e-6 * step
            below = loss()
            x += 1e-6 * step
        torch.testing.assert_close((above - below) / 2e-6, slope, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", ["sdpa", "math"])
def test_the_others_drop_at_torchs_own_rate(backend):
    q, k = draw(batch=40)
    kept, out = weights(q, k, backend=backend), weights(q, k, dropout=0.3, backend=backend)
    dropped = out == 0
    assert dropped.double().mean().item() == pytest.approx(0.3, abs=4 * (0.21 / dropped.numel()) ** 0.5)
    torch.testing.assert_close(out[~dropped], kept[~dropped] / 0.7)
