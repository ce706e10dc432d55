"""x-transformers' Attention."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mmattn.attention import MultiHeadAttention
from mmattn.convert.assembly import (
    Affine,
    affine,
    assemble,
    check_carried,
    check_kind,
    copied,
    put,
    split,
    stacked,
)
from mmattn.positions import RotaryPositions

if TYPE_CHECKING:
    from x_transformers.x_transformers import Attention


def from_x_transformers(module: Attention, *, positions: RotaryPositions | None = None) -> MultiHeadAttention:
    """An ``x_transformers.x_transformers.Attention`` as ours, grouped heads included.

    x-transformers tiles grouped keys (head h of the queries takes head ``h % H_kv``) where torch and we repeat
    each (``h // (H / H_kv)``), so the query heads come in another order here,
    and masks and biases for each head with them. A learned sink for each head and a soft
    cap are carried; ours caps before a bias is added and theirs after, which is the same without a bias.

    Args:
        module: with no other switch turned on.
        positions: for a model that hands rotary positions in: ``RotaryPositions()``, whose pairs of neighbouring
            features are theirs too, with ``rotary_dim`` where they turn a part of a head (their default).

    Raises:
        TypeError: the module is another one, or a subclass with a forward of its own.
        ValueError: a switch is on that ours lacks, named as the attribute in which it shows.

    Example:
        >>> from x_transformers.x_transformers import Attention
        >>> theirs = Attention(8, dim_head=3, heads=4, kv_heads=2).eval()
        >>> x = torch.randn(3, 5, 8)
        >>> torch.allclose(from_x_transformers(theirs)(x), theirs(x), atol=1e-6)
        True
    """
    from x_transformers.x_transformers import Attention

    check_kind("from_x_transformers", module, Attention)
    q, k, v, out = (_affine(module, name) for name in ("to_q", "to_k", "to_v", "to_out"))
    heads, kv_heads, core = module.heads, module.kv_heads, module.attend
    if k.weight.shape != v.weight.shape or out.weight.shape != q.weight.shape[::-1]:
        raise ValueError(
            "from_x_transformers cannot carry widths of their own for values or outputs (dim_out)"
        )
    plain = _plain(
        q.weight.shape[1], k.weight.shape[1], heads, kv_heads, len(q.weight) // heads,
        causal=module.causal, flash=core.flash, dropout=core.dropout,
        head_learned_sink=core.head_learned_sink,
        softclamp_logits=core.softclamp_logits, logit_softclamp_value=core.logit_softclamp_value,
    )  # fmt: skip
    _check_switches(module, plain)
    order = _order(heads, kv_heads)
    q, out = _reordered(q, out, order)
    sinks = core.head_attn_sink
    options: dict[str, Any] = {"soft_cap": core.logit_softclamp_value} if core.softclamp_logits else {}
    fused = k.weight.shape[1] == q.weight.shape[1]
    return assemble(
        [stacked("to_q, to_k and to_v", [q, k, v])] if fused else [q, stacked("to_k and to_v", [k, v])],
        out,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=len(q.weight) // heads,
        dropout=core.dropout,
        positions=positions,
        sinks=None if sinks is None else copied(sinks[order], like=sinks),
        training=module.training,
        **options,
    )


def to_x_transformers(module: MultiHeadAttention, *, causal: bool = False, flash: bool = False) -> Attention:
    """Ours as an ``x_transformers.x_transformers.Attention``.

    Args:
        module: without biases. Rotary positions are not part of their module: hand them to its calls.
        causal, flash: switches of theirs.

    Raises:
        TypeError: the module is another one.
        ValueError: it has what theirs lacks: biases, norms, a scale, a position bias or a gate.

    Example:
        >>> ours = MultiHeadAttention(8, 4, num_kv_heads=2, bias=False)
        >>> x = torch.randn(3, 5, 8)
        >>> torch.allclose(to_x_transformers(ours)(x), ours(x), atol=1e-6)
        True
    """
    check_carried(
        "to_x_transformers", module,
        "num_kv_heads", "head_dim", "context_dim", "positions", "sinks", "soft_cap",
    )  # fmt: skip
    q, k, v = split(module)
    out = affine("out_proj", module.out_proj)
    if q.bias is not None or k.bias is not None or out.bias is not None:
        raise ValueError("to_x_transformers cannot carry biases: got a module with bias=True")
    sinks, soft_cap = getattr(module, "sinks", None), getattr(module, "soft_cap", None)
    options: dict[str, Any] = {} if sinks is None else {"head_learned_sink": True}
    if soft_cap is not None:
        options |= {"softclamp_logits": True, "logit_softclamp_value": soft_cap}
    kv_dim = module.embed_dim if module.context_dim is None else module.context_dim
    theirs = _plain(
        module.embed_dim, kv_dim, module.num_heads, module.num_kv_heads, module.head_dim,
        causal=causal, flash=flash, dropout=module.dropout, project_out=True, **options,
    )  # fmt: skip
    order = _order(module.num_heads, module.num_kv_heads)
    back = order.argsort()
    q, out = _reordered(q, out, back)
    for name, values in (("to_q", q), ("to_k", k), ("to_v", v), ("to_out", out)):
        put(getattr(theirs, name), values)
    if sinks is not None:
        theirs.attend.head_attn_sink = copied(sinks[back], like=sinks)
    return theirs.train(module.training)


def _affine(module: nn.Module, name: str) -> Affine:
    layer = getattr(module, name)
    if isinstance(layer, nn.Identity):
        raise ValueError(f"from_x_transformers needs an output projection: got {name}=Identity (project_out)")
    return affine(name, layer)


def _plain(dim: int, kv_dim: int, heads: int, kv_heads: int, head_dim: int, **options: Any) -> Attention:
    """Their module with no switch on but the given ones, its parameters on "meta"."""
    from x_transformers.x_transformers import Attention

    with torch.device("meta"):
        return Attention(
            dim, dim_head=head_dim, dim_context=kv_dim, heads=heads, kv_heads=kv_heads, **options
        )


def _order(heads: int, kv_heads: int) -> Tensor:
    """For each of our heads the number it has in x-transformers."""
    return torch.arange(heads).view(heads // kv_heads, kv_heads).t().flatten()


def _reordered(q: Affine, out: Affine, order: Tensor) -> tuple[Affine, Affine]:
    """Query and output projections with their heads in this order."""
    order = order.to(q.weight.device)
    rows = q.weight.unflatten(0, (len(order), -1))[order].flatten(0, 1)
    columns = out.weight.unflatten(1, (len(order), -1))[:, order].flatten(1)
    return Affine(copied(rows, like=q.weight), None), Affine(copied(columns, like=out.weight), None)


def _check_switches(module: nn.Module, plain: nn.Module) -> None:
    """Refuse whatever shows as a difference from a plain module: their class has some 80 switches."""
    parts, plain_parts = dict(module.named_modules()), dict(plain.named_modules())
    for name in plain_parts:
        if name not in parts:
            continue
        values, plain_values = _switches(parts[name]), _switches(plain_parts[name])
        for key in values | plain_values:
            if values.get(key) != plain_values.get(key):
                raise ValueError(f"from_x_transformers cannot carry {key}: got {key}={values.get(key)}")
    extra = sorted({*parts, *module.state_dict()} ^ {*plain_parts, *plain.state_dict()})
    if extra:
        raise ValueError(f"from_x_transformers cannot carry parts of its own: got {', '.join(extra)}")


def _switches(module: nn.Module) -> dict[str, Any]:
    """The settings of a module by name: its plain attributes, functions by their names and arguments."""
    values = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    for name in ("training", "sdp_context_manager", "can_cache_kv"):  # the last follows from others
        values.pop(name, None)
    shown: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, functools.partial):
            shown[name] = (_name(value.func), value.args, value.keywords)
        elif callable(value):
            shown[name] = _name(value)
        elif not isinstance(value, Tensor):
            shown[name] = value
    return shown


def _name(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__qualname__", type(function).__qualname__))
