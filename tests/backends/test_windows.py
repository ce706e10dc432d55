"""Windows in blocks on the cpu backend: equal to the drawn mask, and linear in the length."""

from __future__ import annotations

import pytest
import torch

from mmattn import Causal, Neighbourhood, Window, attend
from mmattn.backends import cpu as cpu_backend
from mmattn.backends.cpu import layouts

BLOCK = cpu_backend.BLOCK


@pytest.fixture
def blocks(monkeypatch):
    """How many calls ran in blocks."""
    seen = []
    original = layouts.Blocks.cut_queries

    def counted(self, x):
        seen.append(self.blocks)
        return original(self, x)

    monkeypatch.setattr(layouts.Blocks, "cut_queries", counted)
    return seen


def both(n: int, m: int, mask, poison: float = 0.0, dtype=torch.float64, scale=None):
    """Results and gradients in blocks and by the drawn mask; what nobody sees holds ``poison``."""
    tensors = [torch.randn(2, h, length, 5, dtype=dtype) for h, length in ((2, n), (1, m), (1, m))]
    drawn = mask.dense(n, m)
    if poison:
        tensors[0][:, :, ~drawn.any(1)] = poison
        for x in tensors[1:]:
            x[:, :, ~drawn.any(0)] = poison
    grad, found = torch.randn(2, 2, n, 5, dtype=dtype), []
    for backend, how in (("cpu", mask), ("math", drawn)):
        leaves = [x.clone().requires_grad_() for x in tensors]
        out = attend(*leaves, mask=how, scale=scale, backend=backend)
        out.backward(grad)
        found.append([out.detach(), *(x.grad for x in leaves)])
    return found


SHAPES = [(BLOCK + 1, BLOCK + 1), (300, 300), (2 * BLOCK, 3 * BLOCK), (300, 211), (200, 517), (517, 200)]
WINDOWS = [(3, 5), (0, 0), (40, 0), (0, 23), (0, 60)]


@pytest.mark.parametrize("align", ["bottom-right", "top-left"])
@pytest.mark.parametrize(("left", "right"), WINDOWS)
@pytest.mark.parametrize(("n", "m"), SHAPES)
def test_equal_to_the_drawn_mask(blocks, n, m, left, right, align):
    mask = Window(left, right, align)
    for got, want in zip(*both(n, m, mask), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    # what sees nothing and what nobody sees is left out
    live, seen = (int(mask.dense(n, m).any(axis).sum()) for axis in (1, 0))
    assert bool(blocks) == (live > BLOCK and BLOCK + left + right <= 0.7 * seen)
    assert all(count == -(-live // BLOCK) for count in blocks)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize(("n", "m", "mask"), [
    (300, 500, Window(3, 3)),
    (300, 500, Window(3, 3, "top-left")),
    (500, 300, Window(3, 0)),
    (500, 300, Window(3, 3, "top-left")),
])  # fmt: skip
def test_what_nobody_sees_is_not_looked_at(blocks, n, m, mask, poison):
    for got, want in zip(*both(n, m, mask, poison), strict=True):
        assert want.isfinite().all()
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    assert blocks


@pytest.mark.parametrize(("n", "m", "mask"), [
    (300, 300, Window(5, 0) & Window(0, 9)),
    (300, 300, Window(9, 9) & Causal()),
    (281, 400, Window(10, 1) & Window(1, 10, "top-left")),
    (281, 250, Window(20, 1) & Window(1, 5, "top-left")),
    (257, 90, Window(1, 12, "top-left") & Causal()),
    (257, 0, Window(1, 12, "top-left")),
    (257, 3, Window(1, 1)),
])  # fmt: skip
def test_bands_that_are_narrow_empty_or_mostly_outside(n, m, mask):
    for got, want in zip(*both(n, m, mask), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


def test_causal_is_a_triangular_mask():
    for n, m in ((150, 150), (90, 150), (150, 90)):
        for mask, shift in ((Causal(), m - n), (Causal("top-left"), 0)):
            triangle = torch.ones(n, m).tril(shift).bool()
            assert torch.equal(mask.dense(n, m), triangle)
            for got, want in zip(*both(n, m, mask), strict=True):
                torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("dtype", "room"), [(torch.float32, 1e-5), (torch.bfloat16, 0.06), (torch.float16, 0.01)]
)
def test_dtypes(blocks, dtype, room):
    for got, want in zip(*both(300, 300, Window(4, 7), dtype=dtype), strict=True):
        assert got.dtype == dtype
        torch.testing.assert_close(got, want, rtol=room, atol=room)
    assert blocks


def test_scale_zero_is_the_mean_of_the_window(blocks):
    for dtype, room in ((torch.float32, 1e-5), (torch.bfloat16, 0.06)):
        for got, want in zip(*both(300, 300, Window(4, 7), dtype=dtype, scale=0.0), strict=True):
            torch.testing.assert_close(got, want, rtol=room, atol=room)
    assert blocks


def test_packed_long_sequences_run_in_blocks(blocks):
    lengths = [300, 20, 300, 300]
    x, mask = torch.randn(sum(lengths), 2, 5, dtype=torch.float64), Window(6, 2)
    out = attend(x, x, x, mask=mask, q_lengths=lengths, backend="cpu")
    torch.testing.assert_close(out, attend(x, x, x, mask=mask, q_lengths=lengths, backend="math"))
    assert blocks == [3, 3]  # the last two together


def test_dropout_in_blocks_keeps_the_window(blocks):
    n, mask = 300, Window(4, 7)
    x = torch.zeros(1, 2, n, n)
    weights = attend(x, x, torch.eye(n).expand(1, 2, n, n), mask=mask, dropout=0.5, backend="cpu")
    drawn = mask.dense(n, n)
    assert not weights[..., ~drawn].any()
    assert (weights[..., drawn] != 0).float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert blocks


def test_a_long_window_stores_no_mask_of_the_whole():
    """40,000 tokens by the drawn mask would need gigabytes."""
    n = 40_000
    q = torch.randn(1, 1, n, 4)
    out = attend(q, q, q, mask=Window(3, 0), backend="cpu")
    tail = attend(q[:, :, -50:], q[:, :, -53:], q[:, :, -53:], mask=Window(3, 0), backend="math")
    torch.testing.assert_close(out[:, :, -50:], tail)


def test_a_neighbourhood_is_no_band_and_still_right(blocks):
    n = 200
    coords = torch.arange(n)[:, None].flip(0)
    x = torch.randn(1, 2, n, 5, dtype=torch.float64)
    mask = Neighbourhood((3,))
    out = attend(x, x, x, mask=mask, q_coords=coords, k_coords=coords, backend="cpu")
    torch.testing.assert_close(out, attend(x, x, x, mask=Window(3, 3).dense(n, n), backend="math"))
    assert not blocks
