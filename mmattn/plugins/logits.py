"""Products of queries and keys, put off until it is known what becomes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from mmattn.plugins.calls import observed_weights
from mmattn.plugins.deferred import Deferred, Recipe, has_notes, is_all, resolved
from mmattn.plugins.equations import is_product_of_queries_and_keys, parsed
from mmattn.plugins.site import Site
from mmattn.plugins.weights import Weights

#: At or below this a filled-in logit means "hidden".
_HIDDEN = -1e4


@dataclass(frozen=True, eq=False)
class Product:
    """``factor * q k^T + bias`` of queries ``[..., N, K]`` and keys ``[..., M, K]``.

    Attributes:
        q, k: queries and keys, whose leading axes broadcast.
        factor: of the products.
        bias: broadcasts to the products.
        allowed: True = attend; broadcasts to the products.
    """

    q: Tensor
    k: Tensor
    factor: float = 1.0
    bias: Tensor | None = None
    allowed: Tensor | None = None

    @property
    def shape(self) -> torch.Size:
        """``[..., N, M]``."""
        lead = torch.broadcast_shapes(self.q.shape[:-2], self.k.shape[:-2])
        return torch.Size((*lead, self.q.shape[-2], self.k.shape[-2]))

    def only_adds_to(self, other: Product) -> bool:
        """Whether it is another product with nothing but a bias on top."""
        same = self.q is other.q and self.k is other.k and self.factor == other.factor
        return same and self.allowed is other.allowed


class _Tail(NamedTuple):
    """The part of a product without its first queries and keys, as it was taken."""

    whole: Product
    queries: int
    keys: int
    part: Product


class Logits(Deferred):
    """A product under the shape that the host has given it by now, or the tail of one."""

    def __init__(
        self,
        site: Site,
        recipe: Recipe,
        product: Product,
        shape: torch.Size | None = None,
        shares: bool = False,
        tail: _Tail | None = None,
    ) -> None:
        super().__init__(site, recipe, product.shape if shape is None else shape, product.q, shares)
        self.requires_grad = product.q.requires_grad or product.k.requires_grad
        self.product = product
        self.tail = tail

    def _next(self, recipe: Recipe, **changes: Any) -> Logits:
        return Logits(self.site, recipe, replace(self.product, **changes), self.shape, tail=self.tail)

    def _fits(self, x: Tensor) -> bool:
        try:
            return bool(torch.broadcast_shapes(x.shape, self.shape) == self.shape)
        except RuntimeError:
            return False

    def _in_product(self, x: Tensor) -> Tensor:
        """A tensor that broadcasts to this one, as one that broadcasts to the product."""
        base = self.product.shape
        return x if self.shape == base else x.expand(self.shape).reshape(base)

    def _mul(self, recipe: Recipe, a: Any, b: Any, **options: Any) -> Any:
        other, now = b if a is self else a, self.product
        if isinstance(other, (int, float)) and not options:
            bias = None if now.bias is None else now.bias * other
            return self._next(recipe, factor=now.factor * other, bias=bias)
        if not isinstance(other, Tensor) or options or self.shape != now.shape or now.bias is not None:
            return NotImplemented
        if not self._fits(other) or (other.ndim >= 1 and other.shape[-1] != 1):
            return NotImplemented
        q = now.q * other
        return self._next(recipe, q=q) if q.shape == now.q.shape else NotImplemented

    def _div(self, recipe: Recipe, a: Any, b: Any, **options: Any) -> Any:
        if a is not self or not isinstance(b, (int, float)) or b == 0:
            return NotImplemented
        return self._mul(recipe, self, 1 / b, **options)

    def _add(self, recipe: Recipe, a: Any, b: Any, alpha: float = 1, **options: Any) -> Any:
        other, bias = b if a is self else a, self.product.bias
        if not isinstance(other, Tensor) or not other.is_floating_point() or alpha != 1 or options:
            return NotImplemented
        if not self._fits(other):
            return NotImplemented
        more = self._in_product(other)
        return self._next(recipe, bias=more if bias is None else bias + more)

    def _sub(self, recipe: Recipe, a: Any, b: Any, alpha: float = 1, **options: Any) -> Any:
        if a is not self or not isinstance(b, Tensor):
            return NotImplemented
        return self._add(recipe, self, -b, alpha, **options)

    def _masked_fill(self, recipe: Recipe, _: Any, mask: Any, value: Any) -> Any:
        if not isinstance(mask, Tensor) or not isinstance(value, (int, float)) or value > _HIDDEN:
            return NotImplemented
        if not self._fits(mask):
            return NotImplemented
        shown, allowed = ~self._in_product(mask), self.product.allowed
        return self._next(recipe, allowed=shown if allowed is None else allowed & shown)

    def _where(self, recipe: Recipe, allowed: Any, a: Any = None, b: Any = None, **options: Any) -> Any:
        value = b.item() if isinstance(b, Tensor) and b.numel() == 1 and b.device.type == "cpu" else b
        if a is not self or not isinstance(allowed, Tensor) or options:
            return NotImplemented
        return self._masked_fill(recipe, self, ~allowed, value)

    def _view(self, recipe: Recipe, _: Any, *shape: Any, **options: Any) -> Any:
        found = resolved(shape, self.shape)
        if found is None or options:
            return NotImplemented
        return Logits(self.site, recipe, self.product, found, shares=True, tail=self.tail)

    def _softmax(self, recipe: Recipe, _: Any, dim: int | None = None, *rest: Any, **options: Any) -> Any:
        if dim not in (-1, self.ndim - 1) or self.shape[-1] != self.product.shape[-1]:
            return NotImplemented
        return Weights.of(self, recipe)

    def _to(self, recipe: Recipe, _: Any, kind: Any = None, *rest: Any, **options: Any) -> Any:
        kind = getattr(kind if kind is not None else options.get("dtype"), "dtype", kind)
        return self if kind in (self.dtype, torch.float32, torch.float64) else NotImplemented

    def _float(self, recipe: Recipe, _: Any, **options: Any) -> Any:
        return self  # the core's softmax is no less exact

    def __getitem__(self, index: Any) -> Any:
        starts, now = _starts(index, self.ndim), self.product
        if starts is None or self.recipe.made is not None or self.shape != now.shape or now.bias is not None:
            return super().__getitem__(index)
        if now.allowed is not None:
            return super().__getitem__(index)
        queries, keys = starts
        part = replace(now, q=now.q[..., queries:, :], k=now.k[..., keys:, :])
        whole = self.recipe
        recipe = Recipe(lambda: whole.tensor()[index])
        return Logits(self.site, recipe, part, shares=True, tail=_Tail(now, queries, keys, part))

    def __setitem__(self, index: Any, value: Any) -> None:
        """What was added to a tail is added to the whole: relative positions, which class tokens have not."""
        bias = self._of_tail(index, value)
        if bias is None:
            super().__setitem__(index, value)
            return
        whole, part = self.recipe, value.recipe

        def make() -> Tensor:
            made = whole.tensor().clone()
            made[index] = part.tensor()
            return made

        self.recipe, self.product = Recipe(make), replace(self.product, bias=bias)

    def _of_tail(self, index: Any, value: Any) -> Tensor | None:
        tail, starts = getattr(value, "tail", None), _starts(index, self.ndim)
        if tail is None or starts != (tail.queries, tail.keys) or tail.whole is not self.product:
            return None
        if self.recipe.made is not None or value.recipe.made is not None or self.shares:
            return None
        bias = value.product.bias
        if not value.product.only_adds_to(tail.part) or value.shape != tail.part.shape or bias is None:
            return None
        bias = (
            bias.expand(*bias.shape[:-2], *value.shape[-2:]) if bias.ndim >= 2 else bias.expand(value.shape)
        )
        return F.pad(bias, (tail.keys, 0, tail.queries, 0))


def _starts(index: Any, ndim: int) -> tuple[int, int] | None:
    """Where an index ``[..., n:, m:]`` starts; None for other indices."""
    if not isinstance(index, tuple) or len(index) != ndim or not is_all(index[:-2]):
        return None
    found = []
    for i in index[-2:]:
        if not isinstance(i, slice) or i.stop is not None or i.step not in (None, 1) or (i.start or 0) < 0:
            return None
        found.append(i.start or 0)
    return found[0], found[1]


def on_product(site: Site, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A product of two tensors, which may be that of queries and keys."""
    if site.blends and site.blending and len(args) == 2:
        site.blending = False
        return func(observed_weights(site, args[0]), args[1], **kwargs)
    if site.blends or not site.computed or kwargs or torch.compiler.is_compiling() or has_notes(args):
        return func(*args, **kwargs)
    if func is torch.einsum:
        named = parsed(args[0]) if len(args) == 3 else None
        if named is None or not is_product_of_queries_and_keys(*named):
            return func(*args)
        q, k = args[1:]
    else:
        if len(args) != 2 or not all(isinstance(x, Tensor) for x in args):
            return func(*args)
        q, k = args[0], args[1]
        if q.ndim < 3 or q.ndim != k.ndim:
            return func(*args)
        k = k.transpose(-2, -1)
    if not q.is_floating_point() or isinstance(k, torch.nn.Parameter) or isinstance(q, torch.nn.Parameter):
        return func(*args)
    return Logits(site, Recipe(lambda: func(*args)), Product(q, k))


def on_baddbmm(site: Site, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``baddbmm``: a product of queries and keys with a bias (BLOOM)."""
    named = dict(zip(("input", "batch1", "batch2"), args, strict=False)) | kwargs
    bias, q, k = (named.get(name) for name in ("input", "batch1", "batch2"))
    if not site.computed or torch.compiler.is_compiling():
        return func(*args, **kwargs)
    if not isinstance(bias, Tensor) or not isinstance(q, Tensor) or not isinstance(k, Tensor):
        return func(*args, **kwargs)
    factor, weight = named.get("alpha", 1.0), named.get("beta", 1.0)
    bias = None if weight == 0 else bias if weight == 1 else bias * weight
    recipe = Recipe(lambda: func(*args, **kwargs))
    return Logits(site, recipe, Product(q, k.transpose(-2, -1), factor, bias))


#: Functions of two tensors that may be products of queries and keys.
PRODUCTS = (Tensor.__matmul__, Tensor.matmul, torch.matmul, torch.bmm, Tensor.bmm, torch.einsum)
