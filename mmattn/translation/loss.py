"""Cross-entropy over a large vocabulary, from the features before the output layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

#: Tokens whose logits are held at a time.
_CHUNK = 1024


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """``F.cross_entropy(F.linear(hidden, weight, bias), labels, label_smoothing=...)``, a piece at a time.

    With thousands of tokens and a vocabulary of thousands, most of the time of the plain form goes into passes over
    logits in float32. Here a piece of them is made, turned into probabilities, used for the gradients and
    forgotten; what label smoothing and the true ids add to the gradients is put in without another pass over the
    logits. Under autocast the products are of its type.

    Args:
        hidden: ``[T, D]``.
        weight: ``[V, D]``.
        bias: ``[V]``.
        labels: ``[T]``, below V.
        label_smoothing: share of the target that is spread over all of V, in [0, 1).

    Raises:
        ValueError: there is no token, or label_smoothing is out of range.

    Example:
        >>> hidden, weight, bias = torch.randn(5, 3), torch.randn(7, 3), torch.randn(7)
        >>> labels = torch.tensor([0, 6, 2, 2, 4])
        >>> ours = linear_cross_entropy(hidden, weight, bias, labels, 0.1)
        >>> theirs = F.cross_entropy(F.linear(hidden, weight, bias), labels, label_smoothing=0.1)
        >>> torch.allclose(ours, theirs)
        True
    """
    if not len(hidden):
        raise ValueError("hidden must hold at least one token: got none")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must lie in [0, 1): got {label_smoothing}")
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    with torch.autocast(device, enabled=False):
        if not torch.is_grad_enabled() or not any(x.requires_grad for x in (hidden, weight, bias)):
            return _plain(hidden, weight, bias, labels, label_smoothing, dtype)
        result: Tensor = _LinearCrossEntropy.apply(hidden, weight, bias, labels, label_smoothing, dtype)  # type: ignore[no-untyped-call]
        return result


def _plain(
    hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, smoothing: float, dtype: torch.dtype
) -> Tensor:
    total = hidden.new_zeros((), dtype=_wide(hidden.dtype))
    weight, bias = weight.to(dtype), bias.to(dtype)
    for part, wanted in zip(hidden.to(dtype).split(_CHUNK), labels.split(_CHUNK), strict=True):
        logits = F.linear(part, weight, bias).to(total.dtype)
        total += F.cross_entropy(logits, wanted, label_smoothing=smoothing, reduction="sum")
    return total / len(hidden)


class _LinearCrossEntropy(torch.autograd.Function):
    """The gradients are made along with the loss: softmax minus target, where the target is spread thin."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        labels: Tensor,
        smoothing: float,
        dtype: torch.dtype,
    ) -> Tensor:
        tokens, classes = len(hidden), len(weight)
        wide = _wide(hidden.dtype)
        h, w, b = hidden.to(dtype), weight.to(dtype), bias.to(dtype)
        of_hidden = torch.empty_like(hidden, dtype=wide)
        of_weight = torch.zeros_like(weight, dtype=wide)
        of_bias = torch.zeros_like(bias, dtype=wide)
        logp = torch.empty(tokens, device=hidden.device, dtype=wide)  # of the true ids
        for start in range(0, tokens, _CHUNK):
            part = slice(start, start + _CHUNK)
            p = F.linear(h[part], w, b).softmax(-1)
            # the smallest normal number keeps the logarithm finite where a probability vanishes
            logp[part] = (
                p.gather(1, labels[part, None])[:, 0].to(wide).clamp_min(torch.finfo(wide).tiny).log()
            )
            of_hidden[part] = p @ w
            of_weight += p.T @ h[part]
            # a product: a sum over rows in half precision would first copy all of them to float32
            of_bias += (p.new_ones(1, len(p)) @ p)[0]
        true = 1 - smoothing
        chosen = weight.index_select(0, labels).to(wide)
        of_hidden -= true * chosen
        of_weight.index_add_(0, labels, h.to(wide), alpha=-true)
        of_bias.index_add_(0, labels, torch.ones_like(logp), alpha=-true)
        loss = -true * logp.sum()
        if smoothing:
            # the mean of all log-probabilities is the mean logit less the logarithm of the normaliser
            mean, sums = weight.to(wide).mean(0), h.sum(0, dtype=wide)
            normaliser = (chosen * hidden).sum(-1) + bias.index_select(0, labels) - logp
            loss -= smoothing * ((sums * mean).sum() + tokens * bias.mean() - normaliser.sum())
            of_hidden -= smoothing * mean
            of_weight -= smoothing / classes * sums
            of_bias -= smoothing / classes * tokens
        ctx.save_for_backward(
            of_hidden.div_(tokens).to(hidden.dtype),
            of_weight.div_(tokens).to(weight.dtype),
            of_bias.div_(tokens).to(bias.dtype),
        )
        return loss / tokens

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (*(saved * grads[0] for saved in ctx.saved_tensors), None, None, None)


def _wide(dtype: torch.dtype) -> torch.dtype:
    """The type to add up in."""
    return torch.float64 if dtype == torch.float64 else torch.float32
