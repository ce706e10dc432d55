"""What a fused block keeps for its backward pass lies where autograd knows of it."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from mmattn import RotaryPositions, TokenBatch
from mmattn.fused.node import Hidden
from mmattn.fused.saved import restore, save

LENGTHS = [7, 3, 0, 11, 3, 1, 13]
TOTAL, WIDTH, HIDDEN = sum(LENGTHS), 12, 29
RATES = {"branch": 0.2, "hidden": 0.3, "dropout": 0.1, "drop_path": 0.2}


@pytest.fixture(params=[{}, RATES], ids=["kept", "dropped"])
def block(request, make_block):
    return make_block(positions=RotaryPositions(), **request.param).double()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(TOTAL, WIDTH, dtype=torch.float64, requires_grad=True)


def run(block, x: torch.Tensor) -> torch.Tensor:
    tokens = TokenBatch(x, LENGTHS)
    assert block.unfused(tokens) is None
    return block(tokens).values


def gradients(block, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(1)
    return gradients_of(run(block, x), block, x)


def gradients_of(out: torch.Tensor, block, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(out.sin().sum(), [x, *block.parameters()])


def test_a_change_of_the_input_is_noticed(block, x):
    moved = x * 1.0
    out = run(block, moved)
    moved.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_a_change_of_a_parameter_is_noticed(block, x):
    out = run(block, x)
    with torch.no_grad():
        block.feed_forward[0].weight.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_hooks_see_every_activation(block, x):
    stored, wanted = [], gradients(block, x)

    def pack(saved: torch.Tensor) -> int:
        stored.append(saved.detach().clone())
        return len(stored) - 1

    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(pack, stored.__getitem__):
        out = run(block, x)
    rows = 64  # tokens, rounded up
    hidden = rows * HIDDEN * 8
    parameters = sum(parameter.nbytes for parameter in block.parameters())
    assert [tuple(saved.shape) for saved in stored].count((rows, HIDDEN)) >= 2  # before the GELU and after
    assert sum(saved.nbytes for saved in stored) > 2 * hidden + parameters
    found = gradients_of(out, block, x)
    assert all(torch.equal(*pair) for pair in zip(found, wanted, strict=True))


def test_the_graph_is_walked_once(block, x):
    out = run(block, x).sum()
    out.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        out.backward()


def test_a_graph_that_is_retained_gives_the_same_again(block, x):
    out = run(block, x).sin().sum()
    inputs = [x, *block.parameters()]
    first = torch.autograd.grad(out, inputs, retain_graph=True)
    assert all(torch.equal(*pair) for pair in zip(first, torch.autograd.grad(out, inputs), strict=True))


def test_activations_are_released_after_the_backward_pass(block, x):
    alive, released = [], []

    class Watched:
        def __init__(self, saved: torch.Tensor) -> None:
            self.saved = saved
            alive.append(1)
            weakref.finalize(self, released.append, 1)

    with torch.autograd.graph.saved_tensors_hooks(Watched, lambda watched: watched.saved):
        out = run(block, x)
    packed = len(alive)
    assert packed > 20
    assert not released
    torch.autograd.grad(out.sum(), x)
    gc.collect()
    assert out.grad_fn is not None  # the graph is still there
    assert len(released) == packed


def test_checkpoints_and_other_memory_change_nothing(block, x):
    wanted = gradients(block, x)
    torch.manual_seed(1)
    again = checkpoint(run, block, x, use_reentrant=False)
    assert all(torch.equal(*pair) for pair in zip(gradients_of(again, block, x), wanted, strict=True))
    torch.manual_seed(1)
    with torch.autograd.graph.save_on_cpu():
        moved = run(block, x)
    assert all(torch.equal(*pair) for pair in zip(gradients_of(moved, block, x), wanted, strict=True))


def test_nested_structures_come_back():
    class Context:
        def save_for_backward(self, *tensors: torch.Tensor) -> None:
            self.saved_tensors = tensors

    a, b, ctx = torch.ones(1), torch.ones(2), Context()
    save(ctx, (a, None, [b, (3, a)], Hidden(7, [b], [], a)))
    assert [id(x) for x in ctx.saved_tensors] == [id(x) for x in (a, b, a, b, a)]
    first, none, (second, (number, third)), hidden = restore(ctx)
    assert (none, number, hidden.rows, hidden.keep) == (None, 3, 7, [])
    assert first is third is hidden.after is a
    assert second is hidden.before[0] is b
