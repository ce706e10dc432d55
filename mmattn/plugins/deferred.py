"""Tensors that a host has asked for and that are not written down yet.

A host that multiplies queries and keys itself gets no product but a note of it (:mod:`mmattn.plugins.logits`). The
note takes the usual steps (a factor, a bias, a mask, the softmax, dropout) and, multiplied with the values, becomes
one call of the core (:mod:`mmattn.plugins.weights`). Any other step writes the tensor down, by the very functions
that the host called, and goes on with that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_any, tree_map

from mmattn.plugins.calls import observed_weights
from mmattn.plugins.site import Site


class Recipe:
    """How a tensor is made, and the tensor once it was: notes that are made from each other share it."""

    def __init__(self, make: Callable[[], Tensor]) -> None:
        self._make: Callable[[], Tensor] | None = make
        self.made: Tensor | None = None

    def tensor(self) -> Tensor:
        """The tensor, made at the first time."""
        if self.made is None:
            assert self._make is not None
            with torch._C.DisableTorchFunction():
                self.made = self._make()
            self._make = None
        return self.made


class Deferred:
    """A tensor ``[..., N, M]`` that is not written down yet.

    Subclasses have a method for each step that they can take without that; it is given the recipe of the result and
    the arguments of the host, and answers ``NotImplemented`` to all that it was not made for.

    Args:
        site: the module that asked for it.
        recipe: how to make it.
        shape: of the tensor.
        like: has its dtype and device.
        shares: whether the tensor would share its memory with that of another note.
    """

    def __init__(
        self, site: Site, recipe: Recipe, shape: torch.Size, like: Tensor, shares: bool = False
    ) -> None:
        self.site = site
        self.recipe = recipe
        self.shape = shape
        self.dtype = like.dtype
        self.device = like.device
        self.requires_grad = like.requires_grad
        self.shares = shares

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def mT(self) -> Any:
        return self.step(Tensor.transpose, (self, -2, -1), {})

    def dim(self) -> int:
        return len(self.shape)

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.shape[dim]

    def tensor(self) -> Tensor:
        """The tensor, written down by the host's own functions."""
        return self.recipe.tensor()

    def step(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What a function of this tensor gives, put off as well where that is possible."""
        with torch._C.DisableTorchFunction():  # the core's own products are no business of the interceptor
            return self._step(func, args, kwargs)

    def _step(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = getattr(func, "__name__", "")
        step = STEPS.get(name, "")
        known = getattr(self, step, None) if step else None
        in_place = (name.endswith("_") and not name.endswith("__")) or kwargs.get("inplace", False)
        named = not any(x is self for x in args)  # given by keyword
        if known is not None and self.recipe.made is None and not named and not (in_place and self.shares):
            parts, options = tree_map(_recipe_of, args), tree_map(_recipe_of, kwargs)
            found = known(
                Recipe(lambda: func(*tree_map(_made, parts), **tree_map(_made, options))), *args, **kwargs
            )
            if found is not NotImplemented:
                if not in_place or found is self or not isinstance(found, Deferred):
                    return found
                self.__dict__.update(found.__dict__)
                return self
        out = func(*tree_map(written, args), **tree_map(written, kwargs))
        return observed_weights(self.site, out) if step == "_softmax" and out.ndim >= 3 else out

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        first = next((x for x in (*args, *kwargs.values()) if isinstance(x, Deferred)), None)
        if first is None:  # hidden in a list
            return func(*tree_map(written, args), **tree_map(written, kwargs))
        return first.step(func, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in STEPS:
            return lambda *args, **kwargs: self.step(getattr(Tensor, name), (self, *args), kwargs)
        return getattr(self.tensor(), name)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        return self if is_all(index) else self.tensor()[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        self.tensor()[index] = written(value)

    def __add__(self, other: Any) -> Any:
        return self.step(torch.add, (self, other), {})

    def __radd__(self, other: Any) -> Any:
        return self.step(torch.add, (other, self), {})

    def __sub__(self, other: Any) -> Any:
        return self.step(torch.sub, (self, other), {})

    def __mul__(self, other: Any) -> Any:
        return self.step(torch.mul, (self, other), {})

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        return self.step(torch.div, (self, other), {})

    def __matmul__(self, other: Any) -> Any:
        return self.step(torch.matmul, (self, other), {})

    def __rmatmul__(self, other: Any) -> Any:
        return self.step(torch.matmul, (other, self), {})


def _by_tensor(name: str) -> Callable[..., Any]:
    return lambda self, *others: getattr(self.tensor(), name)(*map(written, others))


for _name in (
    "neg",
    "rsub",
    "rtruediv",
    "pow",
    "rpow",
    "abs",
    "lt",
    "le",
    "gt",
    "ge",
    "iter",
    "bool",
    "float",
):
    setattr(Deferred, f"__{_name}__", _by_tensor(f"__{_name}__"))  # Python looks operators up in the class


def written(x: Any) -> Any:
    """A tensor in place of one that is put off; anything else as it is."""
    return x.tensor() if isinstance(x, Deferred) else x


def has_notes(args: tuple[Any, ...]) -> bool:
    """Whether a tensor that is put off is among the arguments of a function."""
    return tree_any(lambda x: isinstance(x, Deferred), args)


def _recipe_of(x: Any) -> Any:
    return x.recipe if isinstance(x, Deferred) else x


def _made(x: Any) -> Any:
    return x.tensor() if isinstance(x, Recipe) else x


def is_all(index: Any) -> bool:
    """Whether an index takes all there is, without moving it."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(
        isinstance(i, slice) and i.start in (None, 0) and i.stop is None and i.step in (None, 1)
        for i in parts
    )


def resolved(shape: tuple[Any, ...], old: torch.Size) -> torch.Size | None:
    """What ``view`` was asked for, as a shape; None where it was asked for something else."""
    sizes = list(shape[0]) if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else list(shape)
    if not all(isinstance(s, int) for s in sizes):
        return None
    if -1 in sizes:
        known = math.prod(s for s in sizes if s != -1)
        sizes[sizes.index(-1)] = math.prod(old) // max(known, 1)
    return torch.Size(sizes) if math.prod(sizes) == math.prod(old) else None


#: Functions that a note can take, by name, and the method that does.
STEPS = {
    "add": "_add", "__add__": "_add", "add_": "_add", "__radd__": "_add", "__iadd__": "_add",
    "sub": "_sub", "__sub__": "_sub", "sub_": "_sub", "__isub__": "_sub",
    "mul": "_mul", "__mul__": "_mul", "mul_": "_mul", "__rmul__": "_mul", "__imul__": "_mul",
    "div": "_div", "div_": "_div", "__truediv__": "_div", "true_divide": "_div",
    "masked_fill": "_masked_fill", "masked_fill_": "_masked_fill", "where": "_where",
    "view": "_view", "reshape": "_view", "softmax": "_softmax", "dropout": "_dropout",
    "transpose": "_transpose", "swapaxes": "_transpose",
    "matmul": "_matmul", "__matmul__": "_matmul", "__rmatmul__": "_matmul", "bmm": "_matmul",
    "einsum": "_einsum", "to": "_to", "type_as": "_to", "type": "_to", "float": "_float",
}  # fmt: skip
