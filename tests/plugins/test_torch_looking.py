"""torch.nn looked at while it computes: not a bit changes, on its fast paths or off them."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from mmattn.plugins import plug_in, unplug
from mmattn.plugins.calls import weights_of
from mmattn.plugins.site import site_of, sites, watching
from mmattn.plugins.swap import Report, attach, detach
from tests.plugins.torch_cases import HIDDEN, MASKS, MODULES, SELF_PAD, B, D, H, N, encoder, inputs, layer


@pytest.fixture
def looked_at():
    """Attach sites that only look, and collect what they are shown, weights drawn, by name."""

    def look(model: nn.Module) -> dict[str, list[torch.Tensor]]:
        attach(model, Report(), routed=False)
        seen: dict[str, list[torch.Tensor]] = {}
        for _, site in sites(model):
            calls = seen.setdefault(site.name, [])
            site.watchers.append(lambda shown, calls=calls: calls.append(weights_of(shown)))
        return seen

    return look


@pytest.mark.parametrize("options", MODULES)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("need_weights", [True, False])
def test_looking_at_attention_changes_no_bit(need_weights, mask, options, looked_at, sharpen, close):
    module = sharpen(nn.MultiheadAttention(D, H, **MODULES[options]).eval())
    given = inputs(MODULES[options])
    for grads in (True, False):
        with torch.set_grad_enabled(grads):
            before = module(*given, need_weights=need_weights, **MASKS[mask])
            weights = module(*given, average_attn_weights=False, **MASKS[mask])[1]
            seen = looked_at(module)
            after = module(*given, need_weights=need_weights, **MASKS[mask])
            detach(module)
        assert torch.equal(before[0], after[0])
        assert before[1] is after[1] is None or torch.equal(before[1], after[1])
        assert type(module) is nn.MultiheadAttention
        (call,) = seen[""]
        close(call, weights, 5e-5)
        assert not call.requires_grad


@pytest.mark.parametrize("mask", [{}, {"key_padding_mask": SELF_PAD}, {"attn_mask": HIDDEN[:, :N]}])
def test_looking_at_the_fused_attention(mask, looked_at, sharpen, close):
    """In eval without gradients self-attention is one fused function, whose last bits are other ones."""
    module = sharpen(nn.MultiheadAttention(D, H, batch_first=True).eval())
    x = torch.randn(B, N, D)
    with torch.no_grad():
        before = module(x, x, x, need_weights=False, **mask)[0]
        seen = looked_at(module)
        assert torch.equal(module(x, x, x, need_weights=False, **mask)[0], before)
        detach(module)
        weights = module(x, x, x + 0, average_attn_weights=False, **mask)[1]
    close(seen[""][0], weights, 5e-5)


def slow_weights(model: nn.TransformerEncoder, x, **masks) -> list[torch.Tensor]:
    """The weights of each layer, from the host's own slow path."""
    found = []

    def ask(module, args, kwargs):
        return args, kwargs | {"need_weights": True, "average_attn_weights": False}

    handles = [part.self_attn.register_forward_pre_hook(ask, with_kwargs=True) for part in model.layers]
    handles += [
        part.self_attn.register_forward_hook(lambda m, args, out: found.append(out[1]))
        for part in model.layers
    ]
    model(x, **masks)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("grads", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize(
    "masks",
    [
        {}, {"src_key_padding_mask": SELF_PAD}, {"mask": HIDDEN[:, :N]},
        {"mask": HIDDEN[:, :N], "src_key_padding_mask": SELF_PAD},
    ],
    ids=["no mask", "padding", "mask", "both"],
)  # fmt: skip
def test_looking_at_encoders_leaves_their_fast_paths_on(masks, norm_first, grads, looked_at, sharpen, close):
    model = sharpen(encoder(3, norm_first=norm_first).eval())
    x = torch.randn(B, N, D)
    with torch.set_grad_enabled(grads):
        before = model(x, **masks)
        weights = slow_weights(model, x, **masks)
        assert len(weights) == 3
        seen = looked_at(model)
        after = model(x, **masks)
        detach(model)
    assert torch.equal(before, after)
    assert {type(m) for m in model.modules()} == {type(m) for m in encoder().modules()}
    assert list(seen) == [f"layers.{i}.self_attn" for i in range(3)]
    valid = ~SELF_PAD if "src_key_padding_mask" in masks else torch.ones(B, N, dtype=torch.bool)
    for i, wanted in enumerate(weights):
        (call,) = seen[f"layers.{i}.self_attn"]
        close(call.transpose(1, 2)[valid], wanted.transpose(1, 2)[valid], 5e-5)


@pytest.mark.parametrize("norm_first", [True, False])
def test_looking_at_nested_batches(norm_first, looked_at, sharpen, close):
    """A nested batch, given by the caller, to a layer and to attention itself."""
    part = sharpen(layer(norm_first).eval())
    rows = [torch.randn(n, D) for n in (5, 3, 2)]
    nested = torch.nested.nested_tensor(rows)
    with torch.no_grad():
        before = part(nested).to_padded_tensor(0.0)
        seen = looked_at(part)
        assert torch.equal(part(nested).to_padded_tensor(0.0), before)
        module = part.self_attn
        out = module(nested, nested, nested, need_weights=False)[0].to_padded_tensor(0.0)
        detach(part)
        assert torch.equal(module(nested, nested, nested, need_weights=False)[0].to_padded_tensor(0.0), out)
        of_layer, of_module = seen["self_attn"]
        for i, row in enumerate(rows):
            x = part.norm1(row) if norm_first else row
            wanted = module(x, x, x, average_attn_weights=False)[1]
            close(of_layer[i, :, : len(row), : len(row)], wanted, 5e-5)
            assert (of_layer[i, :, :, len(row) :] == 0).all()
            wanted = module(row, row, row, average_attn_weights=False)[1]
            close(of_module[i, :, : len(row), : len(row)], wanted, 5e-5)


def test_watchers_come_and_go_by_themselves(sharpen):
    model = sharpen(encoder().eval())
    attach(model, Report(), routed=False)
    x = torch.randn(B, N, D)
    site = site_of(model.layers[1].self_attn)
    calls = []
    with torch.no_grad():
        with watching(site, calls.append):
            model(x)
            model(x)
        model(x)
    assert len(calls) == 2


class Scaled(nn.MultiheadAttention):
    """Somebody's attention, which leaves the work to torch's."""

    def forward(self, query, key, value, **options):
        out, weights = super().forward(query * 2, key, value, **options)
        return out * 3, weights


class Skipping(nn.TransformerEncoderLayer):
    """Somebody's layer, which passes some batches on as they are."""

    def forward(self, src, *args, skip=False, **kwargs):
        return src if skip else super().forward(src + 1, *args, **kwargs)


@pytest.mark.parametrize("same", [True, False])
def test_a_subclass_of_attention_that_calls_torchs(same, looked_at, sharpen, close):
    module = sharpen(Scaled(D, H, batch_first=True).eval())
    x = torch.randn(B, N, D)
    given = (x, x, x if same else x + 0)
    with torch.no_grad():
        before = module(*given, need_weights=False)[0]
        weights = module(*given, average_attn_weights=False)[1]
        seen = looked_at(module)
        assert torch.equal(module(*given, need_weights=False)[0], before)
        detach(module)
        close(seen[""][0], weights, 5e-5)
        plug_in(module)
        close(module(*given, need_weights=False)[0], before)
        assert site_of(module).routed_calls == 1
        unplug(module)
        assert torch.equal(module(*given, need_weights=False)[0], before)
    assert type(module) is Scaled


def test_a_subclass_of_the_layer_that_calls_torchs(looked_at, sharpen, close):
    """What it hands on is shown where the fast path is taken; nothing where it calls nothing."""
    part = sharpen(Skipping(D, H, 32, dropout=0.0, batch_first=True).eval())
    x = torch.randn(B, N, D)
    with torch.no_grad():
        before = part(x)
        weights = part.self_attn(x + 1, x + 1, x + 1, average_attn_weights=False)[1]
        seen = looked_at(part)
        part(x, skip=True)
        assert seen == {"self_attn": []}
        assert torch.equal(part(x), before)
        close(seen["self_attn"][0], weights, 5e-5)
        detach(part)
        plug_in(part)
        close(part(x), before)
        assert site_of(part.self_attn).routed_calls == 1


def test_copies_of_subclasses(sharpen):
    module = sharpen(Scaled(D, H, batch_first=True).eval())
    plug_in(module)
    x = torch.randn(B, N, D)
    other = copy.deepcopy(module)
    assert torch.equal(other(x, x, x)[0], module(x, x, x)[0])
    assert type(other) is type(module)
