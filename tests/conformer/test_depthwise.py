"""The depthwise convolution against torch's own."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from mmattn.conformer.depthwise import depthwise


@pytest.mark.parametrize(
    ("batch", "length", "width", "size"), [(1, 150, 7, 5), (3, 64, 5, 1), (2, 31, 3, 31), (1, 139, 16, 12)]
)
@pytest.mark.parametrize("with_bias", [True, False])
def test_it_is_a_convolution(batch, length, width, size, with_bias):
    x = torch.randn(batch, length, width, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(width, 1, size, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(width, dtype=torch.float64, requires_grad=True) if with_bias else None
    want = F.conv1d(x.transpose(1, 2), weight, bias, groups=width).transpose(1, 2)
    out = depthwise(x, weight, bias)
    torch.testing.assert_close(out, want)
    sources = [x, weight, *([bias] if bias is not None else [])]
    grad = torch.randn_like(out)
    for ours, theirs in zip(
        torch.autograd.grad(out, sources, grad), torch.autograd.grad(want, sources, grad), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_a_part_of_the_gradients_is_enough():
    x, weight = torch.randn(1, 90, 5, requires_grad=True), torch.randn(5, 1, 3)
    [ours] = torch.autograd.grad(depthwise(x, weight, None).sum(), x)
    [theirs] = torch.autograd.grad(F.conv1d(x.transpose(1, 2), weight, groups=5).sum(), x)
    torch.testing.assert_close(ours, theirs)
    weight = weight.requires_grad_()
    [ours] = torch.autograd.grad(depthwise(x.detach(), weight, None).sum(), weight)
    [theirs] = torch.autograd.grad(F.conv1d(x.detach().transpose(1, 2), weight, groups=5).sum(), weight)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("transposed", [False, True])
def test_gradients_that_lie_otherwise(transposed):
    x, weight = torch.randn(2, 70, 5).double(), torch.randn(5, 1, 4).double().requires_grad_()
    if transposed:
        x = torch.randn(2, 5, 70).double().transpose(1, 2)
    x.requires_grad_()
    depthwise(x, weight, None).sum().backward()  # an expanded gradient
    want = F.conv1d(x.detach().transpose(1, 2), weight, groups=5)
    torch.testing.assert_close(weight.grad, torch.autograd.grad(want.sum(), weight)[0])


def test_bfloat16_sums_in_float32():
    x, weight = torch.randn(1, 4000, 5), torch.randn(5, 1, 3, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = depthwise(x, weight, None)
    assert out.dtype == torch.bfloat16
    [ours] = torch.autograd.grad(out, weight, torch.ones_like(out))
    rounded = x.bfloat16().float()
    want = torch.stack([rounded[0, i : i + 3998].sum(0) for i in range(3)]).T[:, None]
    torch.testing.assert_close(ours, want, rtol=0.01, atol=0.05)


@pytest.mark.parametrize("training", [True, False])
def test_half_precision_ends_where_onednn_does_not(training):
    # torch 2.11's own convolution in bfloat16 never comes back from these shapes, with one thread or with two
    code = """
import torch
from torch.nn import functional as F
from mmattn.conformer.depthwise import depthwise
torch.manual_seed(0)
for width, length, threads in ((16, 64, 1), (144, 270, 2)):
    torch.set_num_threads(threads)
    x, weight, bias = torch.randn(1, length, width), torch.randn(width, 1, 15), torch.randn(width)
    want = F.conv1d(x.transpose(1, 2), weight, bias, groups=width).transpose(1, 2)
    with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(TRAINING):
        out = depthwise(x, weight.requires_grad_(), bias)
    torch.testing.assert_close(out.float(), want, rtol=0.03, atol=0.12)
"""
    subprocess.run([sys.executable, "-c", code.replace("TRAINING", str(training))], check=True, timeout=120)


def test_fewer_tokens_than_the_kernel_have_no_result():
    assert depthwise(torch.randn(2, 3, 5), torch.randn(5, 1, 4), None).shape == (2, 0, 5)


def test_torch_compile_traces_it():
    x, weight = torch.randn(1, 20, 5, requires_grad=True), torch.randn(5, 1, 3, requires_grad=True)
    compiled = torch.compile(depthwise, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, weight, None), depthwise(x, weight, None))


def test_gradients_of_gradients():
    x = torch.randn(2, 9, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 1, 4, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(depthwise, (x, weight, bias))
