"""Recording the attention weights of our own modules."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mmattn.attention import MultiHeadAttention
from mmattn.functional import attention_weights
from mmattn.tokens import TokenBatch

Weights = dict[str, list[list[Tensor]]]


@contextmanager
def observe_weights(model: nn.Module) -> Iterator[Weights]:
    """Record the weights of every :class:`MultiHeadAttention` inside ``model`` while the block runs.

    The weights are computed a second time from the module's inputs, so that the outputs, and whatever fused
    kernel makes them, stay as they are, bit for bit. This takes memory for all N x M weights.

    Yields:
        By module name, a list of calls; a call is a list of one tensor ``[H, N, M]`` (float32) for each
        sequence (packed) or row (dense). Each row of weights adds up to 1, or to 0 without any allowed key.

    Raises:
        ValueError: the model has no multi-head attention of ours.

    Example:
        >>> from mmattn import TokenBatch, build_encoder
        >>> encoder = build_encoder(embed_dim=8, depth=1, num_heads=2).eval()
        >>> with observe_weights(encoder) as weights:
        ...     _ = encoder(TokenBatch(torch.randn(5, 8), [3, 2]))
        >>> [w.shape for w in weights["blocks.0.attention"][0]]
        [torch.Size([2, 3, 3]), torch.Size([2, 2, 2])]
    """
    parts = {name: part for name, part in model.named_modules() if isinstance(part, MultiHeadAttention)}
    if not parts:
        raise ValueError(f"the model must have a MultiHeadAttention: got {type(model).__name__} without any")
    found: Weights = {name: [] for name in parts}

    def recorder(name: str) -> Any:
        def record(part: MultiHeadAttention, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
            found[name].append(_weights(part, *args, **kwargs))

        record.only_looks = True  # type: ignore[attr-defined]  # so that fused blocks stay fused
        return record

    handles = [part.register_forward_hook(recorder(name), with_kwargs=True) for name, part in parts.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def _weights(
    part: MultiHeadAttention,
    query: TokenBatch | Tensor,
    context: TokenBatch | Tensor | None = None,
    *,
    mask: Any = None,
    bias: Tensor | None = None,
    tables: Tensor | None = None,
) -> list[Tensor]:
    q, k, _ = part.project(query, context, tables)
    q, k = q.float(), k.float()
    options: dict[str, Any] = {"mask": mask, "scale": part.scale}
    if not isinstance(query, TokenBatch):
        weights = attention_weights(q.transpose(1, 2), k.transpose(1, 2), bias=bias, **options)
        return list(weights)
    keys = query if context is None else context
    assert isinstance(keys, TokenBatch)
    rows = []
    for q_one, k_one in zip(q.split(query.sizes), k.split(keys.sizes), strict=True):
        of_one = None if bias is None else bias[..., : len(q_one), : len(k_one)]
        dense = (x.transpose(0, 1)[None] for x in (q_one, k_one))
        rows.append(attention_weights(*dense, bias=of_one, **options)[0])
    return rows
