"""torch.compile and torch.export of models with the core inside, or looked at."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmattn.plugins import plug_in
from mmattn.plugins.calls import weights_of
from mmattn.plugins.site import site_of, sites
from mmattn.plugins.swap import Report, attach, detach

D, H = 16, 4


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("training", [True, False])
def test_compile_in_one_graph(training, backend, pair, close):
    _, ours, x = pair()
    ours.train(training)
    wanted = ours(x)
    torch._dynamo.reset()
    compiled = torch.compile(ours, fullgraph=True, backend=backend)
    close(compiled(x), wanted)
    if training:
        grads = [torch.autograd.grad(m(x).square().sum(), list(ours.parameters())) for m in (ours, compiled)]
        for old, new in zip(*grads, strict=True):
            torch.testing.assert_close(new, old, rtol=1e-3, atol=1e-4 * max(old.abs().max().item(), 1e-3))
    with torch.no_grad():
        close(compiled(x), wanted)


def test_compiled_models_follow_head_masks(pair, close):
    _, ours, x = pair()
    torch._dynamo.reset()
    compiled = torch.compile(ours, fullgraph=True, backend="eager")
    plain = compiled(x)
    site_of(ours.layers[0].self_attn).head_mask = torch.tensor([1.0, 0.0, 1.0, 1.0])
    masked = compiled(x)
    assert (masked - plain).abs().max() > 1e-3
    close(masked, ours(x))


def test_compile_with_padding_and_weights(sharpen, close):
    module = sharpen(nn.MultiheadAttention(D, H, batch_first=True))
    x = torch.randn(2, 5, D)
    padding = torch.arange(5) >= torch.tensor([[5], [3]])
    plug_in(module)
    wanted = module(x, x, x, key_padding_mask=padding)
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for new, old in zip(compiled(x, x, x, key_padding_mask=padding), wanted, strict=True):
        close(new, old)


def test_compile_of_attention_that_is_spelt_out(sharpen, close):
    models = pytest.importorskip("torchvision.models")
    model = sharpen(models.SwinTransformer([4, 4], 16, [2], [2], [3, 3], stochastic_depth_prob=0.0)).eval()
    x = torch.randn(1, 3, 24, 24)
    wanted = model(x)
    plug_in(model)
    torch._dynamo.reset()
    close(torch.compile(model, fullgraph=True, backend="aot_eager")(x), wanted)


def test_export(pair, close):
    _, ours, x = pair()
    ours.eval()
    program = torch.export.export(ours, (x,))
    close(program.module()(x), ours(x))


@pytest.mark.parametrize("grads", [True, False])
def test_looking_at_a_compiled_model(grads, pair):
    """In one graph, each attention is shown once for each call, fused path or not."""
    model, _, x = pair()
    model.eval()
    attach(model, Report(), routed=False)
    seen = {site.name: [] for _, site in sites(model)}
    for _, site in sites(model):
        site.watchers.append(lambda shown, site=site: seen[site.name].append(weights_of(shown)))
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager")
    with torch.set_grad_enabled(grads):
        model(x)
        wanted = {name: calls.pop() for name, calls in seen.items()}
        assert not any(seen.values())
        for _ in range(2):
            compiled(x)
    for name, calls in seen.items():
        assert len(calls) == 2
        for weights in calls:
            torch.testing.assert_close(weights, wanted[name], rtol=1e-4, atol=1e-6)
    detach(model)
