"""nn.MultiheadAttention with the core inside, in each of its options."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mmattn.plugins import plug_in, unplug
from mmattn.plugins.site import sites
from tests.plugins.torch_cases import HIDDEN, MASKS, MODULES, OF_HEADS, PAD, B, D, H, M, N, inputs

WEIGHTS = {
    "none": {"need_weights": False},
    "averaged": {"need_weights": True},
    "per head": {"need_weights": True, "average_attn_weights": False},
}


def results(module: nn.Module, given: list[torch.Tensor], **options) -> list[torch.Tensor]:
    """Output, weights, and the gradients of inputs and parameters."""
    out, weights = module(*given, **options)
    generator = torch.Generator().manual_seed(7)
    loss = (out * torch.randn(out.shape, generator=generator)).sum()
    if weights is not None:
        loss = loss + (weights * torch.randn(weights.shape, generator=generator)).sum()
    grads = torch.autograd.grad(loss, [*given, *module.parameters()])
    return [out, weights, *grads]


def compared(module, given, close, **options):
    wanted = results(module, given, **options)
    report = plug_in(module)
    assert report.swapped == [""]
    got = results(module, given, **options)
    (_, site), *others = sites(module)
    assert (site.routed_calls, site.host_calls, others) == (1, 0, [])
    for i, (new, old) in enumerate(zip(got, wanted, strict=True)):
        if old is None or new is None:
            assert old is new
        elif old.abs().max() > 1e-6:
            close(new, old, 1e-5 if i < 2 else 1e-4)
        else:  # the bias of keys has no influence: what comes is rounding
            assert new.abs().max() < 1e-5
    unplug(module)
    for new, old in zip(results(module, given, **options), wanted, strict=True):
        assert old is new or torch.equal(new, old)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("options", MODULES)
def test_attention_with_every_option(options, mask, weights, sharpen, close):
    module = sharpen(nn.MultiheadAttention(D, H, **MODULES[options]))
    compared(module, inputs(MODULES[options]), close, **MASKS[mask], **WEIGHTS[weights])


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize(
    "mask", [{}, {"key_padding_mask": PAD[1]}, {"attn_mask": HIDDEN}, {"attn_mask": OF_HEADS[:H]}]
)
@pytest.mark.parametrize("options", ["plain", "batch_first", "kdim and vdim", "everything"])
def test_unbatched_input(options, mask, weights, sharpen, close):
    module = sharpen(nn.MultiheadAttention(D, H, **MODULES[options]))
    compared(module, inputs(MODULES[options], batched=False), close, **mask, **WEIGHTS[weights])


@pytest.mark.parametrize("options", ["plain", "batch_first"])
def test_one_key_and_those_put_behind(options, sharpen, close):
    """A mask of one key is not stretched over the key that add_bias_kv puts behind."""
    module = sharpen(nn.MultiheadAttention(D, H, add_bias_kv=True, **MODULES[options]))
    x = torch.randn(1, 1, D, requires_grad=True)
    compared(module, [x, x, x], close, key_padding_mask=torch.tensor([[True]]), need_weights=True)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("queries", [M, N])
def test_is_causal_is_a_hint(queries, padded, weights, sharpen, close):
    module = sharpen(nn.MultiheadAttention(D, H, batch_first=True))
    q, k, v = (torch.randn(B, n, D, requires_grad=True) for n in (queries, M, M))
    mask = torch.ones(queries, M, dtype=torch.bool).triu(1)
    padding = {"key_padding_mask": PAD} if padded else {}
    compared(module, [q, k, v], close, attn_mask=mask, is_causal=True, **padding, **WEIGHTS[weights])


def test_a_wrong_hint_is_followed_as_far_as_the_host_follows_it(sharpen, close):
    """Without padding and weights torch takes the hint for the mask; with either, it takes the mask."""
    module = sharpen(nn.MultiheadAttention(D, H))
    given = inputs({})
    for options in ({"need_weights": False}, {"need_weights": True}, {"key_padding_mask": PAD}):
        compared(module, given, close, attn_mask=HIDDEN, is_causal=True, **options)


def test_the_hint_alone_is_refused_as_by_the_host():
    module = nn.MultiheadAttention(D, H)
    x = torch.randn(N, B, D)
    with pytest.raises(RuntimeError, match="Need attn_mask if specifying the is_causal hint"):
        module(x, x, x, is_causal=True)
    plug_in(module)
    with pytest.raises(RuntimeError, match="is_causal is only a hint and needs attn_mask as well: got none"):
        module(x, x, x, is_causal=True)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"attn_mask": HIDDEN[:, :1]}, r"attn_mask must be \[5, 7\] or \[12, 5, 7\]: got shape \[5, 1\]"),
        ({"attn_mask": OF_HEADS[:3]}, r"attn_mask must be \[5, 7\] or \[12, 5, 7\]: got shape \[3, 5, 7\]"),
        ({"key_padding_mask": PAD[:2]}, r"key_padding_mask must be \[3, 7\]: got shape \[2, 7\]"),
    ],
)
def test_masks_of_other_shapes_are_refused(options, text):
    module = nn.MultiheadAttention(D, H)
    with pytest.raises((RuntimeError, AssertionError)):
        module(*inputs({}), **options)
    plug_in(module)
    with pytest.raises(RuntimeError, match=text):
        module(*inputs({}), **options)


@pytest.mark.parametrize("need_weights", [False, True])
def test_dropout_in_training_drops_weights_as_the_host_does(need_weights, sharpen):
    """Mean and spread over many runs, of both, and none in eval."""
    module = sharpen(nn.MultiheadAttention(D, H, dropout=0.4, batch_first=True)).train()
    x = torch.randn(1, 6, D).expand(4000, -1, -1)
    with torch.no_grad():
        host, host_weights = module(x, x, x, need_weights=need_weights, average_attn_weights=False)
        plug_in(module)
        ours, weights = module(x, x, x, need_weights=need_weights, average_attn_weights=False)
        exact = module.eval()(x[:1], x[:1], x[:1])[0]
    spread = host.std(0)
    error = spread.max() / 4000**0.5
    assert (ours.mean(0) - exact[0]).abs().max() < 5 * error
    assert (host.mean(0) - exact[0]).abs().max() < 5 * error
    assert (ours.std(0) / spread - 1).abs().max() < 0.1
    if need_weights:
        assert abs((weights == 0).float().mean() - 0.4) < 0.01
        assert abs((host_weights == 0).float().mean() - 0.4) < 0.01


@pytest.mark.parametrize("grads", [False, True])
@pytest.mark.parametrize("numbers", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
def test_rows_without_keys_are_zeros(need_weights, numbers, grads, sharpen):
    module = sharpen(nn.MultiheadAttention(D, H, batch_first=True))
    with torch.no_grad():
        module.out_proj.bias.zero_()
    x = torch.randn(B, M, D, requires_grad=grads)
    padding = PAD.clone()
    padding[1] = True
    mask = torch.zeros(M, M, dtype=torch.bool)
    mask[2] = True
    if numbers:
        padding, mask = (torch.zeros(p.shape).masked_fill(p, -math.inf) for p in (padding, mask))
    plug_in(module)
    with torch.set_grad_enabled(grads):
        out, weights = module(x, x, x, key_padding_mask=padding, attn_mask=mask, need_weights=need_weights)
    assert out.isfinite().all()
    assert (out[1] == 0).all()
    assert (out[:, 2] == 0).all()
    assert (out[0, 0] != 0).all()
    if need_weights:
        assert (weights[1] == 0).all()
        assert (weights[:, 2] == 0).all()
        torch.testing.assert_close(weights[0, 0].sum(), torch.tensor(1.0))
    if grads:
        loss = out.square().sum() + (weights.square().sum() if need_weights else 0)
        for grad in torch.autograd.grad(loss, [x, *module.parameters()]):
            assert grad.isfinite().all()
