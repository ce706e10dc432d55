"""Gradients against finite differences, and gradients of gradients."""

from __future__ import annotations

import pytest
import torch

from mmattn import Causal, GridBias, KeyLengths, Prefix, Window, attend

each_that_trains = pytest.mark.parametrize("backend", ["cpu", "sdpa", "math"])


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


MASKS = {
    "none": None,
    "causal": Causal(),
    "window": Window(1, 0, "top-left"),
    "lengths": KeyLengths((4, 0)),
    "tensor with a dead query": torch.tensor([[1, 0, 1, 1]] * 2 + [[0] * 4] + [[1, 1, 0, 0]] * 2) > 0,
}


@each_that_trains
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
def test_dense(backend, mask, with_bias):
    q, k, v = random(2, 4, 5, 3), random(2, 2, 4, 3), random(2, 2, 4, 3)
    bias = random(4, 5, 4) if with_bias else None

    def call(q, k, v, bias=None):
        return attend(q, k, v, mask=mask, bias=bias, backend=backend)

    assert torch.autograd.gradcheck(call, (q, k, v) if bias is None else (q, k, v, bias))


@each_that_trains
@pytest.mark.parametrize("shape", [(5, 4), (1, 4), (5, 1), (2, 1, 5, 4), (1, 4, 1, 1), (4, 5, 1)])
def test_every_bias_that_broadcasts(backend, shape):
    bias = random(*shape)
    q, k, v = (random(2, 4, n, 3).detach() for n in (5, 4, 4))
    assert torch.autograd.gradcheck(lambda bias: attend(q, k, v, bias=bias, backend=backend), (bias,))


@each_that_trains
@pytest.mark.parametrize("mask", [None, Causal("top-left"), Prefix((0, 2, 1, 0, 4, 3)), Window(1, 1)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_packed(backend, mask, with_bias):
    of_q, of_k = [2, 3, 0, 1, 3, 2], [4, 5, 2, 0, 5, 3]
    q, k, v = random(sum(of_q), 2, 3), random(sum(of_k), 1, 3), random(sum(of_k), 1, 3)
    bias = random(2, 3, 5) if with_bias else None

    def call(q, k, v, bias=None):
        return attend(q, k, v, mask=mask, bias=bias, q_lengths=of_q, k_lengths=of_k, backend=backend)

    assert torch.autograd.gradcheck(call, (q, k, v) if bias is None else (q, k, v, bias))


@each_that_trains
def test_packed_self_attention_in_shared_groups(backend):
    lengths = [3, 4, 4, 3, 5]  # near enough to one another to share a call, with room to spare behind
    q, k, v = (random(sum(lengths), 2, 3) for _ in range(3))
    for mask in (None, Causal(), Window(1, 0)):
        assert torch.autograd.gradcheck(
            lambda q, k, v, mask=mask: attend(q, k, v, mask=mask, q_lengths=lengths, backend=backend),
            (q, k, v),
        )


@pytest.mark.parametrize("backend", ["sdpa", "math"])
@pytest.mark.parametrize("scale", [None, -0.4])
def test_sinks(backend, scale):
    q, k, v, sinks = random(2, 4, 5, 3), random(2, 2, 4, 3), random(2, 2, 4, 3), random(4)

    def call(q, k, v, sinks):
        return attend(q, k, v, mask=Causal(), sinks=sinks, scale=scale, backend=backend)

    assert torch.autograd.gradcheck(call, (q, k, v, sinks))


def test_soft_cap():
    q, k, v = random(2, 4, 5, 3), random(2, 2, 4, 3), random(2, 2, 4, 3)
    assert torch.autograd.gradcheck(lambda q, k, v: attend(q, k, v, soft_cap=0.8, backend="math"), (q, k, v))


@each_that_trains
@pytest.mark.parametrize("packed", [False, True])
def test_the_table_of_a_position_bias(backend, packed):
    module = GridBias(2, (3, 3)).double()
    options = {"q_lengths": [4, 1], "k_lengths": [2, 3]} if packed else {}
    coords = {"q_coords": torch.randint(0, 3, (5, 2)), "k_coords": torch.randint(0, 3, (5, 2))}
    q, k, v = (random(5, 2, 3).detach() if packed else random(1, 2, 5, 3).detach() for _ in range(3))

    def call(table):
        fresh = torch.func.functional_call
        return attend(
            q,
            k,
            v,
            bias=lambda a, b: fresh(module, {"table": table}, (a, b)),
            **options,
            **coords,
            backend=backend,
        )

    table = module.table.detach().requires_grad_()
    assert torch.autograd.gradcheck(call, (table,))


@pytest.mark.parametrize("mask", [None, Causal(), KeyLengths((4, 0))])
def test_gradients_of_gradients_by_math(mask):
    q, k, v, bias = random(2, 2, 3, 3), random(2, 1, 4, 3), random(2, 1, 4, 3), random(2, 3, 4)

    def call(q, k, v, bias):
        return attend(q, k, v, mask=mask, bias=bias, backend="math")

    assert torch.autograd.gradgradcheck(call, (q, k, v, bias))


@pytest.mark.parametrize(
    ("mask", "message"),
    [(None, "flash_attention_for_cpu_backward is not implemented"), (Window(1, 1), "once_differentiable")],
)
def test_gradients_of_gradients_are_refused_by_cpu(mask, message):
    q, k, v = random(1, 2, 5, 3), random(1, 2, 4, 3), random(1, 2, 4, 3)
    out = attend(q, k, v, mask=mask, backend="cpu")
    (of_q,) = torch.autograd.grad(out.square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match=message):
        of_q.sum().backward()


@each_that_trains
@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (0, 2)])
def test_only_some_take_gradients(backend, wanted):
    tensors = [random(2, 4, n, 3).detach() for n in (5, 4, 4)]
    for index in wanted:
        tensors[index].requires_grad_()
    attend(*tensors, mask=Causal(), backend=backend).square().sum().backward()
    found = [x.grad for x in tensors]
    for x in tensors:
        x.grad = None
    attend(*(x.requires_grad_() for x in tensors), mask=Causal(), backend="math").square().sum().backward()
    for index, got in enumerate(found):
        assert (got is not None) == (index in wanted)
        if got is not None:
            torch.testing.assert_close(got, tensors[index].grad)


@each_that_trains
def test_inputs_are_left_as_they_are(backend):
    tensors = [random(2, 4, n, 3) for n in (5, 4, 4)] + [random(4, 5, 4)]
    before = [x.detach().clone() for x in tensors]
    q, k, v, bias = tensors
    out = attend(q, k, v, bias=bias, mask=Window(1, 1), backend=backend)
    grad = torch.randn_like(out)
    copy = grad.clone()
    out.backward(grad)
    for x, old in zip(tensors, before, strict=True):
        assert torch.equal(x, old)
    assert torch.equal(grad, copy)
