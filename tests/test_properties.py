"""Random shapes, lengths and masks: every backend against its float64 twin, forward and backward."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mmattn import Causal, Pattern, TokenBatch, Window, attend
from mmattn.backends import BACKENDS

NAMES = [backend.name for backend in BACKENDS]
seeds = st.integers(0, 2**31 - 1)
heads = st.sampled_from([(1, 1), (3, 3), (6, 2), (5, 1)])
patterns = st.sampled_from(
    [None, Causal(), Causal("top-left"), Window(2, 0), Window(0, 1) | Causal("top-left")]
)


def run(
    backend: str, dtype: torch.dtype, tensors: list[Tensor], bias: Tensor | None, **options
) -> list[Tensor]:
    """The output and the gradients of q, k, v and the bias."""
    leaves = [x.detach().to(dtype).requires_grad_() for x in tensors + ([] if bias is None else [bias])]
    q, k, v = leaves[:3]
    out = attend(q, k, v, bias=leaves[3] if bias is not None else None, backend=backend, **options)
    (out * torch.linspace(-1, 2, out.numel(), dtype=dtype).reshape(out.shape)).sum().backward()
    return [out, *(x.grad if x.grad is not None else torch.zeros_like(x) for x in leaves)]


def assert_agree(tensors: list[Tensor], bias: Tensor | None, **options) -> None:
    want = run("math", torch.float64, tensors, bias, **options)
    assert all(x.isfinite().all() for x in want)
    for name in NAMES:
        got = run(name, torch.float32, tensors, bias, **options)
        for one, other in zip(got, want, strict=True):
            torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-4)


@given(
    seeds, heads, st.integers(1, 3), st.integers(1, 11), st.integers(0, 13), st.integers(1, 9),
    st.sampled_from([None, (1, 1), (1, 0), (0, 1)]), st.booleans(), st.sampled_from([None, 0.0, 0.4]),
)  # fmt: skip
def test_dense(seed, heads, b, n, m, width, mask_axes, with_bias, scale):
    torch.manual_seed(seed)
    h, h_kv = heads
    tensors = [torch.randn(b, h, n, width), torch.randn(b, h_kv, m, width), torch.randn(b, h_kv, m, width)]
    mask = None
    if mask_axes is not None:
        mask = torch.rand(b if mask_axes[0] else 1, h if mask_axes[1] else 1, n, m) < 0.5
        mask[:, :, 0] = False  # a query without any key
    bias = torch.randn(h, n, m) if with_bias else None
    assert_agree(tensors, bias, mask=mask, scale=scale)
    if mask is not None:
        for name in NAMES:
            out, q_grad, *_ = run(name, torch.float32, tensors, bias, mask=mask, scale=scale)
            assert not out[:, :, 0].any()
            assert not q_grad[:, :, 0].any()


lengths = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 11)), min_size=1, max_size=5)


@given(seeds, heads, lengths, st.integers(1, 9), patterns, st.booleans())
def test_packed(seed, heads, lengths, width, mask: Pattern | None, with_bias):
    torch.manual_seed(seed)
    h, h_kv = heads
    of_q, of_k = [n for n, _ in lengths], [m for _, m in lengths]
    tensors = [
        torch.randn(sum(of_q), h, width),
        torch.randn(sum(of_k), h_kv, width),
        torch.randn(sum(of_k), h_kv, width),
    ]
    bias = torch.randn(h, 7, 11) if with_bias else None
    assert_agree(tensors, bias, mask=mask, q_lengths=of_q, k_lengths=of_k)


@given(seeds, lengths, st.integers(1, 7))
def test_packed_sequences_are_alone(seed, lengths, width):
    torch.manual_seed(seed)
    of_q, of_k = [n for n, _ in lengths], [m for _, m in lengths]
    q, k, v = (torch.randn(sum(n), 3, width) for n in (of_q, of_k, of_k))
    for name in NAMES:
        whole = attend(q, k, v, q_lengths=of_q, k_lengths=of_k, backend=name)
        parts = zip(whole.split(of_q), q.split(of_q), k.split(of_k), v.split(of_k), strict=True)
        for got, *alone in parts:
            want = attend(*(x.transpose(0, 1)[None] for x in alone), backend=name)[0].transpose(0, 1)
            torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", NAMES)
def test_gradcheck(backend):
    q, k, v = (
        torch.randn(1, h, n, 3, dtype=torch.float64, requires_grad=True) for h, n in ((2, 5), (1, 4), (1, 4))
    )
    bias = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(5, 4) < 0.6
    mask[2] = False

    def call(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        return attend(q, k, v, mask=mask, bias=bias, backend=backend)

    assert torch.autograd.gradcheck(call, (q, k, v, bias))


@pytest.mark.parametrize("backend", NAMES)
@pytest.mark.parametrize("mask", [None, Causal("top-left")])
def test_gradcheck_packed(backend, mask):
    of_q, of_k = [2, 3, 0, 1, 3, 2], [4, 5, 2, 0, 5, 3]
    q = torch.randn(sum(of_q), 2, 3, dtype=torch.float64, requires_grad=True)
    k, v = (torch.randn(sum(of_k), 1, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(q, k, v, mask=mask, q_lengths=of_q, k_lengths=of_k, backend=backend)

    assert torch.autograd.gradcheck(call, (q, k, v))


@given(seeds, st.lists(st.integers(0, 7), max_size=5), st.data())
def test_token_batches_survive_every_form(seed, sizes, data):
    torch.manual_seed(seed)
    batch = TokenBatch(torch.randn(sum(sizes), 3), sizes, torch.randint(0, 99, (sum(sizes), 2)))
    padded, mask = batch.to_padded()
    back = TokenBatch.from_padded(padded, mask=mask)
    assert back.sizes == batch.sizes
    assert torch.equal(back.values, batch.values)
    order = data.draw(st.permutations(range(len(sizes))))
    inverse = sorted(range(len(sizes)), key=list(order).__getitem__)
    again = batch.select(order).select(inverse)
    assert again.sizes == batch.sizes
    assert torch.equal(again.values, batch.values)
    assert torch.equal(again.coords, batch.coords)
    if sizes:
        joined = TokenBatch.concat(batch.split())
        assert joined.sizes == batch.sizes
        assert torch.equal(joined.coords, batch.coords)
