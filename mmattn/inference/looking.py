"""Where a model looks: the weights of one of its attention layers, seen from beside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmattn.attention import MultiHeadAttention
from mmattn.observation import observe


@dataclass(frozen=True, eq=False)
class Look:
    """Where a model looked in one item.

    Attributes:
        weights: ``[n]``, of each token; they add up to 1, or less where something that is no token was looked at.
        regions: ``[n, 2 A]``, where the tokens lie: see :meth:`mmattn.adapters.Adapter.regions`.
        title: what the weights are.
    """

    weights: Tensor
    regions: Tensor
    title: str


def look_of_layer(
    model: nn.Module,
    run: Callable[[], Any],
    regions: Tensor,
    under: str = "",
    queries: Tensor | None = None,
) -> Look:
    """The weights of the pooling heads, or of the last attention, the mean over heads and queries.

    Args:
        model: ours.
        run: runs it on one item.
        regions: ``[n, 2 A]``, where its tokens lie. Tokens in front of them, such as registers, are left out.
        under: where the attention is looked for, such as ``"encoder."``.
        queries: which queries count, by their numbers or a boolean ``[N]``; ``None``: all.

    Raises:
        ValueError: the model has no attention.
    """
    names = [name for name, part in model.named_modules() if isinstance(part, MultiHeadAttention)]
    inside = [name for name in names if name.startswith(under)]
    if not inside:
        raise ValueError(f"a look needs attention in the model: got none under {under or 'it'!r}")
    layer = inside[-1]  # a head comes after its encoder
    with torch.inference_mode(), observe(model, weights=True, layers=[layer]) as record:
        run()
    heads = record[layer].weights[0].float().cpu()  # [H, N, M]
    rows = heads if queries is None else heads[:, queries]
    weights = rows.mean((0, 1))[heads.shape[-1] - len(regions) :]
    of = "pooling attention" if layer.startswith("head.") else "attention of the last layer"
    return Look(weights, regions.cpu(), f"{of}, mean of {len(heads)} heads")
