"""torch's FlexAttention: patterns and soft caps compiled into one kernel."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from mmattn.backends.base import Backend, Call, Terms, repeat_heads
from mmattn.backends.unseen import nothing, shield
from mmattn.masks import Pairs, Pattern

#: As FlexAttention takes it: numbers of sequence, head, query and key, to True = attend.
MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class FlexBackend(Backend):
    """``torch.nn.attention.flex_attention`` (He et al. 2024), compiled on first use, which takes a while.

    Args:
        compiled: ``False`` runs FlexAttention's plain twin, which is slow and meant for tests.
    """

    name = "flex"

    def __init__(self, compiled: bool = True) -> None:
        self.compiled = compiled

    def refusal(self, call: Call) -> str | None:
        terms = call.terms
        if call.device.type not in ("cpu", "cuda"):
            return f"it runs on a CPU and on CUDA, got {call.device}"
        if call.dtype not in (torch.float32, torch.bfloat16, torch.float16):
            return f"it needs float32, bfloat16 or float16, got {call.dtype}"
        if terms.dropout:
            return "FlexAttention drops no weights"
        if call.device.type == "cpu" and (call.grad or (self.compiled and call.bias_grad)):
            return "FlexAttention has no backward pass on a CPU"
        if call.device.type == "cpu" and self.compiled and terms.sinks is not None:
            return "FlexAttention compiled for a CPU gives no log-sum-exp, which sinks need"
        if call.device.type == "cpu" and self.compiled and _threads() > 1:
            return f"FlexAttention compiled for a CPU corrupts memory with {_threads()} threads"
        if call.head_dim < 16 and self.compiled:
            return f"FlexAttention needs a head_dim of at least 16, got {call.head_dim}"
        return None

    def reluctance(self, call: Call) -> str | None:
        if call.device.type == "cpu":
            return "compiling it takes longer than it saves on a CPU"
        if call.packed:
            return "one kernel for each length would have to be compiled"
        if call.terms.soft_cap is None and not isinstance(call.terms.mask, Pattern):
            return "torch's own kernels do as well without a pattern"
        return None

    def merit(self, call: Call) -> str:
        return "the pattern is compiled into the kernel, which skips blocks that nobody may see"

    def dense(self, q: Tensor, k: Tensor, v: Tensor, terms: Terms) -> Tensor:
        from torch.nn.attention.flex_attention import AuxRequest

        n, m = q.shape[2], k.shape[2]
        if not n or not m:
            return nothing(q, k, v)
        k, v = repeat_heads(k, q.shape[1]), repeat_heads(v, q.shape[1])
        q, k = q.to(v.dtype), k.to(v.dtype)
        bias, block_mask, dead = terms.drawn_bias(), None, None
        if terms.mask is not None:
            block_mask, drawn = _block_mask(terms, n, m, q)
            q, k, v, dead = shield(q, k, v, drawn)
        if bias is not None:
            bias = bias.expand(*[1] * (4 - bias.ndim), *bias.shape).expand(q.shape[0], q.shape[1], n, m)
        run = _compiled() if self.compiled and not torch.compiler.is_compiling() else _plain()
        # compiled for a CPU it refuses one tensor in two places
        k, v = (k.clone() if k is q else k), (v.clone() if v is k or v is q else v)
        aux = None if terms.sinks is None else AuxRequest(lse=True)
        options: dict[str, Any] = {"block_mask": block_mask, "scale": terms.scale, "return_aux": aux}
        found = run(q, k, v, score_mod=_score_mod(bias, terms.soft_cap), **options)
        if terms.sinks is not None:
            out, extra = found
            found = out * torch.sigmoid(extra.lse - terms.sinks[:, None])[..., None].to(out.dtype)
        result: Tensor = found if dead is None else found.masked_fill(dead, 0.0)
        return result


def _threads() -> int:
    """Threads of torch, a number that nothing can trace."""
    return 1 if torch.compiler.is_compiling() else torch.get_num_threads()


def _score_mod(bias: Tensor | None, soft_cap: float | None) -> Callable[..., Tensor] | None:
    if bias is None and soft_cap is None:
        return None

    def modified(score: Tensor, b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        if soft_cap is not None:
            score = soft_cap * torch.tanh(score / soft_cap)
        return score if bias is None else score + bias[b, h, query, key]

    return modified


def _block_mask(terms: Terms, n: int, m: int, q: Tensor) -> tuple[Any, Tensor]:
    """FlexAttention's mask and the drawn one."""
    from torch.nn.attention.flex_attention import create_block_mask

    mask = terms.mask
    if isinstance(mask, Pattern) and not mask.per_sequence and not mask.uses_coords:
        return _of_pattern(mask, n, m, q.device)
    drawn = terms.drawn_mask(n, m, q.device)
    assert drawn is not None
    four = drawn.expand(*[1] * (4 - drawn.ndim), *drawn.shape).expand(-1, -1, n, m)
    b, h = four.shape[:2]

    def looked_up(b_: Tensor, h_: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return four[b_ % b, h_ % h, query, key]

    return create_block_mask(looked_up, b, h, n, m, device=q.device), four


@lru_cache(maxsize=16)
def _of_pattern(pattern: Pattern, n: int, m: int, device: torch.device) -> tuple[Any, Tensor]:
    from torch.nn.attention.flex_attention import create_block_mask

    def allowed(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return pattern.allowed(Pairs(query, key, n, m))

    return create_block_mask(allowed, None, None, n, m, device=device), pattern.dense(n, m, device)


@lru_cache(maxsize=1)
def _plain() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    return flex_attention


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., Any]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention)


__all__ = ["FlexBackend"]
