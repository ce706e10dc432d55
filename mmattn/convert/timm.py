"""timm's Attention, the one of its vision transformers."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mmattn.attention import MultiHeadAttention
from mmattn.convert.assembly import affine, assemble, check_carried, check_kind, put, split, stacked

if TYPE_CHECKING:
    from timm.models.vision_transformer import Attention  # type: ignore[attr-defined]  # not in its __all__


def from_timm(module: Attention) -> MultiHeadAttention:
    """A ``timm.models.vision_transformer.Attention`` as ours.

    Projections have a bias where timm's have one (``qkv_bias``, ``proj_bias``), norms of queries and keys are copied.

    Raises:
        TypeError: the module is another one, or a subclass with a forward of its own.
        ValueError: it has a norm after attention (``scale_norm``), a gate, an output width of its own, or
            dropout after the projection: ours has none, so set ``proj_drop.p = 0`` and apply it to the result.

    Example:
        >>> from timm.models.vision_transformer import Attention
        >>> theirs = Attention(8, num_heads=2, qkv_bias=True).eval()
        >>> x = torch.randn(3, 5, 8)
        >>> torch.allclose(from_timm(theirs)(x), theirs(x), atol=1e-6)
        True
    """
    from timm.models.vision_transformer import Attention  # type: ignore[attr-defined]  # not in its __all__

    check_kind("from_timm", module, Attention)
    if not isinstance(module.norm, nn.Identity):
        raise ValueError(
            f"from_timm cannot carry a norm after attention: got scale_norm={type(module.norm).__name__}"
        )
    if getattr(module, "gate", None) is not None:
        raise ValueError("from_timm cannot carry a gate: got gated=True")
    if module.proj_drop.p:
        raise ValueError(f"from_timm cannot carry dropout after proj: got proj_drop={module.proj_drop.p}")
    if module.proj.out_features != module.qkv.in_features:
        raise ValueError(
            f"from_timm needs as many outputs as inputs: "
            f"got dim={module.qkv.in_features}, dim_out={module.proj.out_features}"
        )
    return assemble(
        [affine("qkv", module.qkv)],
        affine("proj", module.proj),
        num_heads=module.num_heads,
        num_kv_heads=module.num_heads,
        head_dim=module.head_dim,
        dropout=module.attn_drop.p,
        q_norm=module.q_norm,
        k_norm=module.k_norm,
        training=module.training,
    )


def to_timm(module: MultiHeadAttention) -> Attention:
    """Ours as a ``timm.models.vision_transformer.Attention``.

    Raises:
        TypeError: the module is another one.
        ValueError: it has what timm's lacks: grouped heads, a context width, a scale, positions, a position bias,
            a gate, sinks or a soft cap.

    Example:
        >>> ours = MultiHeadAttention(8, 2, qk_norm=nn.LayerNorm(4))
        >>> x = torch.randn(3, 5, 8)
        >>> torch.allclose(to_timm(ours)(x), ours(x), atol=1e-6)
        True
    """
    from timm.models.vision_transformer import Attention  # type: ignore[attr-defined]  # not in its __all__

    check_carried("to_timm", module, "head_dim", "qk_norm")
    options: dict[str, Any] = {}
    if module.num_heads * module.head_dim != module.embed_dim:
        options["attn_head_dim"] = module.head_dim  # named only where needed: older timm has none
    with torch.device("meta"):
        theirs = Attention(module.embed_dim, module.num_heads, attn_drop=module.dropout, **options)
    put(theirs.qkv, stacked("q, k and v", split(module)))
    put(theirs.proj, affine("out_proj", module.out_proj))
    theirs.q_norm = copy.deepcopy(module.q_norm)
    theirs.k_norm = copy.deepcopy(module.k_norm)
    return theirs.train(module.training)
