"""Packed attention on a CPU: few kernel calls, and one node in the autograd graph."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmattn.backends.base import Run, equal_runs

#: Sequences of nearly equal length share a kernel call while it computes at most this many times their tokens.
_WASTE = 1.25
#: Longer sequences always get a call of their own length: there a kernel costs more than its call.
_LONGEST_SHARED = 256


class Plan(NamedTuple):
    """How the sequences of a batch go through the kernel.

    Attributes:
        groups: sequences that share a call, by rising length, with the longest queries and keys of each.
        q_slots, k_slots: the row of each token where the groups lie one after the other, each sequence at the
            length of its group; None where all tokens stay where they are.
        masks: for each group None, or what is added to the logits, ``[count, 1, 1, M]``: -inf behind the end.
    """

    groups: tuple[Run, ...]
    q_slots: Tensor | None
    k_slots: Tensor | None
    masks: tuple[Tensor | None, ...]


@lru_cache(maxsize=64)
def plan(q_lengths: tuple[int, ...], k_lengths: tuple[int, ...]) -> Plan:
    """The plan for packed sequences of these lengths; the layers of a model share it."""
    order = sorted(range(len(k_lengths)), key=lambda i: (k_lengths[i], q_lengths[i]))
    of_q, of_k = [q_lengths[i] for i in order], [k_lengths[i] for i in order]
    groups = _merged(list(equal_runs(of_q, of_k)))
    masks, begin = [], 0
    for run in groups:
        lengths = torch.tensor(of_k[begin : begin + run.sequences])
        begin += run.sequences
        behind = torch.arange(run.keys) >= lengths[:, None]
        mask = torch.zeros(behind.shape).masked_fill(behind, -torch.inf)
        masks.append(mask[:, None, None] if bool(behind.any()) else None)
    q_slots = _slots(q_lengths, order, [(run.sequences, run.queries) for run in groups])
    k_slots = _slots(k_lengths, order, [(run.sequences, run.keys) for run in groups])
    return Plan(tuple(groups), q_slots, k_slots, tuple(masks))


def _merged(runs: Sequence[Run]) -> list[Run]:
    """Join neighbouring runs of nearly equal lengths."""
    groups: list[Run] = []
    real = [0, 0]  # tokens of the last group, without what fills it up
    for run in runs:
        tokens = [run.sequences * run.queries, run.sequences * run.keys]
        if groups:
            last = groups[-1]
            joint = Run(
                last.sequences + run.sequences, max(last.queries, run.queries), max(last.keys, run.keys)
            )
            sums = [real[0] + tokens[0], real[1] + tokens[1]]
            fits = joint.sequences * joint.queries <= _WASTE * sums[0]
            fits = fits and joint.sequences * joint.keys <= _WASTE * sums[1]
            short = max(joint.queries, joint.keys) <= _LONGEST_SHARED
            if fits and short and min(last.queries, last.keys, run.queries, run.keys) > 0:
                groups[-1], real = joint, sums
                continue
        groups.append(run)
        real = tokens
    return groups


def _slots(lengths: Sequence[int], order: list[int], groups: Sequence[tuple[int, int]]) -> Tensor | None:
    """The row of each token when the sequences are put in order and filled up; None when that moves none."""
    steps = torch.tensor([longest for count, longest in groups for _ in range(count)], dtype=torch.long)
    starts = torch.empty_like(steps)
    starts[torch.tensor(order, dtype=torch.long)] = steps.cumsum(0) - steps
    sizes = torch.tensor(lengths, dtype=torch.long)
    shift = starts - (sizes.cumsum(0) - sizes)
    if int(steps.sum()) == int(sizes.sum()) and not bool(shift.any()):
        return None
    return torch.arange(int(sizes.sum())) + shift.repeat_interleave(sizes)


class PackedAttention(torch.autograd.Function):
    """Attention inside each sequence, over torch's CPU kernels and their saved log-sum-exp.

    Autograd sees one node instead of one for every slice, transposition and concatenation.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, how: Plan, scale: float) -> Tensor:
        """q ``[T, H, K]``, k and v ``[T_k, H, K]``, of one dtype, to ``[T, H, K]``."""
        wide = _lay(q, how.q_slots, how), _lay(k, how.k_slots, how), _lay(v, how.k_slots, how)
        q_parts, k_parts, v_parts = (
            _views(x, how, keys) for x, keys in zip(wide, (False, True, True), strict=True)
        )
        parts: list[Tensor] = []
        sums: list[Tensor] = []
        for index, run in enumerate(how.groups):
            if not run.queries or not run.keys:
                parts.append(torch.zeros_like(q_parts[index]))
                sums.append(q.new_empty(0))
                continue
            result, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                q_parts[index], k_parts[index], v_parts[index],
                attn_mask=_cast(how.masks[index], q.dtype), scale=scale,
            )  # fmt: skip
            parts.append(result)
            sums.append(log_sum)
        out = _rows(parts, wide[0])
        ctx.save_for_backward(*wide, out, *sums)
        ctx.how, ctx.scale = how, scale
        return out if how.q_slots is None else out.index_select(0, how.q_slots)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of q, k and v."""
        q, k, v, out, *sums = ctx.saved_tensors
        how: Plan = ctx.how
        of_q = [_views(x, how, keys=False) for x in (_lay(grads[0], how.q_slots, how), q, out)]
        of_k = [_views(x, how, keys=True) for x in (k, v)]
        parts: list[list[Tensor]] = [[], [], []]
        for index, (run, log_sum) in enumerate(zip(how.groups, sums, strict=True)):
            if run.queries and run.keys:
                found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                    of_q[0][index], of_q[1][index], of_k[0][index], of_k[1][index], of_q[2][index], log_sum,
                    0.0, False, attn_mask=_cast(how.masks[index], q.dtype), scale=ctx.scale,
                )  # fmt: skip
            else:
                found = [torch.zeros_like(x) for x in (of_q[1][index], of_k[0][index], of_k[1][index])]
            for of_one, part in zip(parts, found, strict=True):
                of_one.append(part)
        results = [_rows(of_one, x) for of_one, x in zip(parts, (q, k, v), strict=True)]
        slots = (how.q_slots, how.k_slots, how.k_slots)
        back = [x if at is None else x.index_select(0, at) for x, at in zip(results, slots, strict=True)]
        return *back, None, None


def _lay(x: Tensor, slots: Tensor | None, how: Plan) -> Tensor:
    """Put tokens ``[T, H, K]`` into the rows of the plan, zeros behind the ends."""
    if slots is None:
        return x
    rows = sum(run.sequences * (run.queries if slots is how.q_slots else run.keys) for run in how.groups)
    return x.new_zeros(rows, *x.shape[1:]).index_copy_(0, slots, x)


def _views(x: Tensor, how: Plan, keys: bool) -> list[Tensor]:
    """Each group of ``[rows, H, K]`` as a view ``[count, H, N, K]``."""
    lengths = [run.keys if keys else run.queries for run in how.groups]
    parts = x.split([run.sequences * n for run, n in zip(how.groups, lengths, strict=True)])
    return [
        part.view(run.sequences, n, *x.shape[1:]).transpose(1, 2)
        for part, run, n in zip(parts, how.groups, lengths, strict=True)
    ]


def _rows(parts: list[Tensor], like: Tensor) -> Tensor:
    """Groups ``[count, H, N, K]`` back to ``[rows, H, K]``; one group alone is not copied, since the kernels
    lay their results out as ``[count, N, H, K]``."""
    if not parts:
        return torch.zeros_like(like)
    flat = [part.transpose(1, 2).reshape(-1, *like.shape[1:]) for part in parts]
    return flat[0] if len(flat) == 1 else torch.cat(flat)


def _cast(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return mask if mask is None else mask.to(dtype)
