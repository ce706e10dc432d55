"""Calls of our own attention modules, found by running them once more up to the attention."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from mmattn.attention import MultiHeadAttention
from mmattn.backends import Backend, Explanation, Terms
from mmattn.functional import explain
from mmattn.observation.calls import Call, Run


def call_of(
    part: MultiHeadAttention, args: tuple[Any, ...], kwargs: dict[str, Any], explaining: bool, grad: bool
) -> Call:
    """The attention call that a module made of its arguments; ``grad``: gradients were wanted."""
    query, context = args[0] if args else kwargs["query"], args[1] if len(args) > 1 else kwargs.get("context")
    if kwargs.get("cache") is not None:
        kwargs = kwargs | {"cache": _AsItWas(kwargs["cache"], query.shape[1])}
    backend = part.backend if explaining else None
    looker = Looker(
        backend, grad, _coords(query, kwargs), _coords(query if context is None else context, kwargs)
    )
    # a copy that shares all parameters: another thread may be running the module itself
    twin = copy.copy(part)
    twin.backend = looker
    with torch.no_grad():
        twin.forward(*args, **kwargs)
    return Call(tuple(looker.runs), part.num_heads, looker.explanation)


class Looker(Backend):
    """A backend that computes nothing and keeps what it is asked for.

    Args:
        explained: the backend that is to be explained; None: none.
        grad: whether gradients are wanted of the explained call.
        q_coords, k_coords: where the tokens stand, for calls that do not say.
    """

    name = "looker"

    def __init__(
        self,
        explained: str | Backend | None,
        grad: bool,
        q_coords: Tensor | None,
        k_coords: Tensor | None,
    ) -> None:
        self.explained, self.grad = explained, grad
        self.coords: dict[str, Any] = {"q_coords": q_coords, "k_coords": k_coords}
        self.runs: list[Run] = []
        self.explanation: Explanation | None = None

    def dense(self, q: Tensor, k: Tensor, v: Tensor, terms: Terms) -> Tensor:
        if not self.runs:
            self._explain(q, k, v, terms)
        if terms.q_coords is None:
            terms = replace(terms, **self.coords)
        self.runs.append(Run(q, k, terms))
        return q

    def packed(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        q_lengths: Sequence[int],
        k_lengths: Sequence[int],
        terms: Terms,
    ) -> Tensor:
        self._explain(q, k, v, terms, q_lengths=q_lengths, k_lengths=k_lengths)
        if terms.q_coords is None:
            terms = replace(terms, **self.coords)
        return super().packed(q, k, v, q_lengths, k_lengths, terms)

    def _explain(self, q: Tensor, k: Tensor, v: Tensor, terms: Terms, **lengths: Any) -> None:
        if self.explained is None or self.explanation is not None:
            return
        self.explanation = explanation_of(q, k, v, terms, self.explained, self.grad, **lengths)


def explanation_of(
    q: Tensor, k: Tensor, v: Tensor, terms: Terms, backend: str | Backend, grad: bool, **lengths: Any
) -> Explanation:
    """What :func:`mmattn.explain` says of a call with these terms."""
    with torch.set_grad_enabled(grad):
        return explain(
            q.detach().requires_grad_(grad), k, v, mask=terms.mask, bias=terms.bias, scale=terms.scale,
            soft_cap=terms.soft_cap, sinks=terms.sinks, dropout=terms.dropout, q_coords=terms.q_coords,
            k_coords=terms.k_coords, backend=backend, **lengths,
        )  # fmt: skip


class _AsItWas:
    """A cache as it was before a call that has added its tokens already, as far as attention asks it."""

    def __init__(self, cache: Any, new: int) -> None:
        self.length = cache.length - new
        self._after = copy.copy(cache)
        self._after.window = None  # so that it keeps the keys that the call saw and the next one will not

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self._after.append(k[:, :0], v[:, :0])
        return found


def _coords(tokens: Any, kwargs: dict[str, Any]) -> Tensor | None:
    found = getattr(tokens, "coords", None)
    return kwargs.get("coords") if found is None else found
