"""attend() against the formula written out in float64: dense and packed, on every backend."""

from __future__ import annotations

import math

import pytest
import torch

from mmattn import Backend, Causal, KeyLengths, Window, attend, attention_weights, explain
from mmattn.backends import BACKENDS, MathBackend

B, H, H_KV, N, M, K = 2, 6, 3, 5, 7, 11
NAMES = [backend.name for backend in BACKENDS]
each_backend = pytest.mark.parametrize("backend", NAMES)


def formula(q, k, v, mask=None, bias=None, scale=None):
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
                logits = [float(q[b, h, i] @ k[b, g, j]) * scale + float(bias[b, h, i, j]) for j in seen]
                weights = [math.exp(x - max(logits)) for x in logits]
                for j, weight in zip(seen, weights, strict=True):
                    out[b, h, i] += weight / sum(weights) * v[b, g, j]
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
@pytest.mark.parametrize("shape", [(N, M), (B, 1, 1, M), (B, 1, N, M), (H, N, M), (B, H, N, M), (N, 1)])
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
def test_scale(qkv, backend):
    torch.testing.assert_close(attend(*qkv, scale=0.7, backend=backend), formula(*qkv, scale=0.7))


@each_backend
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


@each_backend
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


@each_backend
def test_no_keys_at_all(backend):
    q, empty = torch.randn(B, H, N, K, requires_grad=True), torch.randn(B, H, 0, K, requires_grad=True)
    out = attend(q, empty, empty, backend=backend)
    assert torch.equal(out, torch.zeros(B, H, N, K))
    out.sum().backward()
    assert not q.grad.any()
    assert empty.grad.shape == empty.shape


@each_backend
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


@each_backend
def test_dropout_drops_weights_and_keeps_their_mean(backend):
    n, p = 61, 0.3
    q, k, v = torch.randn(1, 7, n, K), torch.randn(1, 7, n, K), torch.eye(n).expand(1, 7, n, n)
    k, q = (torch.nn.functional.pad(x, (0, n - K)) for x in (k, q))
    kept = attend(q, k, v, backend=backend)  # values are unit vectors: the output is the weights
    out = attend(q, k, v, dropout=p, backend=backend)
    dropped = out == 0
    assert dropped.float().mean().item() == pytest.approx(p, abs=0.02)
    torch.testing.assert_close(out[~dropped], kept[~dropped] / (1 - p))
    torch.manual_seed(1)
    first = attend(q, k, v, dropout=p, backend=backend)
    torch.manual_seed(1)
    assert torch.equal(first, attend(q, k, v, dropout=p, backend=backend))


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


def test_explain_names_the_choice_and_the_reasons(qkv):
    told = explain(*qkv)
    assert told.chosen == "sdpa"
    assert "fused" in told.reason
    assert told.others == {"math": f"sdpa comes first: {told.reason}"}
    assert str(told) == f"sdpa: {told.reason}\nnot math: sdpa comes first: {told.reason}"
    assert "unfused" in explain(*qkv, dropout=0.1).reason
    forced = explain(*qkv, backend="math")
    assert (forced.chosen, forced.reason, forced.others) == (
        "math", "it was asked for", {"sdpa": "math was asked for"},
    )  # fmt: skip
    packed = [x[0].transpose(0, 1) for x in qkv]
    assert explain(*packed, q_lengths=[5], k_lengths=[len(packed[1])], scale=0.5).chosen == "sdpa"


def test_auto_passes_over_a_backend_that_refuses(qkv):
    told = explain(*(x.to(torch.complex64) for x in qkv))
    assert told.chosen == "math"
    assert told.others == {"sdpa": "it needs a floating-point dtype, got torch.complex64"}


def test_forcing_an_impossible_backend_says_why(qkv):
    wrong = [x.to(torch.complex64) for x in qkv]
    text = r"backend 'sdpa' cannot run this call: it needs a floating-point dtype, got torch.complex64"
    for function in (attend, explain):
        with pytest.raises(ValueError, match=text):
            function(*wrong, backend="sdpa")
        with pytest.raises(
            ValueError, match=r"backend must be 'auto', 'sdpa', 'math' or an object: got 'fast'"
        ):
            function(*qkv, backend="fast")


class Doubled(MathBackend):
    """Somebody's own backend: twice the result, and no bias."""

    name = "doubled"

    def refusal(self, call):
        return "it knows no bias" if call.bias else None

    def dense(self, q, k, v, **options):
        return 2 * super().dense(q, k, v, **options)


def test_a_backend_of_ones_own(qkv):
    torch.testing.assert_close(attend(*qkv, backend=Doubled()), 2 * formula(*qkv))
    x = torch.randn(5, H, K)
    torch.testing.assert_close(
        attend(x, x, x, q_lengths=[2, 3], backend=Doubled()), 2 * attend(x, x, x, q_lengths=[2, 3])
    )
    assert explain(*qkv, backend=Doubled()).others == dict.fromkeys(NAMES, "doubled was asked for")
    with pytest.raises(ValueError, match=r"backend 'doubled' cannot run this call: it knows no bias"):
        attend(*qkv, bias=torch.zeros(N, M), backend=Doubled())


def test_a_backend_must_say_how(qkv):
    class Empty(Backend):
        name = "empty"

    with pytest.raises(TypeError, match="dense"):
        Empty()


def test_the_call_that_a_backend_sees(qkv):
    seen = []

    class Watching(MathBackend):
        def refusal(self, call):
            seen.append(call)

    q, k, v = qkv
    attend(q, k.requires_grad_(), v, mask=Causal(), dropout=0.5, backend=Watching())
    with torch.no_grad():
        attend(*(x[0].transpose(0, 1) for x in (q, k, v)), q_lengths=[5], k_lengths=[7], backend=Watching())
    first, second = seen
    assert (first.packed, first.num_heads, first.num_kv_heads, first.head_dim) == (False, H, H_KV, K)
    assert (first.mask, first.bias, first.dropout, first.grad) == (True, False, 0.5, True)
    assert (second.packed, second.num_heads, second.num_kv_heads, second.grad) == (True, H, H_KV, False)


X3, X4 = torch.zeros(5, 6, 11), torch.zeros(2, 6, 5, 11)


@pytest.mark.parametrize(
    ("error", "text", "tensors", "options"),
    [
        (
            ValueError,
            r"q must be \[B, H, N, K\] \(dense; packed needs q_lengths\): got shape \[5, 6, 11\]",
            [X3] * 3,
            {},
        ),
        (
            ValueError,
            r"q must be \[T, H, K\] \(packed\): got shape \[2, 6, 5, 11\]",
            [X4] * 3,
            {"q_lengths": [5]},
        ),
        (
            ValueError,
            r"k and v must have the same shape: got \[2, 6, 5, 11\] and \[2, 6, 3, 11\]",
            [X4, X4, X4[:, :, :3]],
            {},
        ),
        (ValueError, r"same head_dim: got 11 and 7", [X4, X4[..., :7], X4[..., :7]], {}),
        (
            ValueError,
            r"num_kv_heads must divide num_heads: got num_heads=6, num_kv_heads=5",
            [X4, X4[:, :5], X4[:, :5]],
            {},
        ),
        (ValueError, r"q and k must have the same batch size: got 2 and 1", [X4, X4[:1], X4[:1]], {}),
        (
            TypeError,
            r"boolean, True = attend \(numbers are a bias\): got torch.float32",
            [X4] * 3,
            {"mask": torch.ones(5, 5)},
        ),
        (ValueError, r"dropout must lie in \[0, 1\): got 1.0", [X4] * 3, {"dropout": 1.0}),
        (ValueError, r"q_lengths must add up .* got a sum of 7 for 5", [X3] * 3, {"q_lengths": [3, 4]}),
        (ValueError, r"q_lengths must not be negative: got -2", [X3] * 3, {"q_lengths": [7, -2]}),
        (
            ValueError,
            r"k_lengths must add up .* got a sum of 7 for 5",
            [X3] * 3,
            {"q_lengths": [5], "k_lengths": [7]},
        ),
        (
            ValueError,
            r"k must have the 5 tokens of its lengths: got 3",
            [X3, X3[:3], X3[:3]],
            {"q_lengths": [5]},
        ),
        (ValueError, r"equally many: got 1 and 2", [X3] * 3, {"q_lengths": [5], "k_lengths": [2, 3]}),
        (ValueError, r"k_lengths needs q_lengths: got k_lengths alone", [X4] * 3, {"k_lengths": [5, 5]}),
        (
            ValueError,
            r"a packed call takes a Pattern as mask: got a tensor",
            [X3] * 3,
            {"q_lengths": [5], "mask": torch.ones(5, 5) > 0},
        ),
        (
            ValueError,
            r"the same for each sequence: got KeyLengths\(lengths=\(5,\)\)",
            [X3] * 3,
            {"q_lengths": [5], "mask": KeyLengths((5,))},
        ),
        (
            ValueError,
            r"a bias \[H, N, M\] of at least N=5, M=5: got shape \[6, 3, 5\]",
            [X3] * 3,
            {"q_lengths": [5], "bias": torch.zeros(6, 3, 5)},
        ),
    ],
)
def test_errors(error, text, tensors, options):
    with pytest.raises(error, match=text):
        attend(*tensors, **options)
