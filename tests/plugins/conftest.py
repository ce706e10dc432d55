"""What the tests of plug-ins share: weights that make attention far from uniform, and comparisons."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_flatten

from mmattn.plugins import plug_in, unplug
from mmattn.plugins.calls import weights_of
from mmattn.plugins.site import Seen, sites
from mmattn.plugins.swap import Report, attach, detach
from tests.plugins.torch_cases import Classifier


@pytest.fixture
def sharpen() -> Callable[[nn.Module], nn.Module]:
    """Draw the weights anew, larger than at the start, so that attention is far from uniform."""

    def draw(model: nn.Module) -> nn.Module:
        numbers = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for name, p in model.named_parameters():
                if p.ndim >= 2:
                    p.copy_(torch.randn(p.shape, generator=numbers) * 1.5 / p[0].numel() ** 0.5)
                elif "bias" in name:
                    p.copy_(torch.randn(p.shape, generator=numbers) * 0.1)
        return model

    return draw


@pytest.fixture
def close() -> Callable[..., None]:
    """Assert that two tensors agree, to a fraction of the largest number."""

    def compare(got: Tensor, wanted: Tensor, share: float = 1e-5) -> None:
        assert got.shape == wanted.shape
        assert wanted.abs().max() > 0
        assert (got - wanted).abs().max() <= share * wanted.abs().max()

    return compare


class HostWeights:
    """The weights that a host computes or would compute, found by standing in for torch's functions."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[Tensor] = []
        self._patch = monkeypatch

    def __call__(self, model: nn.Module, *args: object, **kwargs: object) -> list[Tensor]:
        """The weights ``[..., N, M]`` of each attention call of a model that is not plugged in."""
        self.calls = []
        with self._patch.context() as patch:
            patch.setattr(F, "scaled_dot_product_attention", self._sdpa)
            patch.setattr(F, "multi_head_attention_forward", self._multi_head)
            patch.setattr(Tensor, "softmax", self._softmax(Tensor.softmax))
            model(*args, **kwargs)
        return self.calls

    def _sdpa(self, q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None):
        assert not is_causal
        assert not dropout_p
        logits = q.double() @ k.double().mT * (q.shape[-1] ** -0.5 if scale is None else scale)
        if attn_mask is not None:
            logits = (
                logits.masked_fill(~attn_mask, -torch.inf)
                if attn_mask.dtype == torch.bool
                else logits + attn_mask
            )
        weights = torch.softmax(logits, -1)
        self.calls.append(weights.detach().float())
        return weights.to(v.dtype) @ v

    def _multi_head(self, *args, **kwargs):
        wanted = kwargs | {"need_weights": True, "average_attn_weights": False}
        before = len(self.calls)
        out, weights = _MULTI_HEAD(*args, **wanted)
        self.calls[before:] = [weights.detach()]  # its own softmax is no further call
        return out, None

    def _softmax(self, softmax):
        def recorded(x, dim=-1, *args, **kwargs):
            out = softmax(x, dim, *args, **kwargs)
            if out.ndim > 2 and dim in (-1, out.ndim - 1):
                self.calls.append(out.detach().clone())
            return out

        return recorded


_MULTI_HEAD = F.multi_head_attention_forward


@pytest.fixture
def host_weights(monkeypatch: pytest.MonkeyPatch) -> HostWeights:
    """See :class:`HostWeights`."""
    return HostWeights(monkeypatch)


def tensors(out: object) -> list[Tensor]:
    """All floating-point tensors of a result, in order."""
    return [x for x in tree_flatten(out)[0] if isinstance(x, Tensor) and x.is_floating_point()]


@pytest.fixture
def checked(close: Callable[..., None], host_weights: HostWeights) -> Callable[..., None]:
    """Outputs, gradients and weights of a model with the core and of the host, and the host again after that."""

    def gradients(model: nn.Module, outs: list[Tensor]) -> list[Tensor]:
        loss = sum(x.square().sum() for x in outs if x.requires_grad)
        params = list(model.parameters())
        return [
            torch.zeros_like(p) if g is None else g
            for p, g in zip(params, torch.autograd.grad(loss, params, allow_unused=True), strict=True)
        ]

    def check(
        model: nn.Module, *args: object, valid: Callable[[Tensor], Tensor] = lambda x: x, count: int = 0
    ) -> None:
        model.eval()
        wanted = tensors(model(*args))
        grads = gradients(model, wanted)
        weights = host_weights(model, *args)
        with torch.no_grad():
            before = tensors(model(*args))
        keys = list(model.state_dict())

        report = plug_in(model)
        assert len(report.swapped) == count
        got = tensors(model(*args))
        for new, old in zip(got, wanted, strict=True):
            close(valid(new), valid(old))
        top = max(g.abs().max() for g in grads)
        for new, old in zip(gradients(model, got), grads, strict=True):
            assert (new - old).abs().max() <= 1e-4 * max(old.abs().max(), 1e-3 * top)
        assert list(model.state_dict()) == keys
        assert sum(site.host_calls for _, site in sites(model)) == 0
        assert sum(site.routed_calls for _, site in sites(model)) == len(weights)
        _same_weights(_seen(model, *args), weights)
        unplug(model)

        attach(model, Report(), routed=False)
        _same_weights(_seen(model, *args), weights)
        with torch.no_grad():
            looked_at = tensors(model(*args))
        detach(model)
        with torch.no_grad():
            after = tensors(model(*args))
        for old, looked, new in zip(before, looked_at, after, strict=True):
            assert torch.equal(old, looked)
            assert torch.equal(old, new)

    return check


def _seen(model: nn.Module, *args: object) -> list[Tensor]:
    found: list[Tensor] = []

    def look(shown: Seen) -> None:
        found.append(shown.weights.clone() if shown.weights is not None else weights_of(shown))

    for _, site in sites(model):
        site.watchers.append(look)
    with torch.no_grad():
        model(*args)
    for _, site in sites(model):
        site.watchers.remove(look)
    return found


def _same_weights(got: list[Tensor], wanted: list[Tensor]) -> None:
    assert len(got) == len(wanted)
    for new, old in zip(got, wanted, strict=True):
        assert new.ndim == 4
        assert (new.flatten(0, 1) - old.reshape(-1, *old.shape[-2:])).abs().max() < 5e-5
        assert new.std() > 1e-3, "weights far from uniform"


@pytest.fixture
def pair(sharpen: Callable[[nn.Module], nn.Module]) -> Callable[..., tuple[nn.Module, nn.Module, Tensor]]:
    """A classifier, one with the same weights that is plugged in, and an input."""

    def make(**options: Any) -> tuple[nn.Module, nn.Module, Tensor]:
        model = sharpen(Classifier(**options))
        ours = copy.deepcopy(model)
        plug_in(ours)
        return model, ours, torch.randn(4, 7, 6)

    return make
