"""Which blocks run as one node of the autograd graph, and how."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from mmattn.attention import MultiHeadAttention
from mmattn.backends import CpuBackend, Mask
from mmattn.backends.base import trimmed_band
from mmattn.backends.cpu.kernels import HAS_FLASH
from mmattn.backends.cpu.packed_self import SelfAttention
from mmattn.backends.unseen import tracing
from mmattn.dropout import Dropout, DropPath, threshold_of
from mmattn.fused.node import FusedBlock, Recipe
from mmattn.masks import Band
from mmattn.tokens import TokenBatch


class Parts(NamedTuple):
    """The parts of a pre-norm block."""

    attention_norm: nn.Module
    attention: nn.Module
    feed_forward_norm: nn.Module
    feed_forward: nn.Module
    dropout: Dropout
    drop_path: DropPath


def refusal(parts: Parts, tokens: TokenBatch | Tensor, mask: Mask) -> str | None:
    """Why the block goes part by part over these tokens; ``None`` when it can be one node."""
    x = tokens.values if isinstance(tokens, TokenBatch) else tokens
    if not torch.is_grad_enabled():
        return "no gradient is wanted"
    if not x.numel():
        return "there are no tokens"
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64, torch.bfloat16):
        return f"it is for floating-point numbers on a CPU, got {x.dtype} on {x.device}"
    if tracing():
        return "torch.compile and torch.func trace the parts"
    if torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") != torch.bfloat16:
        return f"autocast must be to bfloat16, got {torch.get_autocast_dtype('cpu')}"
    if not HAS_FLASH:
        return "this torch lacks the kernels that it calls"
    return (
        _of_parts(parts, x.shape[-1])
        or _of_attention(cast(MultiHeadAttention, parts.attention), tokens, mask)
        or _of_time(parts, _dtype(x))
    )


def _dtype(x: Tensor) -> torch.dtype:
    """The dtype of the matrix products."""
    return torch.bfloat16 if torch.is_autocast_enabled("cpu") else x.dtype


def _of_parts(parts: Parts, width: int) -> str | None:
    for norm in (parts.attention_norm, parts.feed_forward_norm):
        if type(norm) is not nn.LayerNorm or norm.normalized_shape != (width,):
            return f"its norms must be nn.LayerNorm({width}), got {norm}"
    layers = parts.feed_forward
    kinds = [nn.Linear, nn.GELU, Dropout, nn.Linear]
    if not isinstance(layers, nn.Sequential) or [type(layer) for layer in layers] != kinds:
        return "its feed-forward part must be a linear layer, GELU, Dropout and a linear layer"
    if cast(nn.GELU, layers[1]).approximate != "none":
        return "its GELU must be the exact one"
    if type(parts.attention) is not MultiHeadAttention:
        return f"its attention must be a MultiHeadAttention, got {type(parts.attention).__name__}"
    if hooked := next((m for part in parts for m in part.modules() if _is_watched(m)), None):
        return f"hooks or another forward wait inside it, on {type(hooked).__name__}"
    return None


def _is_watched(module: nn.Module) -> bool:
    own: dict[str, Any] = module.__dict__
    return bool(
        any(not _only_looks(hook) for hook in own["_forward_hooks"].values())
        or own["_forward_pre_hooks"] or own["_backward_hooks"]
        or own["_backward_pre_hooks"] or "forward" in own
        or hooks._global_forward_hooks or hooks._global_forward_pre_hooks
        or hooks._global_backward_hooks or hooks._global_backward_pre_hooks
    )  # fmt: skip


def _only_looks(hook: Any) -> bool:
    """Whether a forward hook reads the inputs alone, so that :func:`run` may call it itself."""
    return bool(getattr(hook, "only_looks", False))


def _of_attention(attention: MultiHeadAttention, tokens: TokenBatch | Tensor, mask: Mask) -> str | None:
    plain = (
        ("gate", attention.gate), ("position_bias", attention.position_bias), ("sinks", attention.sinks),
        ("soft_cap", attention.soft_cap), ("context_dim", attention.context_dim),
    )  # fmt: skip
    if named := next((name for name, value in plain if value is not None), None):
        return f"its attention must have no {named}"
    if attention.num_kv_heads != attention.num_heads:
        return f"its attention must have as many heads of keys, got {attention.num_kv_heads}"
    if {type(attention.q_norm), type(attention.k_norm)} != {nn.Identity}:
        return "its attention must have no qk_norm"
    if {type(attention.qkv_proj), type(attention.out_proj)} != {nn.Linear}:
        return "its projections must be nn.Linear"
    if attention.positions is not None and not attention.positions.interleaved:
        return "its rotary positions must be interleaved"
    if attention.backend not in ("auto", "cpu"):
        return f"its attention must leave the backend to 'auto', got {attention.backend!r}"
    longest = max(_sizes(tokens), default=0)
    if mask is not None and trimmed_band(mask, longest, longest) not in (Band(None, None), Band(None, 0)):
        return f"its mask must be causal or none, got {mask!r}"
    return None


def _of_time(parts: Parts, dtype: torch.dtype) -> str | None:
    # A ViT's step (65 tokens, D = 192) took 1.12 times as long as its parts without dropout, 1.02 to 1.05 times
    # with some of it, and 0.95 times with all; the products take most of it, and one node has more copies.
    hidden = cast(nn.Sequential, parts.feed_forward)[2]
    dropouts = _weights_dropped(parts.attention), cast(Dropout, hidden).threshold, parts.dropout.threshold
    if dtype == torch.float32 and not all(dropouts):
        return "in float32 the parts are faster unless weights, hidden features and branches are dropped"
    return None


def _sizes(tokens: TokenBatch | Tensor) -> tuple[int, ...]:
    return tokens.sizes if isinstance(tokens, TokenBatch) else (tokens.shape[1],) * tokens.shape[0]


def run(parts: Parts, tokens: TokenBatch | Tensor, mask: Mask, tables: Tensor | None) -> TokenBatch | Tensor:
    """The block over tokens that :func:`refusal` has nothing against."""
    attention = cast(MultiHeadAttention, parts.attention)
    _show(attention, parts.attention_norm, tokens, {"mask": mask, "tables": tables})
    first, _, hidden, second = cast(nn.Sequential, parts.feed_forward)
    sizes, x = _sizes(tokens), tokens.flatten(0, 1) if isinstance(tokens, Tensor) else tokens.values
    dtype = _dtype(x)
    norms = cast(nn.LayerNorm, parts.attention_norm), cast(nn.LayerNorm, parts.feed_forward_norm)
    recipe = Recipe(
        _attention(attention, sizes, mask, dtype),
        dtype,
        (norms[0].eps, norms[1].eps),
        cast(Dropout, hidden).threshold,
        parts.dropout.threshold,
        (_path(parts.drop_path, sizes), _path(parts.drop_path, sizes)),
        _turns(attention, tokens, tables),
    )
    owners = (norms[0], attention.qkv_proj, attention.out_proj, norms[1], first, second)
    parameters = [p for owner in owners for p in (owner.weight, owner.bias)]
    with torch.autocast("cpu", enabled=False):
        out: Tensor = FusedBlock.apply(x, recipe, *parameters)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return out.view(tokens.shape) if isinstance(tokens, Tensor) else tokens.replace(out)


def _show(
    attention: MultiHeadAttention, norm: nn.Module, tokens: TokenBatch | Tensor, options: dict[str, Any]
) -> None:
    """Let those who only look see what attention is given."""
    watchers = list(attention._forward_hooks.values())
    if not watchers:
        return
    with torch.no_grad():
        seen = norm(tokens) if isinstance(tokens, Tensor) else tokens.replace(norm(tokens.values))
        for watcher in watchers:
            watcher(attention, (seen,), options, None)


def _attention(
    attention: MultiHeadAttention, sizes: tuple[int, ...], mask: Mask, dtype: torch.dtype
) -> SelfAttention:
    longest = max(sizes, default=0)
    causal = mask is not None and trimmed_band(mask, longest, longest) == Band(None, 0)
    threshold = _weights_dropped(attention)
    ways = ["plain"] if threshold else ["flash", "plain"]
    if dtype == torch.bfloat16:
        ways.append("plain in float32" if threshold else "flash in float32")
    typical = sum(n * n for n in sizes) / max(sum(sizes), 1)
    table = CpuBackend().calibration
    way = table.choose(dtype, True, threshold > 0, typical, attention.head_dim, ways).way
    scale = attention.head_dim**-0.5 if attention.scale is None else attention.scale
    flash = way.startswith("flash") and not (causal and scale <= 0)
    wide = torch.float32 if way.endswith("float32") else dtype
    return SelfAttention(sizes, attention.num_heads, causal, scale, threshold, flash, wide)


def _weights_dropped(attention: nn.Module) -> int:
    """The probability in 1/256 that a weight is dropped with at present."""
    return threshold_of(cast(MultiHeadAttention, attention).dropout) if attention.training else 0


def _path(drop_path: DropPath, sizes: tuple[int, ...]) -> Tensor | None:
    factors = drop_path.draw(len(sizes))
    return factors if factors is None else factors.repeat_interleave(torch.tensor(sizes))[:, None]


def _turns(
    attention: MultiHeadAttention, tokens: TokenBatch | Tensor, tables: Tensor | None
) -> Tensor | None:
    """The turns of the rotary positions, complex ``[T, 1, P]``."""
    if attention.positions is None:
        return None
    if isinstance(tokens, TokenBatch):
        if tables is None:
            tables = attention.positions.tables(tokens.coords, attention.head_dim, tokens.values.dtype)
        return torch.view_as_complex(tables)[:, None]
    batch, length = tokens.shape[:2]
    if tables is None:
        coords = torch.arange(length)[:, None]
        tables = attention.positions.tables(coords, attention.head_dim, tokens.dtype)
    turns = torch.view_as_complex(tables.contiguous()).expand(batch, length, -1)
    return turns.reshape(batch * length, 1, -1)


__all__ = ["Parts", "refusal", "run"]
