"""What every position bias keeps to, and ALiBi."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from mmattn.positions import ALiBi, GridBias, PositionBias, RelativeBias

B, N, M, H = 2, 5, 7, 3

BIASES = {
    "alibi": (lambda: ALiBi(H), 1),
    "alibi 2-D": (lambda: ALiBi(H), 2),
    "alibi signed": (lambda: ALiBi(H, symmetric=False), 1),
    "relative": (lambda: RelativeBias(H, num_buckets=6, max_distance=11), 1),
    "relative one way": (lambda: RelativeBias(H, num_buckets=5, max_distance=11, bidirectional=False), 1),
    "grid 1-D": (lambda: GridBias(H, (13,)), 1),
    "grid 2-D": (lambda: GridBias(H, (13, 17)), 2),
    "grid 3-D": (lambda: GridBias(H, (13, 17, 13)), 3),
}
EACH = pytest.mark.parametrize(("make", "axes"), BIASES.values(), ids=list(BIASES))


def places(*shape: int) -> torch.Tensor:
    return torch.randint(0, 13, shape)


@EACH
def test_shape_dtype_and_leading_axes(make, axes):
    bias, q, k = make(), places(B, N, axes), places(B, M, axes)
    out = bias(q, k)
    assert isinstance(bias, PositionBias)
    assert bias.num_heads == H
    assert out.shape == (B, H, N, M)
    assert out.dtype == torch.float32
    assert out.std() > 0
    for b in range(B):
        assert torch.equal(bias(q[b], k[b]), out[b])
    assert torch.equal(bias(q, k[1])[1], out[1])  # one set of keys for many sets of queries
    assert torch.equal(bias(q[:, None], k[:, None]), out[:, None])


@EACH
def test_only_differences_count(make, axes):
    bias, q, k = make(), places(N, axes), places(M, axes)
    want = bias(q, k)
    for shift in (1_000_000_007, -17):
        assert torch.equal(bias(q + shift, k + shift), want)
    assert torch.equal(bias(q.double() + 1_000_000_007, k.double() + 1_000_000_007), want)
    assert torch.equal(bias(q.to(torch.uint8), k.to(torch.uint8)), want)
    assert not torch.equal(bias(q + torch.eye(axes, dtype=torch.long)[0], k), want)


@EACH
def test_no_token_and_one_token(make, axes):
    bias = make()
    assert bias(places(0, axes), places(M, axes)).shape == (H, 0, M)
    assert bias(places(N, axes), places(0, axes)).shape == (H, N, 0)
    assert bias(places(0, N, axes), places(0, M, axes)).shape == (0, H, N, M)
    one = places(1, axes)
    assert bias(one, one).shape == (H, 1, 1)


@EACH
def test_double_and_half(make, axes):
    bias, q, k = make(), places(N, axes), places(M, axes)
    single = bias(q, k)
    double, half = copy.deepcopy(bias).double()(q, k), copy.deepcopy(bias).bfloat16()(q, k)
    assert (double.dtype, half.dtype) == (torch.float64, torch.bfloat16)
    torch.testing.assert_close(double, single.double(), rtol=1e-6, atol=0.0)
    torch.testing.assert_close(half.float(), single, rtol=2**-7, atol=0.0)


@EACH
def test_gradients_of_the_table(make, axes):
    bias, q, k = make().double(), places(N, axes), places(M, axes)
    names = [name for name, _ in bias.named_parameters()]
    assert names == ([] if isinstance(bias, ALiBi) else ["table"])
    for name in names:
        table = getattr(bias, name).detach().requires_grad_()
        run = lambda table: torch.func.functional_call(bias, {"table": table}, (q, k))  # noqa: E731
        assert torch.autograd.gradcheck(run, (table,), fast_mode=True)
        bias(q, k).sum().backward()
        assert bias.table.grad.sum() == H * N * M


@EACH
def test_compiled_as_one_graph(make, axes):
    bias, q, k = make(), places(B, N, axes), places(B, M, axes)
    compiled = torch.compile(bias, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(q, k), bias(q, k))
    if list(bias.parameters()):
        compiled(q, k).square().sum().backward()
        found, bias.table.grad = bias.table.grad, None
        bias(q, k).square().sum().backward()
        torch.testing.assert_close(found, bias.table.grad)


@EACH
def test_state_holds_the_table_alone_and_buffers_survive(make, axes):
    bias, q, k = make(), places(N, axes), places(M, axes)
    want = bias(q, k)
    assert list(bias.state_dict()) == [name for name, _ in bias.named_parameters()]
    assert torch.equal(pickle.loads(pickle.dumps(bias))(q, k), want)
    with torch.device("meta"):
        empty = make()
    assert {t.device.type for t in (*empty.parameters(), *empty.buffers())} == {"meta"}
    empty.to_empty(device="cpu").load_state_dict(bias.state_dict())  # knows nothing of buffers
    assert torch.equal(empty(q, k), want)


@EACH
def test_coordinates_must_fit(make, axes):
    bias = make()
    with pytest.raises(
        ValueError, match=rf"must have the same axes A: got shapes \[5, {axes}\] and \[7, 4\]$"
    ):
        bias(places(N, axes), places(M, 4))
    with pytest.raises(ValueError, match=r"got shapes \[5\] and \[7, "):
        bias(places(N), places(M, axes))
    if not (isinstance(bias, ALiBi) and bias.symmetric):
        with pytest.raises(
            ValueError, match=rf"^{type(bias).__name__}\(.*\) takes coords with A={axes}: got A=4$"
        ):
            bias(places(N, 4), places(M, 4))


@pytest.mark.parametrize("make", [ALiBi, RelativeBias, lambda heads: GridBias(heads, (3, 5))])
def test_num_heads(make):
    with pytest.raises(ValueError, match=r"^num_heads must be at least 1: got 0$"):
        make(0)


def test_the_base_class_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        PositionBias(H)


def test_a_bias_of_ones_own_without_buffers():
    class Same(PositionBias):
        def forward(self, query_coords, key_coords):
            same = (query_coords[..., :, None, :] == key_coords[..., None, :, :]).all(-1)
            return same[..., None, :, :].double().expand(*same.shape[:-2], self.num_heads, -1, -1)

    bias = Same(H).double()
    assert bias(places(B, N, 2), places(B, M, 2)).shape == (B, H, N, M)


@pytest.mark.parametrize("heads", [1, 2, 3, 5, 8, 11, 12, 16, 23, 32])
def test_slopes_of_bloom_mpt_and_x_transformers(heads):
    bloom = pytest.importorskip("transformers.models.bloom.modeling_bloom")
    mpt = pytest.importorskip("transformers.models.mpt.modeling_mpt")
    library = pytest.importorskip("x_transformers.x_transformers")
    at = torch.arange(M)[:, None]
    signed, both = ALiBi(heads, symmetric=False)(at, at), ALiBi(heads)(at, at)
    last_row = mpt.build_mpt_alibi_tensor(heads, M)[:, 0]
    torch.testing.assert_close(signed[:, -1], last_row, rtol=1e-6, atol=0.0)
    theirs = bloom.build_alibi_tensor(torch.ones(1, M), heads, torch.float32)  # from the first key on
    torch.testing.assert_close(signed - signed[..., :1], theirs.expand(heads, M, M), rtol=1e-5, atol=1e-6)
    wanted = library.AlibiPositionalBias(heads)(N, M)  # the queries are the tail of the keys
    torch.testing.assert_close(both[:, M - N :], wanted, rtol=1e-6, atol=0.0)


def test_signed_and_symmetric_agree_up_to_the_query():
    q, k = torch.arange(N)[:, None] + 2, torch.arange(M)[:, None]
    both, signed = ALiBi(H)(q, k), ALiBi(H, symmetric=False)(q, k)
    later = (q < k.T).expand(H, N, M)
    assert later.any()
    assert torch.equal(both[~later], signed[~later])
    assert torch.equal(both[later], -signed[later])


def test_distance_over_two_axes_by_a_plain_loop():
    bias, q, k = ALiBi(H).double(), places(N, 2) + 0.5, places(M, 2)
    out = bias(q, k)
    for h, slope in enumerate((2**-4, 2**-8, 2**-2)):  # two of 2 heads, then the first of 4
        for n in range(N):
            for m in range(M):
                distance = sum(abs(float(q[n, a]) - float(k[m, a])) for a in range(2))
                assert out[h, n, m].item() == -slope * distance


def test_slopes_are_exact_in_float64():
    assert ALiBi(16).double().slopes[0] == 2**-0.5
    assert ALiBi(16).bfloat16().double().slopes[0] == 2**-0.5


def test_bfloat16_rounds_the_bias_and_not_the_distance():
    bias, distances = ALiBi(16).bfloat16(), torch.arange(1000)[:, None]
    want = -bias.slopes.double()[:, None] * distances[:, 0]
    assert torch.equal(bias(torch.tensor([[0]]), distances)[:, 0], want.bfloat16())


def test_representation():
    assert repr(ALiBi(3)) == "ALiBi(num_heads=3)"
    assert repr(ALiBi(3, symmetric=False)) == "ALiBi(num_heads=3, symmetric=False)"
    assert repr(RelativeBias(3)) == (
        "RelativeBias(num_heads=3, num_buckets=32, max_distance=128, bidirectional=True)"
    )
    assert repr(GridBias(3, [2, 5])) == "GridBias(num_heads=3, shape=(2, 5))"
