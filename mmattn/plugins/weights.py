"""The softmax of deferred logits, which becomes a call of the core when it meets the values."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmattn.plugins.calls import host_call, observed_weights, run
from mmattn.plugins.deferred import Deferred, Recipe, resolved
from mmattn.plugins.equations import is_sum_of_values, parsed

if TYPE_CHECKING:
    from mmattn.plugins.logits import Logits


@dataclass
class _Fate:
    """What has become of weights: whether the core has used them, so that watchers were shown them."""

    used: bool = False


@dataclass(frozen=True)
class _State:
    """What was done to the weights since the softmax.

    Attributes:
        shape: of the weights.
        dropout: probability with which they are dropped.
        turned: whether keys and queries have changed places.
        shares: whether the tensor would share its memory with that of another note.
        fate: shared by all that are made from one softmax.
    """

    shape: torch.Size
    dropout: float = 0.0
    turned: bool = False
    shares: bool = False
    fate: _Fate = field(default_factory=_Fate)


class Weights(Deferred):
    """The softmax of logits over the keys."""

    def __init__(self, logits: Logits, recipe: Recipe, state: _State) -> None:
        super().__init__(logits.site, recipe, state.shape, logits.product.q, state.shares)
        self.requires_grad = logits.requires_grad
        self.logits = logits
        self.state = state

    @classmethod
    def of(cls, logits: Logits, recipe: Recipe) -> Weights:
        """Of logits as they are now.

        Written down, weights are like any that the host makes itself, and can be shown and masked; but where the
        core has used them before, they only are what the host gives back beside its result.
        """
        site, state = logits.site, _State(logits.shape)

        def make() -> Tensor:
            made = recipe.tensor()
            return made if state.fate.used else observed_weights(site, made)

        return cls(logits, Recipe(make), state)

    def _next(self, recipe: Recipe, **changes: Any) -> Weights:
        return Weights(self.logits, recipe, replace(self.state, **changes))

    def _dropout(
        self, recipe: Recipe, _: Any, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Any:
        if not training or p == 0:
            return self
        return NotImplemented if self.state.dropout else self._next(recipe, dropout=p, shares=False)

    def _view(self, recipe: Recipe, _: Any, *shape: Any, **options: Any) -> Any:
        found = resolved(shape, self.shape)
        if found is None or options or self.state.turned or found[-1] != self.shape[-1]:
            return NotImplemented
        return self._next(recipe, shape=found, shares=True)

    def _transpose(self, recipe: Recipe, _: Any, a: int = -2, b: int = -1, **options: Any) -> Any:
        if {a % self.ndim, b % self.ndim} != {self.ndim - 1, self.ndim - 2} or self.state.turned or options:
            return NotImplemented
        shape = torch.Size((*self.shape[:-2], self.shape[-1], self.shape[-2]))
        return self._next(recipe, turned=True, shape=shape, shares=True)

    def _to(self, recipe: Recipe, _: Any, kind: Any = None, *rest: Any, **options: Any) -> Any:
        kind = kind if kind is not None else options.get("dtype")
        kind = getattr(kind, "dtype", kind)
        if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
            return NotImplemented
        return self  # the core sums in the dtype of the values

    def _float(self, recipe: Recipe, _: Any, **options: Any) -> Any:
        return self

    def _matmul(self, recipe: Recipe, a: Any, b: Any, **options: Any) -> Any:
        if options:
            return NotImplemented
        if a is self and isinstance(b, Tensor) and not self.state.turned:
            return self._sum(b)
        if b is self and isinstance(a, Tensor) and self.state.turned:
            out = self._sum(a.transpose(-2, -1))
            # hosts that view the result count on the memory layout of a product
            return out if out is NotImplemented else out.transpose(-2, -1).contiguous()
        return NotImplemented

    def _einsum(self, recipe: Recipe, equation: Any, *operands: Any, **options: Any) -> Any:
        named = parsed(equation)
        if len(operands) != 2 or operands[0] is not self or not isinstance(operands[1], Tensor):
            return NotImplemented
        if self.state.turned or named is None or not is_sum_of_values(*named) or options:
            return NotImplemented
        return self._sum(operands[1])

    def _sum(self, v: Tensor) -> Any:
        """The values ``[..., M, K_v]``, summed by these weights: a call of the core."""
        site, product = self.site, self.logits.product
        if self.shape != (product.shape if not self.state.turned else _turned(product.shape)):
            return NotImplemented
        if v.ndim < 3 or v.ndim != self.ndim or v.shape[-2] != product.shape[-1]:
            return NotImplemented
        if v.shape[:-2] != (product.k if v.ndim == 4 else product).shape[:-2]:
            return NotImplemented
        add = product.bias
        if product.allowed is not None:
            add = product.allowed if add is None else add.masked_fill(~product.allowed, -math.inf)
        self.state.fate.used = True
        q, k = product.q.to(v.dtype), product.k.to(v.dtype)
        out = run(site, host_call(site, q, k, v, None, add, product.factor, self.state.dropout))
        # like that of a product, the result has a plain layout, and the host may change it in place although the
        # core's backward pass needs it
        return out.clone(memory_format=torch.contiguous_format) if out.requires_grad else out.contiguous()


def _turned(shape: torch.Size) -> torch.Size:
    return torch.Size((*shape[:-2], shape[-1], shape[-2]))
