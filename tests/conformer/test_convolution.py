"""The convolution over packed clips: torch's own convolution of each clip alone is the truth."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmattn import TokenBatch
from mmattn.conformer import Past, TimeConvolution

D = 12
KERNELS = [(1, False), (3, False), (15, False), (1, True), (4, True), (15, True)]


def alone(module: TimeConvolution, clip: torch.Tensor) -> torch.Tensor:
    """One clip ``[n, D]``, as the paper has it."""
    if not len(clip):
        return clip
    value, gate = module.pointwise_in(clip).chunk(2, dim=-1)
    x = (value * gate.sigmoid()).T[None]
    reach = module.kernel_size - 1
    pads = (reach, 0) if module.causal else (reach // 2, reach // 2)
    x = F.conv1d(F.pad(x, pads), module.depthwise.weight, module.depthwise.bias, groups=D)[0].T
    return module.pointwise_out(F.silu(module.norm(x)))


@pytest.mark.parametrize(("kernel_size", "causal"), KERNELS)
def test_each_clip_is_convolved_as_if_alone(tokens, kernel_size, causal):
    module = TimeConvolution(D, kernel_size, causal).double()
    values = tokens.values.double().requires_grad_()
    out = module(tokens.replace(values))
    want = torch.cat([alone(module, clip) for clip in values.split(tokens.sizes)])
    torch.testing.assert_close(out, want, rtol=1e-9, atol=1e-9)
    weights = torch.randn_like(out)
    sources = [values, *module.parameters()]
    found = torch.autograd.grad(out, sources, weights)
    for a, b in zip(found, torch.autograd.grad(want, sources, weights), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("causal", [False, True])
def test_dense_rows_are_convolved_as_packed_ones(causal):
    module = TimeConvolution(D, 5, causal)
    dense = torch.randn(3, 8, D)
    packed = module(TokenBatch(dense.flatten(0, 1), [8, 8, 8]))
    torch.testing.assert_close(module(dense).flatten(0, 1), packed, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kernel_size", [1, 4, 7])
@pytest.mark.parametrize("sizes", [[23], [1] * 23, [2, 11, 1, 9], [6, 17]])
def test_a_stream_in_chunks_is_the_whole(kernel_size, sizes):
    module = TimeConvolution(D, kernel_size, causal=True)
    x = torch.randn(2, 23, D)
    past = Past(module.look_back)
    parts = [module(chunk, past) for chunk in x.split(sizes, dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), module(x), rtol=1e-5, atol=1e-6)
    assert past.rows is not None
    assert past.rows.shape == (2, kernel_size - 1, D)
    assert past.rows.untyped_storage().nbytes() == 2 * (kernel_size - 1) * D * 4


def test_causal_looks_at_nothing_later():
    module = TimeConvolution(D, 5, causal=True)
    x = torch.randn(1, 9, D)
    changed = x.clone()
    changed[:, 6:] += 1.0
    moved = (module(changed) - module(x)).abs().amax((0, 2)) > 1e-6
    assert moved.tolist() == [False] * 6 + [True] * 3


def test_nothing_but_its_own_token_enters_the_norm():
    module = TimeConvolution(D, 1)
    x = torch.randn(1, 9, D)
    changed = x.clone()
    changed[:, 4] *= 5.0
    moved = (module(changed) - module(x)).abs().amax((0, 2)) > 1e-6
    assert moved.nonzero().flatten().tolist() == [4]


def test_the_layout_made_in_inference_can_be_used_in_training(tokens):
    module = TimeConvolution(D, 3)
    with torch.inference_mode():
        module(tokens)
    module(tokens).sum().backward()
    assert module.depthwise.weight.grad is not None


@pytest.mark.parametrize("causal", [False, True])
def test_bfloat16_autocast(tokens, causal):
    module = TimeConvolution(D, 7, causal)
    want = module(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        out = module(tokens)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), want, rtol=0.05, atol=0.03)
    out.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


def test_another_norm():
    assert isinstance(TimeConvolution(D, norm=nn.RMSNorm).norm, nn.RMSNorm)


def test_errors(tokens):
    with pytest.raises(ValueError, match=r"odd unless causal: got kernel_size=4, causal=False"):
        TimeConvolution(D, 4)
    with pytest.raises(ValueError, match=r"at least 1, .* got kernel_size=0, causal=True"):
        TimeConvolution(D, 0, causal=True)
    with pytest.raises(ValueError, match="a past is for dense tokens and a causal convolution"):
        TimeConvolution(D, 3)(torch.randn(1, 2, D), Past(2))
    with pytest.raises(ValueError, match="a past is for dense tokens and a causal convolution"):
        TimeConvolution(D, 3, causal=True)(tokens, Past(2))
