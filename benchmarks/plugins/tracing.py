"""Attention calls of a model, found without the library under test.

A mode around the whole model notes each fused attention call, and each softmax over the last axis of something that
was made from a product of two activations inside a module that is still running.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

_PRODUCTS = {torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm, torch.einsum}
_BIASED = {torch.baddbmm, Tensor.baddbmm}
_SOFTMAX = {F.softmax, torch.softmax, Tensor.softmax}
#: Classes whose weights are what they mix with the softmax, as it meets the values.
_BLENDS = {"timm.models.convit.GPSA"}
_MULTI_HEAD = inspect.signature(F.multi_head_attention_forward)


class AttentionCall(NamedTuple):
    """One call.

    Attributes:
        path: names of the modules that are running, outermost first.
        owner: name of the module that multiplies queries and keys, or calls the fused function.
        kind: full name of the owner's class.
        how: ``"sdpa"``, ``"multi_head"`` or ``"softmax"``.
        weights: as the host has them, or written from queries and keys; None where they were not asked for.
    """

    path: tuple[str, ...]
    owner: str
    kind: str
    how: str
    weights: Tensor | None


@dataclass(eq=False)
class _Frame:
    name: str
    module: nn.Module
    running: bool = True


def _kind(frame: _Frame) -> str:
    kind = type(frame.module)
    kind = getattr(kind, "plugged_kind", kind)
    return f"{kind.__module__}.{kind.__qualname__}"


class _Mark(NamedTuple):
    """What a tensor was made from: products in a module call, or weights from these."""

    frame: _Frame
    weights: bool


#: Given the call, replaces the weights: by other weights, or by themselves.
Change = Callable[[AttentionCall, Tensor], Tensor]


class Tracer(TorchFunctionMode):
    """Notes the attention calls of a model while it runs; enter it by :func:`traced`.

    Args:
        weights: whether weights are kept; they are the host's, or for fused calls the textbook softmax.
        change: what weights are replaced by; attention is then computed from them.
    """

    def __init__(self, weights: bool = False, change: Change | None = None) -> None:
        super().__init__()
        self.keeps = weights or change is not None
        self.change = change
        self.calls: list[AttentionCall] = []
        self.stack: list[_Frame] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self._sdpa(func, args, kwargs)
        if func is F.multi_head_attention_forward:
            return self._multi_head(func, args, kwargs)
        marks = [m for x in tree_leaves((args, kwargs)) if (m := _mark(x)) is not None]
        out = func(*args, **kwargs)
        mark = marks[0] if marks else None
        if func in _SOFTMAX and mark is not None and mark.weights is False:
            return self._softmax(out, mark, args, kwargs)
        if func in _PRODUCTS or func in _BIASED:
            operands = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)][func in _BIASED :]
            if any(m.weights for m in marks):
                return self._blend(out, marks[0], func, args) if self.keeps else out  # the values, summed
            if len(operands) == 2 and not any(isinstance(x, nn.Parameter) for x in operands):
                mark = _Mark(self.stack[-1], False) if self.stack and out.ndim >= 3 else None
        if mark is not None:
            _put(mark, args[:1] if func is Tensor.__setitem__ else out)
        return out

    def _note(self, owner: _Frame, how: str, weights: Tensor | None) -> AttentionCall:
        path = tuple(frame.name for frame in self.stack)
        call = AttentionCall(path, owner.name, _kind(owner), how, weights)
        self.calls.append(call)
        return call

    def _softmax(self, out: Tensor, mark: _Mark, args: Any, kwargs: dict[str, Any]) -> Tensor:
        dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
        if dim not in (-1, out.ndim - 1):
            return out
        if self.keeps and _kind(mark.frame) in _BLENDS:
            _put(_Mark(mark.frame, True), out)
            return out
        call = self._note(mark.frame, "softmax", out if self.keeps else None)
        out = out if self.change is None else self.change(call, out)
        _put(_Mark(mark.frame, True), out)
        return out

    def _blend(self, out: Tensor, mark: _Mark, func: Callable[..., Any], args: Any) -> Tensor:
        if _kind(mark.frame) not in _BLENDS:
            return out
        call = self._note(mark.frame, "softmax", args[0])
        return out if self.change is None else func(self.change(call, args[0]), args[1])

    def _sdpa(self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Tensor:
        weights, v = textbook(*args, **kwargs) if self.keeps else (None, None)
        call = self._note(self.stack[-1], "sdpa", weights)
        if self.change is None or weights is None or v is None:
            return func(*args, **kwargs)  # type: ignore[no-any-return]
        return self.change(call, weights) @ v

    def _multi_head(self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        given = _MULTI_HEAD.bind(*args, **kwargs)
        given.apply_defaults()
        wanted = given.arguments
        out = func(*args, **kwargs)
        if not self.keeps:
            self._note(self.stack[-1], "multi_head", None)
            return out
        weights = func(**wanted | {"need_weights": True, "average_attn_weights": False})[1]
        call = self._note(self.stack[-1], "multi_head", weights)
        if self.change is None:
            return out
        # the weights of a head times 0 are its columns of the output projection times 0
        four = weights if weights.ndim == 4 else weights[None]
        ratio = self.change(call, torch.ones_like(four))[0, :, 0, 0]
        columns = ratio.repeat_interleave(wanted["out_proj_weight"].shape[1] // len(ratio))
        again = func(**wanted | {"out_proj_weight": wanted["out_proj_weight"] * columns})
        return again[0], out[1]


def textbook(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[Tensor, Tensor]:
    """Weights and values of a fused call; a row without keys has weights of 0."""
    if enable_gqa:
        key = key.repeat_interleave(query.size(-3) // key.size(-3), -3)
        value = value.repeat_interleave(query.size(-3) // value.size(-3), -3)
    logits = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.size(-1)) if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(query.size(-2), key.size(-2), dtype=torch.bool, device=query.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        logits = logits.masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None:
        logits = logits + attn_mask
    return torch.softmax(logits, -1).nan_to_num(0.0), value


@contextmanager
def traced(model: nn.Module, tracer: Tracer) -> Iterator[Tracer]:
    """Let a tracer look on at a model, and know which of its modules run."""
    handles = []
    for name, module in model.named_modules():

        def enter(module: nn.Module, *_: Any, name: str = name) -> None:
            tracer.stack.append(_Frame(name, module))

        def leave(*_: Any) -> None:
            tracer.stack.pop().running = False

        handles.append(module.register_forward_pre_hook(enter))
        handles.append(module.register_forward_hook(leave, always_call=True))
    try:
        with tracer:
            yield tracer
    finally:
        for handle in handles:
            handle.remove()


def _mark(x: Any) -> _Mark | None:
    """The mark of a tensor, while the module that made it runs."""
    mark = getattr(x, "_made_from", None) if isinstance(x, Tensor) else None
    return mark if mark is not None and mark.frame.running else None


def _put(mark: _Mark, out: Any) -> None:
    for x in tree_leaves(out):
        if isinstance(x, Tensor):
            x._made_from = mark  # type: ignore[attr-defined]
