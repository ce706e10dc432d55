"""attend() against the formula written out in float64: dense and packed, on every backend."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks.properties import BACKENDS, eager_flex
from mmattn import ALiBi, Causal, KeyLengths, Window, attend, attention_weights
from mmattn.backends import MathBackend

B, H, H_KV, N, M, K = 2, 6, 3, 5, 7, 11
each_backend = pytest.mark.parametrize("backend", BACKENDS.values(), ids=BACKENDS.keys())
each_that_trains = pytest.mark.parametrize("backend", ["cpu", "sdpa", "math"])


@pytest.fixture(autouse=True)
def _eager_flex():
    with eager_flex():
        yield


def formula(q, k, v, mask=None, bias=None, scale=None, soft_cap=None, sinks=None):
    """One query at a time, in float64; heads repeated by index."""
    q, k, v = (x.detach().double() for x in (q, k, v))
    out = torch.zeros_like(q)
    shape = (*q.shape[:3], k.shape[2])
    mask = torch.ones(shape, dtype=torch.bool) if mask is None else mask.expand(shape)
    bias = torch.zeros(shape) if bias is None else bias.expand(shape)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            g = h // (q.shape[1] // k.shape[1])
            for i in range(q.shape[2]):
                seen = mask[b, h, i].nonzero()[:, 0].tolist()
                if not seen:
                    continue
                logits = [float(q[b, h, i] @ k[b, g, j]) * scale for j in seen]
                if soft_cap is not None:
                    logits = [soft_cap * math.tanh(x / soft_cap) for x in logits]
                logits = [x + float(bias[b, h, i, j]) for x, j in zip(logits, seen, strict=True)]
                weights = [math.exp(x) for x in logits]
                total = sum(weights) + (0.0 if sinks is None else math.exp(float(sinks[h])))
                for j, weight in zip(seen, weights, strict=True):
                    out[b, h, i] += weight / total * v[b, g, j]
    return out.float()


@pytest.fixture
def qkv() -> list[torch.Tensor]:
    return [torch.randn(B, H, N, K), torch.randn(B, H_KV, M, K), torch.randn(B, H_KV, M, K)]


def packed(x: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """``[B, H, N, K]`` to ``[T, H, K]``, the first tokens of each sequence."""
    return torch.cat([x[b, :, :n].transpose(0, 1) for b, n in enumerate(lengths)])


@each_backend
def test_plain(qkv, backend):
    torch.testing.assert_close(attend(*qkv, backend=backend), formula(*qkv))


@each_backend
@pytest.mark.parametrize("shape", [(N, M), (B, 1, 1, M), (B, 1, N, M), (H, N, M), (B, H, N, M), (N, 1), (M,)])
def test_mask_tensors_that_broadcast(qkv, backend, shape):
    mask = torch.rand(shape) < 0.7
    torch.testing.assert_close(attend(*qkv, mask=mask, backend=backend), formula(*qkv, mask=mask))


@each_backend
@pytest.mark.parametrize("mask", [Causal(), Causal("top-left"), Window(1, 2), KeyLengths((3, 7)) & Causal()])
def test_patterns(qkv, backend, mask):
    want = formula(*qkv, mask=mask.dense(N, M))
    torch.testing.assert_close(attend(*qkv, mask=mask, backend=backend), want)


@each_backend
@pytest.mark.parametrize("shape", [(N, M), (H, N, M), (B, H, N, M), (1, H, 1, M)])
def test_bias(qkv, backend, shape):
    bias = torch.randn(shape)
    torch.testing.assert_close(attend(*qkv, bias=bias, backend=backend), formula(*qkv, bias=bias))
    mask = Window(2, 0)
    want = formula(*qkv, bias=bias, mask=mask.dense(N, M))
    torch.testing.assert_close(attend(*qkv, bias=bias, mask=mask, backend=backend), want)


@each_backend
@pytest.mark.parametrize("scale", [0.7, -0.5])
@pytest.mark.parametrize("mask", [None, Causal("top-left")])
def test_scale(qkv, backend, scale, mask):
    want = formula(*qkv, scale=scale, mask=None if mask is None else mask.dense(N, M))
    torch.testing.assert_close(attend(*qkv, scale=scale, mask=mask, backend=backend), want)


def takers(*names):
    return pytest.mark.parametrize("backend", [BACKENDS[name] for name in names], ids=names)


@takers("math", "flex")
def test_soft_cap_comes_before_the_bias(qkv, backend):
    options = {"soft_cap": 0.9, "bias": torch.randn(H, N, M)}
    want = formula(*qkv, **options, mask=Causal().dense(N, M))
    torch.testing.assert_close(attend(*qkv, **options, mask=Causal(), backend=backend), want)


@takers("sdpa", "math", "flex")
@pytest.mark.parametrize("mask", [None, Causal(), Window(0, 1), torch.tensor([1, 1, 0, 0, 1])[:, None] > 0])
@pytest.mark.parametrize("with_bias", [False, True])
def test_sinks_take_weight_from_the_keys(qkv, backend, mask, with_bias):
    sinks, bias = torch.randn(H) * 2, torch.randn(N, M) if with_bias else None
    want = formula(*qkv, sinks=sinks, bias=bias, mask=mask.dense(N, M) if hasattr(mask, "dense") else mask)
    torch.testing.assert_close(attend(*qkv, mask=mask, bias=bias, sinks=sinks, backend=backend), want)


@pytest.mark.parametrize("scale", [None, 0.0])
def test_sinks_by_auto(qkv, scale):
    sinks = torch.randn(H)
    torch.testing.assert_close(
        attend(*qkv, sinks=sinks, scale=scale), formula(*qkv, sinks=sinks, scale=scale)
    )


@each_backend
def test_a_function_of_the_coordinates_as_bias(qkv, backend):
    bias, coords = ALiBi(H), (torch.randint(0, 9, (N, 2)), torch.randint(0, 9, (M, 2)))
    options = {"q_coords": coords[0], "k_coords": coords[1]}
    want = formula(*qkv, bias=bias(*coords))
    torch.testing.assert_close(attend(*qkv, bias=bias, **options, backend=backend), want)
    counted = bias(torch.arange(M - N, M)[:, None], torch.arange(M)[:, None])
    torch.testing.assert_close(attend(*qkv, bias=bias, backend=backend), formula(*qkv, bias=counted))
    of_each = torch.randint(0, 9, (B, N, 2))
    want = formula(*qkv, bias=bias(of_each, coords[1]))
    options["q_coords"] = of_each
    torch.testing.assert_close(attend(*qkv, bias=bias, **options, backend=backend), want)


@each_that_trains
def test_scale_zero_is_the_mean_of_the_allowed_values(qkv, backend):
    q, k, v = (x.requires_grad_() for x in qkv)
    out = attend(q, k, v, scale=0, mask=Causal(), backend=backend)
    values = v.repeat_interleave(H // H_KV, dim=1)
    want = torch.stack([values[:, :, : i + 1 + M - N].mean(2) for i in range(N)], dim=2)
    torch.testing.assert_close(out, want)
    out.square().sum().backward()
    assert not q.grad.any()
    assert not k.grad.any()
    assert v.grad.any()


@each_that_trains
def test_a_query_without_keys_gives_zeros_and_finite_gradients(qkv, backend):
    q, k, v = (x.requires_grad_() for x in qkv)
    mask = torch.ones(N, M, dtype=torch.bool)
    mask[3] = False
    bias = torch.randn(H, N, M)
    bias[2, 1] = -torch.inf
    out = attend(q, k, v, mask=mask, bias=bias.requires_grad_(), backend=backend)
    assert not out[:, :, 3].any()
    assert not out[:, 2, 1].any()
    assert out[:, :, 0].all()
    out.square().sum().backward()
    for x in (q, k, v, bias):
        assert x.grad.isfinite().all()
        assert x.grad.any()
    assert not q.grad[:, :, 3].any()


@each_that_trains
def test_no_keys_at_all(backend):
    q, empty = torch.randn(B, H, N, K, requires_grad=True), torch.randn(B, H, 0, K, requires_grad=True)
    out = attend(q, empty, empty, backend=backend)
    assert torch.equal(out, torch.zeros(B, H, N, K))
    out.sum().backward()
    assert not q.grad.any()
    assert empty.grad.shape == empty.shape


@each_that_trains
def test_float64_stays_float64_in_training(qkv, backend):
    q, k, v = (x.double().requires_grad_() for x in qkv)
    out = attend(q, k, v, backend=backend)
    assert out.dtype == torch.float64
    twin = torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    torch.testing.assert_close(out, twin, rtol=1e-12, atol=1e-12)


@each_backend
@pytest.mark.parametrize("grad", [False, True])
def test_bfloat16(qkv, backend, grad):
    q, k, v = (x.bfloat16().requires_grad_(grad) for x in qkv)
    bias = torch.randn(H, N, M)
    if grad and not isinstance(backend, str):
        pytest.skip("FlexAttention has no backward pass on a CPU")
    out = attend(q, k, v, mask=Causal(), bias=bias, backend=backend)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(
        out.float(), formula(q, k, v, Causal().dense(N, M), bias), rtol=0.05, atol=0.05
    )
    if grad:
        out.sum().backward()
        assert q.grad.dtype == torch.bfloat16
        assert q.grad.any()


@each_backend
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("mask", [None, Causal(), Window(2, 1)])
def test_packed_is_each_sequence_alone(backend, mask, with_bias):
    q_lengths, k_lengths = [3, 5, 0, 5, 2], [7, 2, 3, 2, 0]
    q, k, v = torch.randn(15, H, K), torch.randn(14, H_KV, K), torch.randn(14, H_KV, K)
    bias = torch.randn(H, 5, 7) if with_bias else None
    out = attend(
        q, k, v, mask=mask, bias=bias, q_lengths=q_lengths, k_lengths=k_lengths, backend=backend
    )  # fmt: skip
    assert out.shape == (15, H, K)
    parts = zip(q.split(q_lengths), k.split(k_lengths), v.split(k_lengths), strict=True)
    for got, (a, b, c) in zip(out.split(q_lengths), parts, strict=True):
        n, m = len(a), len(b)
        options = {"mask": None if mask is None else mask.dense(n, m)}
        options["bias"] = None if bias is None else bias[:, :n, :m]
        want = formula(*(x.transpose(0, 1)[None] for x in (a, b, c)), **options)
        torch.testing.assert_close(got, want[0].transpose(0, 1))


@each_backend
def test_packed_is_dense_with_key_lengths(qkv, backend):
    q, k, v = qkv[0], *(x.repeat_interleave(2, 1) for x in qkv[1:])
    lengths = [3, 5]
    out = attend(*(packed(x, lengths) for x in (q, k, v)), q_lengths=lengths, backend=backend)
    dense = attend(q, k, v, mask=KeyLengths(tuple(lengths)), backend=backend)
    torch.testing.assert_close(out, packed(dense, lengths))


def test_packed_lengths_as_tensor_and_no_sequence_at_all():
    x = torch.randn(5, H, K)
    assert torch.equal(attend(x, x, x, q_lengths=torch.tensor([2, 3])), attend(x, x, x, q_lengths=[2, 3]))
    none = torch.zeros(0, H, K)
    assert attend(none, none, none, q_lengths=[]).shape == (0, H, K)


def test_attention_weights(qkv):
    q, k, v = qkv
    mask = Causal() & KeyLengths((0, 7))
    weights = attention_weights(q, k, mask=mask, bias=torch.zeros(H, N, M))
    assert weights.shape == (B, H, N, M)
    assert not weights[0].any()
    torch.testing.assert_close(weights[1].sum(-1), torch.ones(H, N))
    assert not weights[1][:, ~Causal().dense(N, M)].any()
    out = weights @ v.repeat_interleave(H // H_KV, 1)
    torch.testing.assert_close(out, attend(q, k, v, mask=mask))


def test_what_is_remembered_of_a_call_does_not_outlive_its_scale():
    q, k, v = (torch.randn(1, 2, 5, 4) for _ in range(3))
    scale = torch.tensor(0.5)
    before = attend(q, k, v, scale=scale)
    scale.fill_(2.0)
    assert torch.allclose(attend(q, k, v, scale=scale), attend(q, k, v, scale=2.0))
    assert not torch.allclose(attend(q, k, v, scale=scale), before, atol=1e-3)


def test_a_backend_need_not_be_hashable():
    class Own(MathBackend):
        __hash__ = None

    q, k, v = (torch.randn(1, 2, 5, 4) for _ in range(3))
    assert torch.allclose(attend(q, k, v, backend=Own()), attend(q, k, v), atol=1e-6)
