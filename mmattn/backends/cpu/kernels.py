"""Attention of one group of equal sequences on a CPU, forward and backward, without autograd.

Two ways: ``Flash`` is torch's fused kernel, which keeps the log-sum-exp; ``Plain`` writes out the weights,
which is faster where the matrix products are (bfloat16, short sequences), and can drop weights and give the
gradient of a bias.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from mmattn.backends.ready import Ready
from mmattn.dropout import draw_keep, drop_, dropped

#: Whether this torch has the fused kernel; the names are torch's own affair and may go.
HAS_FLASH = hasattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu") and hasattr(
    torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu_backward"
)


class Extras(NamedTuple):
    """What belongs to a group besides its queries, keys and values.

    Attributes:
        add: added to the scaled logits, broadcasting to ``[b, H, N, M]``; -inf where no key may be seen.
        causal: whether query i sees keys up to i alone.
        scale: factor on the logits.
        threshold: weights are dropped with probability ``threshold / 256``.
    """

    add: Tensor | None
    causal: bool
    scale: float
    threshold: int


class Kernel(Protocol):
    """Attention of queries ``[b, H, N, K]`` over keys and values ``[b, H, M, K]``."""

    name: str

    def forward(self, q: Tensor, k: Tensor, v: Tensor, extras: Extras) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The result ``[b, H, N, K]``, and what the backward pass needs."""

    def backward(
        self, grad: Tensor, saved: tuple[Tensor, ...], extras: Extras, out: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Gradients of q, k and v, and, where the kernel knows it, of the logits ``[b, H, N, M]``."""


class Flash:
    """torch's fused kernel; no dropout, no gradient of a bias."""

    name = "flash"

    def forward(self, q: Tensor, k: Tensor, v: Tensor, extras: Extras) -> tuple[Tensor, tuple[Tensor, ...]]:
        """As :meth:`Kernel.forward`."""
        q, k, v = adjacent(q), adjacent(k), adjacent(v)
        causal, add = _hidden(q, k, extras)
        out, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, causal, attn_mask=add, scale=extras.scale
        )
        return out, (q, k, v, log_sum)

    def backward(
        self, grad: Tensor, saved: tuple[Tensor, ...], extras: Extras, out: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """As :meth:`Kernel.backward`."""
        q, k, v, log_sum = saved
        causal, add = _hidden(q, k, extras)
        of_q, of_k, of_v = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            adjacent(grad), q, k, v, out, log_sum, 0.0, causal, attn_mask=add, scale=extras.scale
        )
        return of_q, of_k, of_v, None


def flash_of(causal: bool, scale: float) -> Ready:
    """torch's fused kernel without a drawn mask, by torch's public function, which calls it with less around it."""
    if causal and scale <= 0:  # see _hidden
        extras = Extras(None, True, scale, 0)
        return lambda q, k, v, mask: FLASH.forward(q, k, v, extras)[0]

    def flash(q: Tensor, k: Tensor, v: Tensor, mask: object) -> Tensor:
        q, k, v = adjacent(q), adjacent(k), adjacent(v)
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scale)

    return flash


def adjacent(x: Tensor) -> Tensor:
    """A tensor in which the features of a head lie side by side, as torch's kernel takes for granted."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _hidden(q: Tensor, k: Tensor, extras: Extras) -> tuple[bool, Tensor | None]:
    """Whether torch's kernel is to be causal, and what it is to add."""
    add = None if extras.add is None else extras.add.to(q.dtype)
    if not extras.causal or extras.scale > 0:
        return extras.causal, add
    # it hides keys before it scales the logits: -inf times 0 is NaN, times a negative number inf
    triangle = above_diagonal(q.shape[2], k.shape[2], q.dtype)
    return False, triangle[None, None] if add is None else add + triangle


class Plain:
    """Two products with a softmax between them; the weights are kept for the backward pass."""

    name = "plain"

    def forward(self, q: Tensor, k: Tensor, v: Tensor, extras: Extras) -> tuple[Tensor, tuple[Tensor, ...]]:
        """As :meth:`Kernel.forward`."""
        shape = (*q.shape[:3], k.shape[2])
        q, k, v = q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)
        weights = product(q, k.transpose(1, 2), extras.scale)
        if extras.add is not None:
            weights.view(shape).add_(extras.add)
        if extras.causal:
            weights.add_(above_diagonal(*shape[2:], weights.dtype))
        torch.softmax(weights, -1, out=weights)
        if not extras.threshold:
            return torch.bmm(weights, v).view(*shape[:3], -1), (q, k, v, weights)
        keep = draw_keep(weights, extras.threshold)
        out = product(dropped(weights, keep), v, 256 / (256 - extras.threshold))
        return out.view(*shape[:3], -1), (q, k, v, weights, keep)

    def backward(
        self, grad: Tensor, saved: tuple[Tensor, ...], extras: Extras, out: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """As :meth:`Kernel.backward`."""
        q, k, v, weights, *keep = saved
        lead = grad.shape[:2]
        grad = grad.flatten(0, 1)
        raise_by = 256 / (256 - extras.threshold)
        used = dropped(weights, keep[0]) if keep else weights
        of_v = product(used.transpose(1, 2), grad, raise_by)
        of_weights = product(grad, v.transpose(1, 2), raise_by)
        if keep:
            drop_(of_weights, keep[0])
        of_logits = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype)
        of_q = product(of_logits, k, extras.scale)
        of_k = product(of_logits.transpose(1, 2), q, extras.scale)
        of_q, of_k, of_v, of_logits = (x.unflatten(0, lead) for x in (of_q, of_k, of_v, of_logits))
        return of_q, of_k, of_v, of_logits


def product(a: Tensor, b: Tensor, factor: float, out: Tensor | None = None) -> Tensor:
    """``factor * a @ b`` for ``[batch, rows, columns]``."""
    if factor == 1.0:
        return torch.bmm(a, b, out=out)
    if factor == 0.0:  # in half precision the unused summand would shine through
        return a.new_zeros(len(a), a.shape[1], b.shape[2]) if out is None else out.zero_()
    return torch.baddbmm(a.new_empty(()), a, b, beta=0, alpha=factor, out=out)


@lru_cache(maxsize=32)
def above_diagonal(rows: int, columns: int, dtype: torch.dtype) -> Tensor:
    """What hides the keys after each query: -inf above the diagonal, 0 elsewhere."""
    return torch.full((rows, columns), -torch.inf, dtype=dtype).triu_(1)


FLASH, PLAIN = Flash(), Plain()
