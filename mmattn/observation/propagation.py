"""Relevance from layer to layer, in the places of each attention call and back to the tokens of the input."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mmattn.observation.token_flow import Flow, Placed

Method = Literal["rollout", "gradient"]
Fusion = Literal["mean", "max", "min"]


def propagated(
    flow: Flow, weights: list[Tensor], gradients: list[Tensor] | None, heads: Fusion
) -> tuple[Tensor, list[int]]:
    """The relevance of all tokens that entered for all tokens as they are at the end.

    Args:
        flow: where the tokens stand in each call.
        weights: ``[B, H, N, M]`` of each call.
        gradients: of the target by them, for gradient x attention; None for rollout.
        heads: how rollout takes heads together.

    Returns:
        ``[U, S]``: for each of all tokens those of its own example, and where each source begins in S.
    """
    widths = [source.width if source.shown else 0 for source in flow.sources]
    begins = [sum(widths[:i]) for i in range(len(widths))]
    columns = torch.tensor(begins)[flow.source] + flow.position
    shown = torch.tensor([source.shown for source in flow.sources])[flow.source]
    first = weights[0]
    matrix = first.new_zeros(len(flow.owner), sum(widths))
    matrix[shown, columns[shown]] = 1
    for index, call in enumerate(flow.calls):
        if gradients is None:
            matrix = _rolled(matrix, call, _fused(weights[index], heads))
            continue
        mixing = (gradients[index] * weights[index]).clamp(min=0).mean(1)
        if _is_cross(flow, call):
            matrix = _crossed(matrix, flow, call, mixing, columns)
        else:
            own = _in_places(matrix, call.q, call.shape[0] * call.shape[2])
            matrix = _put_back(matrix, call, own * call.residual + _mixed(matrix, call, mixing))
    return matrix, begins


def _fused(weights: Tensor, heads: Fusion) -> Tensor:
    if heads == "mean":
        return weights.mean(1)
    return weights.amax(1) if heads == "max" else weights.amin(1)


def _rolled(matrix: Tensor, call: Placed, weights: Tensor) -> Tensor:
    """One layer of rollout: weights plus identity, rows scaled to add up to 1; weights alone behind a pool."""
    mixed = _mixed(matrix, call, weights)
    total = weights.sum(-1).flatten()[:, None]
    if call.residual:
        own = _in_places(matrix, call.q, len(mixed))
        mixed, total = mixed + own, total + 1
    # a query that sees nothing and passes nothing on has a row of zeros
    return _put_back(matrix, call, mixed / torch.where(total == 0, torch.ones_like(total), total))


def _in_places(matrix: Tensor, slots: Tensor, count: int) -> Tensor:
    """``[count, S]``: the row of the token in each place, the mean where several were merged, else zeros."""
    placed = slots >= 0
    slots = slots[placed].to(matrix.device)
    rows = matrix.new_zeros(count, matrix.shape[1]).index_add(0, slots, matrix[placed.to(matrix.device)])
    return rows / slots.bincount(minlength=count).clamp(min=1)[:, None]


def _mixed(matrix: Tensor, call: Placed, mixing: Tensor) -> Tensor:
    """Mixing ``[B, N, M]`` times the rows of the keys, ``[B * N, S]``."""
    windows, _, _, m = call.shape
    keys: Tensor = _in_places(matrix, call.k, windows * m).unflatten(0, (windows, m))
    return (mixing @ keys).flatten(0, 1)


def _put_back(matrix: Tensor, call: Placed, rows: Tensor) -> Tensor:
    """Rows in the places of the queries as those of their tokens."""
    placed = call.q >= 0
    matrix = matrix.clone()
    matrix[placed.to(matrix.device)] = rows[call.q[placed].to(matrix.device)]
    return matrix


def _is_cross(flow: Flow, call: Placed) -> bool:
    """Whether queries and keys come from different sources, both of which go on."""
    of_q, of_k = flow.source[call.q >= 0], flow.source[call.k >= 0]
    return call.residual and not bool(torch.isin(of_q, of_k).any())


def _crossed(matrix: Tensor, flow: Flow, call: Placed, mixing: Tensor, columns: Tensor) -> Tensor:
    """Equations 10 and 11 of Chefer et al.: what queries take from another modality.

    ``R_qk + N(R_qq)^T A N(R_kk)`` and ``R_qq + A R_kq``, with N the normalised map of equations 8 and 9; where keys
    have taken from a third source before, it goes the way of ``R_kq``.
    """
    q_tokens, k_tokens = call.q >= 0, call.k >= 0
    of_q = torch.isin(flow.source, flow.source[q_tokens].unique())
    of_k = torch.isin(flow.source, flow.source[k_tokens].unique())
    if len(call.q[q_tokens].unique()) < int(q_tokens.sum()):
        raise ValueError(
            f"cross-attention must have one query for each token: got {call.name!r} with merged ones"
        )
    k_columns, q_columns = columns[of_k].unique(), columns[of_q].unique()
    result = matrix.clone()
    plain = _put_back(torch.zeros_like(matrix), call, _mixed(matrix, call, mixing))
    plain[:, k_columns] = 0  # what keys know of queries, and of anything beside the two
    result += plain
    of_keys = matrix.clone()
    of_keys[of_k] = _normalised(matrix, of_k, columns, k_columns)
    taken = _put_back(torch.zeros_like(matrix), call, _mixed(of_keys, call, mixing))
    of_queries = _normalised(matrix, of_q, columns, q_columns)
    owner = flow.owner[of_q]
    for example in owner.unique():
        rows = of_q.nonzero()[:, 0][owner == example]
        square = of_queries[owner == example][:, columns[rows]]
        result[rows[:, None], k_columns] += square.T @ taken[rows][:, k_columns]
    return result


def _normalised(matrix: Tensor, tokens: Tensor, columns: Tensor, own: Tensor) -> Tensor:
    """Rows of some tokens in the columns of their own kind: what exceeds the identity scaled to 1, plus identity."""
    rows = torch.zeros_like(matrix[tokens])
    rows[:, own] = matrix[tokens][:, own]
    index = torch.arange(len(rows)), columns[tokens]
    rows[index] -= 1
    total = rows.sum(-1, keepdim=True)
    rows = rows / torch.where(total == 0, torch.ones_like(total), total)
    rows[index] += 1
    return rows
