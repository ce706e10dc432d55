"""Self-attention over fused projections of packed tokens, forward and backward, without autograd."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmattn.backends.cpu.kernels import FLASH, Extras, above_diagonal, product
from mmattn.backends.cpu.slots import Slots, Stretch, fused_rows, slots
from mmattn.dropout import draw_keep, drop_, dropped


class SelfAttention(NamedTuple):
    """A call: lengths, heads H of width K, and how logits become weights.

    Attributes:
        lengths: of the sequences.
        heads: H.
        causal: whether each token sees those up to itself alone.
        scale: factor on the logits.
        threshold: weights are dropped with probability ``threshold / 256``.
        flash: whether torch's fused kernel runs it; it drops nothing.
        dtype: that the kernels compute in.
    """

    lengths: tuple[int, ...]
    heads: int
    causal: bool
    scale: float
    threshold: int
    flash: bool
    dtype: torch.dtype


def forward(qkv: Tensor, call: SelfAttention) -> tuple[Tensor, tuple[Any, ...]]:
    """Attention inside each sequence.

    Args:
        qkv: ``[R, 3 H K]``: queries, keys and values of all heads of T tokens, and at least one row of zeros.
        call: how.

    Returns:
        ``[R, H K]``, zeros behind the tokens as well, and what :func:`backward` needs.
    """
    how = slots(call.lengths)
    forth, _ = fused_rows(call.lengths, 3, call.heads)
    width = qkv.shape[1] // (3 * call.heads)
    laid = qkv.view(-1, width).index_select(0, forth).to(call.dtype)
    out = laid.new_empty(how.total * call.heads, width)
    kept = (_flash_forward if call.flash else _plain_forward)(laid, out, call, how)
    _, back = fused_rows(call.lengths, 1, call.heads)
    return _gathered(out, back, len(qkv), call.heads, qkv.dtype), (laid, *kept)


def backward(grad: Tensor, kept: tuple[Any, ...], call: SelfAttention) -> Tensor:
    """The gradient ``[R, 3 H K]`` of the fused projections, for that of the result, ``[R, H K]``, both with zeros
    behind the tokens."""
    how = slots(call.lengths)
    laid = kept[0]
    forth, _ = fused_rows(call.lengths, 1, call.heads)
    of_out = grad.view(-1, laid.shape[1]).index_select(0, forth).to(call.dtype)
    of_laid = torch.empty_like(laid)
    (_flash_backward if call.flash else _plain_backward)(of_out, laid, of_laid, kept[1:], call, how)
    _, back = fused_rows(call.lengths, 3, call.heads)
    return _gathered(of_laid, back, len(grad), 3 * call.heads, grad.dtype)


def _gathered(x: Tensor, back: Tensor, rows: int, pieces: int, dtype: torch.dtype) -> Tensor:
    """Rows of heads gathered as ``[rows, pieces K]``, zeros behind the tokens."""
    gathered = x.new_empty(rows * pieces, x.shape[1])
    torch.index_select(x, 0, back, out=gathered[: len(back)])
    gathered[len(back) :] = 0.0
    return gathered.view(rows, -1).to(dtype)


def _parts(x: Tensor, group: Stretch, parts: int, heads: int) -> tuple[Tensor, ...]:
    """A group in a buffer of rows, as ``parts`` views ``[count * heads, length, K]``."""
    rows = parts * heads * group.sequences * group.length
    begin = parts * heads * group.begin
    return x[begin : begin + rows].view(parts, group.sequences * heads, group.length, -1).unbind(0)


def _weights_of(flat: Tensor, group: Stretch, heads: int) -> Tensor:
    """A group's weights in a flat buffer, as a view ``[count * heads, length, length]``."""
    number = heads * group.sequences * group.length * group.length
    return flat[heads * group.weights :][:number].view(-1, group.length, group.length)


def _plain_forward(laid: Tensor, out: Tensor, call: SelfAttention, how: Slots) -> tuple[Any, ...]:
    heads = call.heads
    flat = laid.new_empty(how.weights * heads)
    for group in how.groups:
        q, k, _ = _parts(laid, group, 3, heads)
        weights = _weights_of(flat, group, heads)
        product(q, k.transpose(1, 2), call.scale, weights)
        if group.behind is not None:
            weights.view(group.sequences, heads, group.length, -1).add_(group.behind.to(weights.dtype))
        if call.causal:
            weights.add_(above_diagonal(group.length, group.length, weights.dtype))
        torch.softmax(weights, -1, out=weights)
    keep = draw_keep(flat, call.threshold) if call.threshold else None
    used = flat if keep is None else dropped(flat, keep)
    for group in how.groups:
        v = _parts(laid, group, 3, heads)[2]
        product(
            _weights_of(used, group, heads), v, 256 / (256 - call.threshold), _parts(out, group, 1, heads)[0]
        )
    return flat, keep


def _plain_backward(
    of_out: Tensor, laid: Tensor, of_laid: Tensor, kept: tuple[Any, ...], call: SelfAttention, how: Slots
) -> None:
    flat, keep = kept
    heads, raise_by = call.heads, 256 / (256 - call.threshold)
    used = flat if keep is None else dropped(flat, keep)
    of_flat = torch.empty_like(flat)
    for group in how.groups:
        (grad,), (_, _, v) = _parts(of_out, group, 1, heads), _parts(laid, group, 3, heads)
        product(
            _weights_of(used, group, heads).transpose(1, 2),
            grad,
            raise_by,
            _parts(of_laid, group, 3, heads)[2],
        )
        product(grad, v.transpose(1, 2), raise_by, _weights_of(of_flat, group, heads))
    if keep is not None:
        drop_(of_flat, keep)
    for group in how.groups:
        q, k, _ = _parts(laid, group, 3, heads)
        of_q, of_k, _ = _parts(of_laid, group, 3, heads)
        weights = _weights_of(flat, group, heads)
        of_logits = torch.ops.aten._softmax_backward_data(
            _weights_of(of_flat, group, heads), weights, -1, weights.dtype
        )
        product(of_logits, k, call.scale, of_q)
        product(of_logits.transpose(1, 2), q, call.scale, of_k)


def _extras(group: Stretch, call: SelfAttention) -> Extras:
    # what lies behind the end of a sequence is hidden from its queries by the diagonal
    return Extras(None if call.causal else group.behind, call.causal, call.scale, 0)


def _flash_forward(laid: Tensor, out: Tensor, call: SelfAttention, how: Slots) -> tuple[Any, ...]:
    sums = []
    for group in how.groups:
        q, k, v = (x.unflatten(0, (group.sequences, -1)) for x in _parts(laid, group, 3, call.heads))
        found, saved = FLASH.forward(q, k, v, _extras(group, call))
        _parts(out, group, 1, call.heads)[0].unflatten(0, (group.sequences, -1)).copy_(found)
        sums.append((found, saved[-1]))
    return (sums,)


def _flash_backward(
    of_out: Tensor, laid: Tensor, of_laid: Tensor, kept: tuple[Any, ...], call: SelfAttention, how: Slots
) -> None:
    for group, (found, log_sum) in zip(how.groups, kept[0], strict=True):
        q, k, v = (x.unflatten(0, (group.sequences, -1)) for x in _parts(laid, group, 3, call.heads))
        grad = _parts(of_out, group, 1, call.heads)[0].unflatten(0, (group.sequences, -1))
        results = FLASH.backward(grad, (q, k, v, log_sum), _extras(group, call), found)[:3]
        for target, result in zip(_parts(of_laid, group, 3, call.heads), results, strict=True):
            target.unflatten(0, (group.sequences, -1)).copy_(result)
