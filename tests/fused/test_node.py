"""A fused block computes what its parts compute."""

from __future__ import annotations

import copy

import pytest
import torch

from mmattn import Block, Causal, RotaryPositions, TokenBatch, Window, fused
from mmattn.fused import node
from mmattn.observation import observe

LENGTHS = [7, 3, 0, 11, 3, 1, 13]
TOTAL = sum(LENGTHS)


def parts_of(block: Block) -> Block:
    """The same block, which a hook that does nothing keeps from being fused."""
    other = copy.deepcopy(block)
    other.attention_norm.register_forward_hook(lambda *_: None)
    return other


def results(block: Block, x: torch.Tensor, call=None, **options) -> list[torch.Tensor]:
    x = x.detach().clone().requires_grad_()
    tokens = TokenBatch(x, LENGTHS)
    out = (call or block)(tokens, **options).values
    (out.float() * torch.linspace(-1, 2, out.numel()).view(out.shape)).sum().backward()
    return [out, x.grad, *(p.grad for p in block.parameters())]


def assert_same(block: Block, x: torch.Tensor, rtol: float, **options) -> None:
    other = parts_of(block)
    tokens = TokenBatch(x.requires_grad_(), LENGTHS)
    assert block.unfused(tokens, options.get("mask")) is None
    assert "hooks" in other.unfused(tokens, options.get("mask"))
    assert_close(results(block, x, **options), results(other, x, **options), rtol)


def assert_close(found: list[torch.Tensor], wanted: list[torch.Tensor], rtol: float) -> None:
    for got, want in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=rtol, atol=rtol * float(want.abs().max()))


CASES = [
    {},
    {"bias": False},
    {"heads": 3},
    {"positions": RotaryPositions()},
    {"positions": RotaryPositions(rotary_dim=4, interpolation=2.0)},
    {"scale": 0.0},
    {"scale": -0.3},
]


@pytest.mark.parametrize("mask", [None, Causal(), Window(13, 13)], ids=str)
@pytest.mark.parametrize("options", CASES, ids=lambda o: ",".join(o) or "plain")
def test_values_and_gradients(make_block, options, mask):
    block = make_block(**options).double()
    assert_same(block, torch.randn(TOTAL, 12, dtype=torch.float64), 1e-6, mask=mask)


def test_float32(make_block):
    """Where the parts are faster: the node is called by hand."""
    block, x = make_block(), torch.randn(TOTAL, 12)
    parts = block._parts()
    found = results(block, x, lambda tokens: fused.run(parts, tokens, None, None))
    assert "float32" in block.unfused(TokenBatch(x, LENGTHS))
    assert_close(found, results(parts_of(block), x), 2e-5)


@pytest.mark.parametrize("mask", [None, Causal()], ids=str)
def test_autocast(make_block, mask):
    block = make_block(positions=RotaryPositions())
    with torch.autocast("cpu", torch.bfloat16):
        assert_same(block, torch.randn(TOTAL, 12), 3e-2, mask=mask)


def test_a_bfloat16_model(make_block):
    block = make_block().bfloat16()
    assert_same(block, torch.randn(TOTAL, 12).bfloat16(), 5e-2)


def test_dense_is_packed(make_block):
    block = make_block(positions=RotaryPositions()).double()
    x = torch.randn(5, 7, 12, dtype=torch.float64, requires_grad=True)
    assert block.unfused(x) is None
    packed = block(TokenBatch.from_padded(x), mask=Causal()).values
    torch.testing.assert_close(block(x, mask=Causal()).flatten(0, 1), packed)
    torch.testing.assert_close(block(x, mask=Causal()), parts_of(block)(x, mask=Causal()))


@pytest.mark.parametrize("threads", [1, 2])
def test_many_chunks_of_rows(make_block, threads):
    """More tokens than fit a chunk of hidden features, which a core that works alone takes one by one."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        _chunks(make_block)
    finally:
        torch.set_num_threads(before)


def _chunks(make_block):
    block = make_block().double()
    lengths = [601, 602, 33]
    x = torch.randn(sum(lengths), 12, dtype=torch.float64, requires_grad=True)
    out = [b(TokenBatch(x, lengths)).values for b in (block, parts_of(block))]
    torch.testing.assert_close(*out)
    grads = [torch.autograd.grad(o.sin().sum(), x)[0] for o in out]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("rates", [(0.3, 0.0, 0.0), (0.0, 0.4, 0.0), (0.0, 0.0, 0.25), (0.2, 0.3, 0.1)])
def test_gradients_with_dropout(make_block, rates):
    """With the same random numbers the backward pass drops what the forward pass dropped."""
    branch, hidden, weights = rates
    block = make_block(8, branch=branch, hidden=hidden, dropout=weights, drop_path=0.3).double()
    x = torch.randn(9, 8, dtype=torch.float64, requires_grad=True)

    def call(x: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(7)
        return block(TokenBatch(x, [4, 5])).values

    assert block.unfused(TokenBatch(x, [4, 5])) is None
    assert torch.autograd.gradcheck(call, (x, *block.parameters()), nondet_tol=0)


def test_what_dropout_leaves(make_block):
    """Rate and scale of all three places, seen from outside: the mean over draws is the result without."""
    block = make_block(8, branch=0.2, hidden=0.3, dropout=0.1, bias=True).double()
    tokens = TokenBatch(torch.randn(9, 8, dtype=torch.float64, requires_grad=True), [4, 5])
    with torch.no_grad():
        block.attention_norm.weight.mul_(0.01)  # nearly linear, so that the mean passes through
        block.feed_forward_norm.weight.mul_(0.01)
    torch.manual_seed(0)
    mean = torch.stack([block(tokens).values.detach() for _ in range(4000)])
    want = block.eval()(tokens).values
    error = mean.std(0) / 4000**0.5
    assert float(((mean.mean(0) - want).abs() / error.clamp(min=1e-9)).max()) < 5.5
    assert float(error.min()) > 0


def test_equal_seeds_give_equal_results(make_block):
    block = make_block(branch=0.2, hidden=0.3, dropout=0.1)
    x = torch.randn(TOTAL, 12)
    assert block.unfused(TokenBatch(x, LENGTHS)) is None
    torch.manual_seed(1)
    first = results(block, x)
    block.zero_grad()
    torch.manual_seed(1)
    assert all(torch.equal(a, b) for a, b in zip(first, results(block, x), strict=True))


def test_frozen_parts_get_no_gradient(make_block):
    block = make_block().double()
    block.feed_forward.requires_grad_(False)
    x = torch.randn(TOTAL, 12, dtype=torch.float64)
    tokens = TokenBatch(x, LENGTHS)
    block(tokens).values.sum().backward()
    assert block.unfused(tokens) is None
    assert block.feed_forward[0].weight.grad is None
    assert block.attention.qkv_proj.weight.grad is not None


def test_a_sequence_does_not_see_its_neighbours(make_block):
    block = make_block().double()
    x = torch.randn(TOTAL, 12, dtype=torch.float64)
    alone = block(TokenBatch(x, LENGTHS)).values
    x[7:10] = torch.nan
    beside = block(TokenBatch(x, LENGTHS)).values
    clean = torch.ones(TOTAL, dtype=torch.bool)
    clean[7:10] = False
    torch.testing.assert_close(beside[clean], alone[clean], rtol=1e-9, atol=1e-12)


def test_who_only_looks_leaves_it_fused(make_block):
    block, x = make_block(branch=0.2, hidden=0.3, dropout=0.1), torch.randn(TOTAL, 12)
    tokens = TokenBatch(x, LENGTHS)
    torch.manual_seed(5)
    alone = block(tokens).values
    torch.manual_seed(5)
    with observe(block) as record:
        assert block.unfused(tokens) is None
        watched = block(tokens).values
    assert torch.equal(alone, watched)
    assert [seen.q_lengths.tolist() for seen in record.values()] == [list(LENGTHS)]


def test_a_product_with_its_bias_in_bfloat16_is_the_same_with_and_without_onednn(monkeypatch):
    x, weight, bias = torch.randn(13, 12).bfloat16(), torch.randn(7, 12).bfloat16(), torch.randn(7)
    found = node._linear(x, weight, bias)  # as this processor allows
    monkeypatch.setattr(node, "_POINTWISE", None)
    assert_close([found], [node._linear(x, weight, bias)], 2e-2)
    wanted = x.double() @ weight.double().T + bias.double()
    assert_close([found.double()], [wanted], 2e-2)


def test_onednn_is_not_asked_for_what_the_processor_lacks(monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert node._pointwise() is None
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    assert node._pointwise() is torch.ops.mkldnn._linear_pointwise
