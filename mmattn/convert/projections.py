"""Four separate projections, the way most of transformers' models keep them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

from mmattn.attention import MultiHeadAttention
from mmattn.convert.assembly import Affine, affine, assemble, put, split, stacked


class Projections(NamedTuple):
    """The projections of queries, keys, values and the output."""

    q: nn.Linear
    k: nn.Linear
    v: nn.Linear
    out: nn.Linear


def from_projections(
    q: nn.Module,
    k: nn.Module,
    v: nn.Module,
    out: nn.Module,
    num_heads: int,
    num_kv_heads: int | None = None,
    *,
    training: bool | None = None,
    **options: Any,
) -> MultiHeadAttention:
    """A MultiHeadAttention of four projections ``nn.Linear`` (or transformers' ``Conv1D``, which is transposed).

    Ours fuses queries, keys and values, or keys and values where their inputs have another width than the
    queries' (``context_dim``). A bias that only some of the fused have is zeros in the others.

    Args:
        q: ``[D] -> [H * K]``.
        k, v: ``[D or context width] -> [H_kv * K]``.
        out: ``[H * K] -> [D]``.
        num_heads: heads H of the queries.
        num_kv_heads: heads of the keys and values, each serving H / H_kv neighbouring heads of queries.
        training: mode of the result; ``None`` takes that of ``q``.
        options: ``dropout``, ``scale``, ``positions`` and whatever else MultiHeadAttention takes; ``q_norm``
            and ``k_norm``: modules for the heads ``[..., K]``, copied; ``sinks``: a tensor ``[H]``, copied.

    Raises:
        TypeError: a projection is no plain ``nn.Linear``.
        ValueError: the widths or heads do not fit, or only some of the fused projections are frozen.

    Example:
        >>> q, k, v, out = nn.Linear(8, 8), nn.Linear(8, 4), nn.Linear(8, 4), nn.Linear(8, 8)
        >>> from_projections(q, k, v, out, num_heads=4, num_kv_heads=2)
        MultiHeadAttention(
          embed_dim=8, num_heads=4, num_kv_heads=2, head_dim=2
        ...
    """
    num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
    of_q, of_k, of_v, of_out = (
        affine(name, layer) for name, layer in (("q", q), ("k", k), ("v", v), ("out", out))
    )
    head_dim = _check_widths(of_q, of_k, of_v, of_out, num_heads, num_kv_heads)
    if of_k.weight.shape[1] == of_q.weight.shape[1]:
        project_in = [stacked("q, k and v", [of_q, of_k, of_v])]
    else:
        project_in = [of_q, stacked("k and v", [of_k, of_v])]
    return assemble(
        project_in,
        of_out,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        training=q.training if training is None else training,
        **options,
    )


def to_projections(module: MultiHeadAttention) -> Projections:
    """Copies of the projections of a MultiHeadAttention, as four ``nn.Linear``.

    What else the module has (norms, positions, scale, ...) is not among them.

    Example:
        >>> to_projections(MultiHeadAttention(8, 4, num_kv_heads=2)).k
        Linear(in_features=8, out_features=4, bias=True)
    """
    layers = [_linear(part) for part in (*split(module), affine("out_proj", module.out_proj))]
    return Projections(*(layer.train(module.training) for layer in layers))


def _linear(values: Affine) -> nn.Linear:
    width_out, width_in = values.weight.shape
    layer = nn.Linear(width_in, width_out, bias=values.bias is not None, device=torch.device("meta"))
    put(layer, values)
    return layer


def _check_widths(q: Affine, k: Affine, v: Affine, out: Affine, num_heads: int, num_kv_heads: int) -> int:
    """The width of a head, where everything fits."""
    shapes = [list(part.weight.shape) for part in (q, k, v, out)]
    if num_heads < 1 or num_kv_heads < 1 or len(q.weight) % num_heads:
        raise ValueError(
            f"num_heads must divide the outputs of q: got num_heads={num_heads} for {len(q.weight)} outputs"
        )
    head_dim = len(q.weight) // num_heads
    of_k = [num_kv_heads * head_dim, shapes[1][1]]
    if shapes[1] != of_k or shapes[2] != of_k or shapes[3] != shapes[0][::-1]:
        raise ValueError(
            f"the weights of q, k, v and out must be [H * K, D], twice [H_kv * K, D_kv] and [D, H * K] with "
            f"H={num_heads}, H_kv={num_kv_heads}: got {', '.join(map(str, shapes))}"
        )
    return head_dim
