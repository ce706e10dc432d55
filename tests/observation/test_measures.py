"""Statistics of attention against the whole matrix of weights in float64, and what they cost."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from mmattn import ALiBi, Causal, KeyLengths, Window, attention_weights
from mmattn.masks import Neighbourhood, Pattern, Prefix, Segments
from mmattn.observation.measures import Statistics, statistics

B, H, H_KV, N, M, K = 2, 6, 3, 5, 7, 11
SEGMENTS = Segments(((0, 0, 1, 1, 2), (0, 1, 1, 1, 1)), ((0, 0, 0, 1, 1, 1, 1), (1, 1, 0, 0, 0, 0, 0)))


def whole(q, k, *, first_keys=1, **options):
    """The definitions, from the weights in float64; logits query by query."""
    q, k = q.double(), k.double()
    n, m = q.shape[2], k.shape[2]
    options = {name: x.double() if _is_number(x) else x for name, x in options.items()}
    weights = attention_weights(q, k, **options)
    q_coords, k_coords = options.pop("q_coords", None), options.pop("k_coords", None)
    q_coords = torch.arange(m - n, m)[:, None] if q_coords is None else q_coords
    k_coords = torch.arange(m)[:, None] if k_coords is None else k_coords
    distance = torch.cdist(q_coords.double(), k_coords.double())
    distance = distance if distance.ndim == 2 else distance[:, None]
    logits = _logits(q, k, q_coords, k_coords, **options)
    seeing = (logits > -torch.inf).any(-1)
    sink = weights[..., :first_keys].sum(-1)
    if options.get("sinks") is not None:
        sink = sink + torch.where(seeing, 1 - weights.sum(-1), 0.0)
    return Statistics(
        torch.special.entr(weights).sum(-1),
        weights.sum(-2),
        (weights * distance).sum(-1),
        sink,
        logits.amax(-1),
    )


def _is_number(x):
    return isinstance(x, torch.Tensor) and x.is_floating_point()


def _logits(q, k, q_coords, k_coords, mask=None, bias=None, scale=None, soft_cap=None, **_):
    n, m = q.shape[2], k.shape[2]
    k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
    logits = torch.einsum("bhnk,bhmk->bhnm", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if soft_cap is not None:
        logits = soft_cap * (logits / soft_cap).tanh()
    if bias is not None:
        logits = logits + (bias if isinstance(bias, torch.Tensor) else bias(q_coords, k_coords))
    if isinstance(mask, Pattern):
        mask = mask.dense(n, m, query_coords=q_coords, key_coords=k_coords)
    return logits if mask is None else torch.where(mask, logits, -torch.inf)


def same(found, want, **close):
    for name, x, y in zip(Statistics._fields, found, want, strict=True):
        torch.testing.assert_close(x, y.to(x.dtype), msg=lambda text, name=name: f"{name}: {text}", **close)


@pytest.fixture
def qk() -> list[torch.Tensor]:
    return [3 * torch.randn(B, H, N, K), torch.randn(B, H_KV, M, K)]


# 1: one query of one head at a time; 400: some; the default: all heads of a sequence at once
each_block = pytest.mark.parametrize("block_bytes", [1, 400, 16 << 20])


@each_block
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mask": Causal()},
        {"mask": Causal("top-left")},
        {"mask": Window(1, 2)},
        {"mask": Window(1, 0, "top-left")},
        {"mask": KeyLengths((3, 7))},
        {"mask": KeyLengths((3, 7)) & Causal()},
        {"mask": Causal() | Prefix((1, 4))},
        {"mask": SEGMENTS},
        {"scale": 0.7},
        {"soft_cap": 1.5},
        {"sinks": torch.linspace(-3, 3, H)},
        {"sinks": torch.linspace(-3, 3, H), "mask": KeyLengths((0, 2))},
        {"bias": ALiBi(H)},
        {"bias": ALiBi(H), "mask": Window(1, 2)},
        {"first_keys": 3},
        {"first_keys": 3, "mask": Window(2, 0)},
        {"first_keys": 0},
        {"first_keys": M + 1},
        {"soft_cap": 2.0, "bias": ALiBi(H), "mask": Causal(), "sinks": torch.ones(H), "first_keys": 2},
    ],
    ids=str,
)
def test_against_the_whole_matrix(qk, options, block_bytes):
    same(statistics(*qk, **options, block_bytes=block_bytes), whole(*qk, **options))


@each_block
@pytest.mark.parametrize(
    "shape", [(M,), (N, 1), (N, M), (H, N, M), (B, 1, 1, M), (B, 1, N, M), (1, H, N, 1), (B, H, N, M)]
)
def test_masks_and_biases_that_broadcast(qk, shape, block_bytes):
    mask, bias = torch.rand(shape) < 0.6, torch.randn(shape)
    found = statistics(*qk, mask=mask, bias=bias, block_bytes=block_bytes)
    same(found, whole(*qk, mask=mask, bias=bias))


@each_block
@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("batched", [True, False])
def test_coordinates(qk, axes, batched, block_bytes):
    lead = (B,) if batched else ()
    coords = {
        "q_coords": torch.randint(0, 4, (*lead, N, axes)),
        "k_coords": torch.randint(0, 4, (*lead, M, axes)),
    }
    options = {"mask": Neighbourhood((2,) * axes), "bias": ALiBi(H)}
    same(statistics(*qk, **coords, **options, block_bytes=block_bytes), whole(*qk, **coords, **options))
    unsigned = {name: x.to(torch.uint8) for name, x in coords.items()}
    same(statistics(*qk, **unsigned, block_bytes=block_bytes), whole(*qk, **coords))


def test_large_coordinates_keep_small_distances():
    k_coords = torch.tensor([[2**40], [2**40 + 3]])
    found = statistics(
        torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 2, 2), q_coords=k_coords[:1], k_coords=k_coords
    )
    assert found.distance.item() == 1.5


@pytest.mark.parametrize("heads", [(6, 6), (6, 2), (6, 1)])
@pytest.mark.parametrize(("n", "m"), [(13, 13), (13, 5), (5, 13), (1, 13), (13, 1)])
@each_block
def test_grouped_heads_and_lengths(heads, n, m, block_bytes):
    q, k = torch.randn(2, heads[0], n, K), torch.randn(2, heads[1], m, K)
    for mask in (None, Causal(), Causal("top-left"), Window(2, 1)):
        want = whole(q, k, mask=mask)
        same(statistics(q, k, mask=mask, block_bytes=block_bytes), want)
        # as projections give them, [B, N, H, K] in memory
        q, k = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k))
        same(statistics(q, k, mask=mask, block_bytes=block_bytes), want)


@each_block
@pytest.mark.parametrize("sinks", [None, torch.zeros(H)])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_dead_queries_and_hidden_keys(qk, sinks, bad, block_bytes):
    q, k = qk
    mask = torch.ones(N, M, dtype=torch.bool)
    mask[2], mask[:, 4] = False, False
    want = whole(q, k, mask=mask, sinks=sinks)
    q[:, :, 2], k[:, :, 4] = bad, bad
    found = statistics(q, k, mask=mask, sinks=sinks, block_bytes=block_bytes)
    same(found, want)
    for x in (found.entropy, found.distance, found.sink_mass):
        assert (x[:, :, 2] == 0).all()
    assert (found.max_logit[:, :, 2] == -torch.inf).all()
    assert (found.received[:, :, 4] == 0).all()


def test_a_bias_of_minus_infinity_hides(qk):
    bias = torch.zeros(N, M)
    bias[2], bias[:, 4] = -torch.inf, -torch.inf
    found = statistics(*qk, bias=bias)
    same(found, whole(*qk, bias=bias))
    assert (found.entropy[:, :, 2] == 0).all()


def test_nan_in_a_key_that_is_seen_shows(qk):
    q, k = qk
    k[0, 0, 3] = torch.nan
    found = statistics(q, k, mask=Causal("top-left"))
    repeats = H // H_KV
    assert found.entropy[0, :repeats, 3:].isnan().all()
    assert not found.entropy[0, :repeats, :3].isnan().any()
    assert not found.entropy[0, repeats:].isnan().any()
    assert not found.entropy[1].isnan().any()


def test_uniform_attention():
    found = statistics(torch.zeros(1, 2, 13, K), torch.randn(1, 2, 101, K))
    torch.testing.assert_close(found.entropy, torch.full((1, 2, 13), math.log(101)))
    torch.testing.assert_close(found.received, torch.full((1, 2, 101), 13 / 101))
    torch.testing.assert_close(found.sink_mass, torch.full((1, 2, 13), 1 / 101))


def test_sharp_attention_is_certain():
    """Logits hundreds apart: weights far below the smallest float are 0, not NaN."""
    x = torch.eye(7)[None, None]
    found = statistics(x, x, scale=500.0)
    assert (found.entropy == 0).all()
    assert (found.distance == 0).all()
    assert (found.received == 1).all()
    same(statistics(x, x, scale=100.0), whole(x, x, scale=100.0))


def test_precision_of_inputs(qk):
    found = statistics(*(x.double() for x in qk), mask=Causal(), block_bytes=400)
    assert {x.dtype for x in found} == {torch.float64}
    same(found, whole(*qk, mask=Causal()), rtol=1e-12, atol=1e-12)
    halves = [x.bfloat16() for x in qk]
    found = statistics(*halves, mask=Causal())
    assert {x.dtype for x in found} == {torch.float32}
    same(found, whole(*halves, mask=Causal()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        same(statistics(*qk, mask=Causal()), whole(*qk, mask=Causal()))


def test_long_rows_stay_precise():
    q, k = 2 * torch.randn(1, 1, 257, 16), torch.randn(1, 1, 4099, 16)
    same(statistics(q, k, block_bytes=1 << 20), whole(q, k), rtol=1e-4, atol=1e-4)


def test_no_gradient_and_inputs_untouched(qk):
    q, k = (x.requires_grad_() for x in qk)
    before = q.detach().clone(), k.detach().clone()
    assert not any(x.requires_grad for x in statistics(q, k, soft_cap=2.0))
    assert torch.equal(q, before[0])
    assert torch.equal(k, before[1])


@pytest.mark.parametrize("shape", [(0, 2, 3, 5), (2, 2, 0, 5), (2, 2, 3, 0)])
def test_empty(shape):
    batch, heads, n, m = shape
    found = statistics(torch.randn(batch, heads, n, K), torch.randn(batch, heads, m, K), mask=Causal())
    assert found.entropy.shape == found.max_logit.shape == (batch, heads, n)
    assert found.received.shape == (batch, heads, m)
    assert (found.max_logit == -torch.inf).all()


class Largest(TorchDispatchMode):
    """The most elements that a storage of any result has."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in tree_flatten(out)[0]:
            if isinstance(x, torch.Tensor):
                self.bytes = max(self.bytes, x.untyped_storage().nbytes())
        return out


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mask": Causal()},
        {"mask": Window(40, 9)},
        {"mask": KeyLengths((1500,))},
        {"bias": ALiBi(2)},
        {"mask": Neighbourhood((3,)), "sinks": torch.zeros(2), "soft_cap": 3.0},
    ],
    ids=str,
)
def test_no_tensor_is_as_large_as_the_weights(options):
    q, k = torch.randn(1, 2048, 2, 16).transpose(1, 2), torch.randn(1, 2048, 2, 16).transpose(1, 2)
    with Largest() as largest:
        statistics(q, k, **options, block_bytes=1 << 20)
    assert 0 < largest.bytes <= 1 << 20
    assert largest.bytes < 2048 * 2048 * 4 / 10


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"first_keys": -1}, r"first_keys must not be negative: got -1"),
        ({"block_bytes": 0}, r"block_bytes must be at least 1: got 0"),
        ({"soft_cap": 0.0}, r"soft_cap must be above 0: got 0.0"),
        ({"sinks": torch.zeros(5)}, r"sinks must be one for each of 6 heads: got shape \[5\]"),
        (
            {"mask": torch.ones(N + 1, M, dtype=torch.bool)},
            r"mask must broadcast to \[B, H, N, M\] = \[2, 6, 5, 7\]: got shape \[6, 7\]",
        ),
        (
            {"bias": torch.ones(N, M + 1)},
            r"bias must broadcast to \[B, H, N, M\] = \[2, 6, 5, 7\]: got shape \[5, 8\]",
        ),
        (
            {"q_coords": torch.zeros(N, 2)},
            r"q_coords and k_coords must have the same axes A: got 2 and 1",
        ),
        (
            {"k_coords": torch.zeros(N, 1)},
            r"k_coords must be \[7, A\] or \[2, 7, A\]: got shape \[5, 1\]",
        ),
        (
            {"q_coords": torch.zeros(3, N, 1)},
            r"q_coords must be \[5, A\] or \[2, 5, A\]: got shape \[3, 5, 1\]",
        ),
    ],
)
def test_errors(qk, options, text):
    with pytest.raises(ValueError, match=text):
        statistics(*qk, **options)


def test_a_mask_of_numbers_is_refused(qk):
    with pytest.raises(TypeError, match="a mask tensor must be boolean, True = attend"):
        statistics(*qk, mask=torch.zeros(N, M))
