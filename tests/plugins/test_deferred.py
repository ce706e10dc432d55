"""Attention that a host spells out: what is put off gives what the host's own functions give."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mmattn.plugins.site import sites
from mmattn.plugins.swap import plug_in, unplug

Steps = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class _SpelledOut(nn.Module):
    """Attention that takes its steps from outside; its source has a softmax and a product (a @ b)."""

    def __init__(self, steps: Steps) -> None:
        super().__init__()
        self.num_heads = 2
        self.steps = steps

    def forward(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        return self.steps(q, k, v, bias)  # softmax(q @ k) @ v


def _in_place(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    logits = q @ k.transpose(-2, -1)
    logits.mul_(0.3)
    logits.add_(bias)
    logits.masked_fill_(bias > 1, float("-inf"))
    return logits.softmax(-1) @ v


def _through_a_view(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    logits = q @ k.transpose(-2, -1)
    logits.view(-1, *logits.shape[-2:]).add_(bias[0, 0])
    return logits.softmax(-1) @ v


def _tail(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    logits = (q @ k.transpose(-2, -1)) * 0.3
    logits[:, :, 1:, 2:] += bias[..., 1:, 2:]
    return logits.softmax(-1) @ v


def _turned(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    weights = ((q @ k.mT) / 3 + bias).softmax(-1)
    out = v.transpose(-2, -1) @ weights.transpose(-2, -1)
    return out.view(out.shape[0], -1, out.shape[-1])


def _subtracted(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    return torch.softmax((q @ k.transpose(-2, -1) - bias) * 0.5, dim=-1) @ v


def _read(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    logits = q @ k.transpose(-2, -1)
    logits = logits - logits.amax(-1, keepdim=True)
    negative = -logits
    weights = (bias - negative).softmax(-1)
    return (weights**2) @ v


def _mixed_heads(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    return (q @ k.transpose(-2, -1)).softmax(-1).flip(1) @ v


STEPS = {
    "in place": (_in_place, True),
    "in place through a view": (_through_a_view, False),
    "a tail of queries and keys": (_tail, True),
    "turned": (_turned, True),
    "subtracted": (_subtracted, True),
    "logits that are read": (_read, False),
    "heads that are mixed": (_mixed_heads, False),
}


@pytest.mark.parametrize("name", STEPS)
def test_steps_give_what_the_host_gives(name: str):
    steps, through_core = STEPS[name]
    model = _SpelledOut(steps)
    q, k, v, bias = (
        torch.randn(3, 2, *shape, requires_grad=True) for shape in ((5, 4), (7, 4), (7, 4), (5, 7))
    )
    with torch.no_grad():
        bias[..., 0] = 0.0  # no row is hidden as a whole
    wanted = steps(q, k, v, bias)
    of_wanted = torch.autograd.grad(wanted.square().sum(), (q, k, v))
    plug_in(model)
    found = model(q, k, v, bias)
    of_found = torch.autograd.grad(found.square().sum(), (q, k, v))
    site = next(site for _, site in sites(model))
    unplug(model)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(of_found, of_wanted)
    assert site.routed_calls == int(through_core)
    assert site.host_calls == int(not through_core)


def test_a_host_may_change_the_result_in_place():
    def steps(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
        out = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        out[:, :, 1:] += q[:, :, 1:]
        return out

    model = _SpelledOut(steps)
    q, k, v = (torch.randn(3, 2, n, 4, requires_grad=True) for n in (5, 7, 7))
    wanted = steps(q, k, v, q)
    plug_in(model)
    found = model(q, k, v, q)
    torch.testing.assert_close(found, wanted)
    found.sum().backward()
    assert next(site for _, site in sites(model)).routed_calls == 1
