"""Weights under which attention is far from uniform, so that a wrong weight is seen in the result."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from benchmarks.plugins.zoo.case import Inputs

_QUERIES_OR_KEYS = {"qkv", "qkvs", "q", "k", "q_norm", "k_norm", "norm_q", "norm_k", "pool_q", "pool_k"}


def redraw(model: nn.Module, inputs: Inputs, gain: float = 1.5) -> None:
    """Draw all weights anew, in place.

    Products get a gain above 1, which makes the softmax sharp; scales of layers leave their small first values,
    or attention would hardly count; and batch norms are given the statistics of these inputs, without which the
    gains of many convolutions multiply.

    Args:
        model: is in evaluation mode afterwards.
        inputs: for the statistics.
        gain: standard deviation of what a linear layer gives for inputs of standard deviation 1.
    """
    model.eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.is_floating_point():
                p.copy_(_drawn(name, p, gain, generator))
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
        momenta = [m.momentum for m in norms]
        for m in norms:
            m.momentum = 1.0
            m.train()
        model(*inputs.args, **inputs.kwargs)
        for m, momentum in zip(norms, momenta, strict=True):
            m.momentum = momentum
            assert m.running_var is not None
            m.running_var.clamp_(min=0.1)  # features that hardly differ in so few pictures would be blown up
        model.eval()


def _drawn(name: str, p: Tensor, gain: float, generator: torch.Generator) -> Tensor:
    noise = torch.randn(p.shape, generator=generator)
    last = name.rsplit(".", 1)[-1]
    if "logit_scale" in last or last == "tau":
        return 2.0 + 0.1 * noise  # of a cosine, as an exponent or a factor
    if (
        p.ndim < 2 and last == "weight" and _QUERIES_OR_KEYS & set(name.split("."))
    ):  # a norm right before the product
        return gain + 0.2 * noise
    if p.ndim < 2:
        return 0.1 * noise if "bias" in last else 1.0 + 0.2 * noise
    if p.shape[0] == 1 or "pos" in last or "token" in last:
        return 0.5 * noise
    deviation = gain / math.sqrt(p[0].numel())
    return noise * deviation
