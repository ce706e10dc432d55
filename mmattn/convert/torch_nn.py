"""torch.nn.MultiheadAttention."""

from __future__ import annotations

import torch
from torch import nn

from mmattn.attention import MultiHeadAttention
from mmattn.convert.assembly import (
    Affine,
    affine,
    assemble,
    check_carried,
    check_kind,
    copied,
    split,
    stacked,
)


def from_torch_nn(module: nn.MultiheadAttention) -> MultiHeadAttention:
    """An ``nn.MultiheadAttention`` as ours.

    The result is batch-first, ``[B, N, D]``, whatever ``batch_first`` was. Equal ``kdim`` and ``vdim`` become
    ``context_dim``. Masks mean the opposite there: :func:`~mmattn.masks.from_key_padding_mask` and
    :func:`~mmattn.masks.from_attn_mask` convert them.

    Raises:
        TypeError: the module is another one, or a subclass with a forward of its own.
        ValueError: it has ``bias_k`` and ``bias_v``, ``add_zero_attn``, or ``kdim`` other than ``vdim``.

    Example:
        >>> theirs = nn.MultiheadAttention(8, 2, batch_first=True).eval()
        >>> x = torch.randn(3, 5, 8)
        >>> torch.allclose(from_torch_nn(theirs)(x), theirs(x, x, x)[0], atol=1e-6)
        True
    """
    check_kind("from_torch_nn", module, nn.MultiheadAttention)
    if module.bias_k is not None:
        raise ValueError("from_torch_nn cannot carry bias_k and bias_v: got add_bias_kv=True")
    if module.add_zero_attn:
        raise ValueError("from_torch_nn cannot carry add_zero_attn: got add_zero_attn=True")
    if module.kdim != module.vdim:
        raise ValueError(f"kdim and vdim must be equal: got kdim={module.kdim}, vdim={module.vdim}")
    fused: nn.Parameter | None = module.in_proj_bias
    if module.kdim == module.embed_dim:
        project_in = [Affine(copied(module.in_proj_weight), None if fused is None else copied(fused))]
    else:
        weights = (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
        biases = [None] * 3 if fused is None else [copied(part, like=fused) for part in fused.chunk(3)]
        q, k, v = (Affine(copied(w), b) for w, b in zip(weights, biases, strict=True))
        project_in = [q, stacked("k and v", [k, v])]
    return assemble(
        project_in,
        affine("out_proj", module.out_proj),
        num_heads=module.num_heads,
        num_kv_heads=module.num_heads,
        head_dim=module.head_dim,
        dropout=module.dropout,
        training=module.training,
    )


def to_torch_nn(module: MultiHeadAttention, *, batch_first: bool = True) -> nn.MultiheadAttention:
    """Ours as an ``nn.MultiheadAttention``; ``context_dim`` becomes ``kdim`` and ``vdim``.

    Where only some of our projections have a bias, the others get a bias of zeros, since torch has one switch.

    Raises:
        TypeError: the module is another one.
        ValueError: it has what torch's lacks: grouped heads, a head width other than D / H, a scale, norms,
            positions, a position bias, a gate, sinks or a soft cap.

    Example:
        >>> ours = MultiHeadAttention(8, 2)
        >>> x = torch.randn(3, 5, 8)
        >>> torch.allclose(to_torch_nn(ours)(x, x, x)[0], ours(x), atol=1e-6)
        True
    """
    check_carried("to_torch_nn", module, "context_dim")
    width, kv_width = module.embed_dim, module.context_dim
    q, k, v = split(module)
    out = affine("out_proj", module.out_proj)
    has_bias = any(part.bias is not None for part in (q, k, v, out))
    with torch.device("meta"):
        theirs = nn.MultiheadAttention(
            width, module.num_heads, dropout=module.dropout, bias=has_bias, kdim=kv_width, vdim=kv_width,
            batch_first=batch_first,
        )  # fmt: skip
    if kv_width is None or kv_width == width:
        theirs.in_proj_weight = stacked("q, k and v", [q, k, v]).weight
    else:
        theirs.q_proj_weight, theirs.k_proj_weight, theirs.v_proj_weight = q.weight, k.weight, v.weight
    theirs.out_proj.weight = out.weight
    if has_bias:
        theirs.in_proj_bias = _biases([q, k, v])
        theirs.out_proj.bias = _biases([out])
    return theirs.train(module.training)


def _biases(parts: list[Affine]) -> nn.Parameter:
    """The biases end to end, zeros where there is none; frozen where all of the weights and biases are."""
    values = [w.detach().new_zeros(len(w)) if b is None else b.detach() for w, b in parts]
    present = [b for _, b in parts if b is not None] or [w for w, _ in parts]
    return nn.Parameter(torch.cat(values), requires_grad=any(x.requires_grad for x in present))
