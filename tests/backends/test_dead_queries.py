"""A query without any key gives zeros and no gradients, whether mask, bias or both take its keys away."""

from __future__ import annotations

import pytest
import torch

from mmattn import Causal, KeyLengths, Prefix, Segments, Window, attend

each_that_trains = pytest.mark.parametrize("backend", ["cpu", "sdpa", "math"])
H, N, K = 2, 5, 3
MASKS = {
    "none": None,
    "causal": Causal(),
    "window": Window(1, 1),
    "all": Window(99, 99),
    "lengths": KeyLengths((4,)),
    "prefix": Prefix(4),
    "tensor": torch.ones(N, N) > 0,
}


def with_holes() -> torch.Tensor:
    """All that query 2 could see is taken away by the bias in head 1, with any of the masks."""
    bias = torch.randn(H, N, N, dtype=torch.float64)
    bias[1, 2, :4] = -torch.inf
    bias[0, 3, 1] = -torch.inf
    return bias


@each_that_trains
@pytest.mark.parametrize("grad_of_bias", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
def test_by_mask_and_bias_together(mask, packed, grad_of_bias, backend):
    if packed and isinstance(mask, torch.Tensor):
        pytest.skip("a packed call takes patterns")
    q, k, v = (torch.randn(1, H, N, K, dtype=torch.float64, requires_grad=True) for _ in range(3))
    bias = with_holes()
    if mask is None or mask is MASKS["all"] or mask is MASKS["tensor"]:
        bias[1, 2] = -torch.inf
    seen = bias > -torch.inf
    if mask is not None:
        seen = seen & (mask if isinstance(mask, torch.Tensor) else mask.dense(N, N))
    assert not seen[..., 1, 2, :].any()
    bias.requires_grad_(grad_of_bias)
    if packed:
        rows = [x[0].transpose(0, 1) for x in (q, k, v)]
        out = attend(*rows, mask=mask, bias=bias, q_lengths=[N], backend=backend).transpose(0, 1)[None]
    else:
        out = attend(q, k, v, mask=mask, bias=bias, backend=backend)
    logits = (q @ k.mT * K**-0.5 + bias.detach().nan_to_num(neginf=0)).masked_fill(~seen, -1e9)
    want = (logits.softmax(-1) * seen) @ v
    assert not out[0, 1, 2].any()
    torch.testing.assert_close(out, want)
    grad = torch.randn_like(out)
    found = torch.autograd.grad(out, (q, k, v), grad, retain_graph=True)
    for got, right in zip(found, torch.autograd.grad(want, (q, k, v), grad), strict=True):
        torch.testing.assert_close(got, right)
    assert not found[0][0, 1, 2].any()
    if grad_of_bias:
        (of_bias,) = torch.autograd.grad(out, bias, grad)
        assert of_bias.isfinite().all()
        assert not of_bias[1, 2].any()
        assert not of_bias[~seen.view(H, N, N)].any()


@each_that_trains
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("n", "m", "mask"), [
    (5, 9, Causal("top-left")),
    (9, 5, Causal()),
    (9, 5, Window(1, 1)),
    (5, 9, Window(1, 1, "top-left")),
    (5, 9, Prefix(4)),
    (5, 9, Prefix((0,))),
    (5, 9, KeyLengths((3,)) & Causal()),
])  # fmt: skip
def test_what_nobody_sees_may_be_anything(n, m, mask, packed, poison, backend):
    q, k, v = (torch.randn(1, H, length, K, dtype=torch.float64) for length in (n, m, m))
    drawn = mask.dense(n, m).reshape(n, m)
    grad, found = torch.randn(1, H, n, K, dtype=torch.float64), []
    for filled in (0.0, poison):
        leaves = [x.clone() for x in (q, k, v)]
        leaves[0][:, :, ~drawn.any(1)] = filled
        for x in leaves[1:]:
            x[:, :, ~drawn.any(0)] = filled
        leaves = [x.requires_grad_() for x in leaves]
        if packed:
            rows = [x[0].transpose(0, 1) for x in leaves]
            out = attend(*rows, mask=mask, q_lengths=[n], k_lengths=[m], backend=backend).transpose(0, 1)[
                None
            ]
        else:
            out = attend(*leaves, mask=mask, backend=backend)
        found.append((out, *torch.autograd.grad(out, leaves, grad)))
    for clean, poisoned in zip(*found, strict=True):
        torch.testing.assert_close(poisoned, clean)


def test_no_sequence_at_all_with_patterns_of_each():
    x = torch.zeros(0, H, N, K)
    for mask in (KeyLengths(()), Prefix(()), Segments(()), Segments((), ())):
        for backend in ("cpu", "sdpa", "math"):
            assert attend(x, x, x, mask=mask, backend=backend).shape == (0, H, N, K)


@pytest.mark.parametrize("backend", ["cpu", "sdpa", "math", "auto"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_lowest_number_of_a_wider_type_makes_no_nan(backend, dtype):
    q, k, v = (torch.randn(1, 2, n, 8, dtype=dtype) for n in (3, 5, 5))
    bias = torch.zeros(3, 5)
    bias[0] = torch.finfo(torch.float32).min
    bias[1, 2:] = torch.finfo(torch.float32).min
    out = attend(q, k, v, bias=bias, backend=backend).float()
    # float16 is so narrow that its lowest number does not drown the logits
    even = v.float().mean(2)
    assert (
        out[:, :, 0].abs().max() <= v.abs().max()
        if dtype == torch.float16
        else torch.allclose(out[:, :, 0], even, atol=2e-2)
    )
    alone = attend(q[:, :, 1:2], k[:, :, :2], v[:, :, :2], backend=backend).float()
    assert torch.allclose(out[:, :, 1:2], alone, atol=2e-2)


def test_a_mask_that_is_changed_is_looked_at_again():
    q, k, v = (torch.randn(1, 1, n, 4) for n in (3, 5, 5))
    mask = torch.ones(3, 5, dtype=torch.bool)
    attend(q, k, v, mask=mask, backend="cpu")
    mask[1] = False
    mask[2, 1:] = False
    out = attend(q, k, v, mask=mask, backend="cpu")
    assert torch.equal(out[0, 0, 1], torch.zeros(4))
    assert torch.allclose(out[0, 0, 2], v[0, 0, 0])
    with torch.inference_mode():
        same = torch.ones(3, 5, dtype=torch.bool)
        attend(q, k, v, mask=same, backend="cpu")
        same[2, 1:] = False
        assert torch.allclose(attend(q, k, v, mask=same, backend="cpu")[0, 0, 2], v[0, 0, 0])
