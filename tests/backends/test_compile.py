"""torch.compile, torch.export and torch.func see attention as plain tensor work."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mmattn import (
    ALiBi,
    Block,
    Causal,
    FeedForward,
    HeadGate,
    MultiHeadAttention,
    RelativeBias,
    RotaryPositions,
    Window,
    attend,
    build_encoder,
    explain,
)

B, N, D, H = 2, 7, 24, 3
OPTIONS = {
    "plain": {},
    "rotary": {"positions": RotaryPositions()},
    "rotary by halves": {"positions": RotaryPositions(interleaved=False)},
    "grouped, normed": {"num_kv_heads": 1, "qk_norm": nn.RMSNorm(8)},
    "ALiBi": {"position_bias": ALiBi(H)},
    "RelativeBias": {"position_bias": RelativeBias(H)},
    "sinks, soft cap, gate": {"sinks": True, "soft_cap": 5.0, "gate": HeadGate(D, H)},
    "scale zero": {"scale": 0},
}
each_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())


def make(options) -> MultiHeadAttention:
    return MultiHeadAttention(D, H, **copy.deepcopy(options))  # modules handed in are used as they are


ONCE = {"backend": "aot_eager", "fullgraph": True}


@pytest.fixture(autouse=True)
def _forget():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def assert_same(module, run, **how):
    """Results and gradients of the compiled module are those of a plain copy."""
    twin = copy.deepcopy(module)
    compiled = torch.compile(module, **how)
    out, want = run(compiled), run(twin)
    torch.testing.assert_close(out, want, rtol=1e-4, atol=1e-5)
    if not want.requires_grad:
        return
    grad = torch.randn_like(want)
    out.backward(grad)
    want.backward(grad)
    for (name, mine), theirs in zip(module.named_parameters(), twin.parameters(), strict=True):
        assert mine.grad is not None, name
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-5)


@each_option
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("mask", [None, Causal()])
def test_attention(options, train, mask):
    module, x = make(options), torch.randn(B, N, D)
    with torch.set_grad_enabled(train):
        assert_same(module, lambda f: f(x, mask=mask), **ONCE)


def test_cross_attention_with_a_drawn_mask():
    module = MultiHeadAttention(D, H, context_dim=11)
    x, y, mask = torch.randn(B, N, D), torch.randn(B, 5, 11), torch.rand(B, 1, N, 5) < 0.6
    mask[:, :, 3] = False
    assert_same(module, lambda f: f(x, y, mask=mask), **ONCE)


def test_a_module_that_names_its_backend():
    x = torch.randn(B, N, D)
    for backend in ("sdpa", "math"):
        assert_same(MultiHeadAttention(D, H, backend=backend), lambda f: f(x, mask=Window(2, 1)), **ONCE)


def test_the_cpu_backend_by_name_says_why_it_can_not():
    module, x = MultiHeadAttention(D, H, backend="cpu"), torch.randn(B, N, D)
    with pytest.raises(Exception, match=r"it cannot be traced by torch.compile, torch.export or torch.func"):
        torch.compile(module, **ONCE)(x)


def test_lengths_change_without_a_new_graph_each_time():
    module, counter = MultiHeadAttention(D, H, positions=RotaryPositions()), []

    def count(graph, inputs):
        counter.append(graph)
        return graph.forward

    compiled = torch.compile(module, backend=count, fullgraph=True, dynamic=True)
    with torch.no_grad():
        for n in (5, 7, 11, 13):
            x = torch.randn(B, n, D)
            torch.testing.assert_close(
                compiled(x, mask=Causal()), module(x, mask=Causal()), rtol=1e-4, atol=1e-5
            )
    assert len(counter) == 1


@pytest.mark.parametrize("options", [{}, {"positions": RotaryPositions()}], ids=["plain", "rotary"])
@pytest.mark.parametrize("train", [True, False])
def test_block(options, train):
    norms = nn.LayerNorm(D), nn.LayerNorm(D)
    block = Block(make(options), FeedForward(D, 2 * D), *norms).train(train)
    x = torch.randn(B, N, D)

    with torch.set_grad_enabled(train):
        assert_same(block, lambda f: f(x, mask=Causal()), **ONCE)


@pytest.mark.parametrize("options", [{}, {"positions": "sinusoidal", "num_kv_heads": 1, "qk_norm": True}])
@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("mask", [None, Causal()])
def test_encoder(options, train, mask):
    encoder = build_encoder(D, depth=2, num_heads=H, **options).train(train)
    x = torch.randn(B, N, D)
    with torch.set_grad_enabled(train):
        assert_same(encoder, lambda f: f(x, mask=mask), **ONCE)


def test_dropout_in_training():
    encoder = build_encoder(D, depth=2, num_heads=H, dropout=0.4, attention_dropout=0.4)
    x = torch.randn(B, N, D)
    compiled = torch.compile(encoder, **ONCE)
    first, second = compiled(x), compiled(x)
    assert not torch.allclose(first, second)
    first.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())
    encoder.eval()
    torch.testing.assert_close(torch.compile(encoder, **ONCE)(x), encoder(x), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_inductor():
    x = torch.randn(B, N, D)
    for options in ({"positions": RotaryPositions()}, {"position_bias": RelativeBias(H), "sinks": True}):
        assert_same(make(options), lambda f: f(x, mask=Causal()), fullgraph=True)


@pytest.mark.slow
def test_encoder_by_inductor():
    x = torch.randn(B, N, D)
    assert_same(build_encoder(D, depth=2, num_heads=H), lambda f: f(x, mask=Causal()), fullgraph=True)


@each_option
@pytest.mark.parametrize("mask", [None, Causal()])
def test_exported_attention_takes_other_batches_and_lengths(options, mask):
    module = make(options).eval()
    sizes = {0: torch.export.Dim("batch", min=1, max=64), 1: torch.export.Dim("length", min=2, max=512)}

    class Closed(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = module

        def forward(self, x):
            return self.attention(x, mask=mask)

    program = torch.export.export(Closed(), (torch.randn(B, N, D),), dynamic_shapes=(sizes,))
    for shape in ((B, N, D), (5, 13, D)):
        x = torch.randn(shape)
        torch.testing.assert_close(program.module()(x), module(x, mask=mask), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"positions": "sinusoidal"}])
def test_exported_encoder(options):
    encoder = build_encoder(D, depth=2, num_heads=H, **options).eval()
    x = torch.randn(B, N, D)
    program = torch.export.export(encoder, (x,))
    torch.testing.assert_close(program.module()(x), encoder(x), rtol=1e-4, atol=1e-5)
    sizes = {0: torch.export.Dim("batch", min=2, max=64), 1: torch.export.Dim("length", min=2, max=512)}
    program = torch.export.export(encoder, (x,), dynamic_shapes=(sizes,))
    y = torch.randn(5, 13, D)
    torch.testing.assert_close(program.module()(y), encoder(y), rtol=1e-4, atol=1e-5)


def test_func_grad_and_vmap():
    q, k, v = torch.randn(5, B, H, N, 8), torch.randn(5, B, H, N, 8), torch.randn(5, B, H, N, 8)

    def call(q, k, v):
        return attend(q, k, v, mask=Causal())

    mapped = torch.func.vmap(call)(q, k, v)
    torch.testing.assert_close(mapped, torch.stack([call(*row) for row in zip(q, k, v, strict=True)]))
    found = torch.func.grad(lambda *x: call(*x).square().sum(), argnums=(0, 1, 2))(q[0], k[0], v[0])
    leaves = [x[0].clone().requires_grad_() for x in (q, k, v)]
    call(*leaves).square().sum().backward()
    for got, leaf in zip(found, leaves, strict=True):
        torch.testing.assert_close(got, leaf.grad)
    per_row = torch.func.vmap(torch.func.grad(lambda q, k, v: call(q, k, v).square().sum()))(q, k, v)
    torch.testing.assert_close(per_row[0], found[0])


def test_func_sees_the_reason():
    x = torch.randn(B, H, N, 8)
    told = []

    def call(x):
        told.append(explain(x, x, x))
        return attend(x, x, x).sum()

    torch.func.grad(call)(x)
    assert told[0].chosen == "sdpa"
    assert told[0].others["cpu"] == "it cannot be traced by torch.compile, torch.export or torch.func"
    assert explain(x, x, x).chosen == "cpu"


def test_functional_call_and_a_hessian():
    module, x = MultiHeadAttention(6, 2, backend="math").double(), torch.randn(1, 3, 6, dtype=torch.float64)

    def loss(x):
        return module(x, mask=Causal()).square().sum()

    assert torch.func.hessian(loss)(x).isfinite().all()
