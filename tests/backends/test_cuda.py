"""Backends on CUDA against the formula in float64."""

from __future__ import annotations

import pytest
import torch

from mmattn import ALiBi, Causal, KeyLengths, Window, attend, explain

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
H, H_KV, K = 4, 2, 32
LENGTHS = [37, 5, 128, 0, 1]


def agree(backend, tensors, room, **options):
    leaves = [x.clone().requires_grad_() for x in tensors]
    twins = [x.double().requires_grad_() for x in tensors]
    out, want = attend(*leaves, **options, backend=backend), attend(*twins, **options, backend="math")
    grad = torch.randn_like(out)
    out.backward(grad)
    want.backward(grad.double())
    pairs = [(out, want), *((a.grad, b.grad) for a, b in zip(leaves, twins, strict=True))]
    for got, right in pairs:
        torch.testing.assert_close(got.double(), right, rtol=room, atol=room)


@pytest.mark.parametrize("mask", [None, Causal(), Window(3, 0), Window(5, 9)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_varlen(mask, dtype):
    tensors = [torch.randn(sum(LENGTHS), h, K, device="cuda").to(dtype) for h in (H, H_KV, H_KV)]
    assert explain(*tensors, mask=mask, q_lengths=LENGTHS).chosen == "varlen"
    agree("varlen", tensors, 0.05, mask=mask, q_lengths=LENGTHS)


def test_varlen_with_other_keys():
    of_k = [3, 64, 7, 9, 0]
    q, k, v = (
        torch.randn(sum(n), h, K, device="cuda").bfloat16()
        for n, h in ((LENGTHS, H), (of_k, H_KV), (of_k, H_KV))
    )
    agree("varlen", [q, k, v], 0.05, q_lengths=LENGTHS, k_lengths=of_k)


@pytest.mark.parametrize("backend", ["sdpa", "flex", "math"])
@pytest.mark.parametrize("mask", [None, Causal(), Window(3, 7), KeyLengths((0, 99)) & Causal()])
def test_dense(backend, mask):
    tensors = [torch.randn(2, h, 150, K, device="cuda") for h in (H, H_KV, H_KV)]
    agree(backend, tensors, 0.01, mask=mask)


@pytest.mark.parametrize("backend", ["sdpa", "flex"])
def test_bias_and_sinks(backend):
    tensors = [torch.randn(2, h, 150, K, device="cuda") for h in (H, H_KV, H_KV)]
    agree(backend, tensors, 0.01, bias=ALiBi(H).cuda(), sinks=torch.randn(H, device="cuda"), mask=Causal())


def test_auto_on_cuda():
    q = torch.randn(1, H, 300, K, device="cuda")
    assert explain(q, q, q, mask=Window(9, 9)).chosen == "flex"
    assert explain(q, q, q).chosen == "sdpa"
    assert explain(q, q, q).others["cpu"] == "it runs on a CPU, got cuda:0"
