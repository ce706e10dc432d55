"""Classes of plugged modules: the host's class, with its forward inside an interceptor or repaired."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import nn

from mmattn.plugins import fast_paths, multi_head, repairs
from mmattn.plugins.deferred import written
from mmattn.plugins.interception import Interceptor
from mmattn.plugins.site import KEY

#: Methods that make attention calls: ``infer`` is that of streaming models.
_ENTRANCES = ("forward", "infer")


@functools.cache
def plugged(kind: type[nn.Module], catching: bool = True, repaired: bool = False) -> type[nn.Module]:
    """The subclass that stands in for a class; the same for all of its modules.

    Args:
        kind: the host's class.
        catching: whether its forward runs inside an interceptor.
        repaired: whether its forward is mended by :mod:`mmattn.plugins.repairs`.
    """
    body: dict[str, Any] = {
        "__module__": kind.__module__,
        "__doc__": kind.__doc__,
        "__reduce_ex__": _reduce,
        "plugged_kind": kind,
        "plugged_how": (catching, repaired),
    }
    if repaired:
        body["forward"] = repairs.mended(kind)
    bases: tuple[type[nn.Module], ...] = (kind,)
    if catching and _hands_on(kind, nn.MultiheadAttention):
        bases = (kind, _Attention)
    elif catching:
        for name in _ENTRANCES:
            method = body.get(name, getattr(kind, name, None))
            if callable(method):
                body[name] = _intercepted(method)
    if _hands_on(kind, nn.TransformerEncoderLayer):
        bases = (kind, fast_paths.Layer)
    return type(kind.__name__, bases, body | fast_paths.members(kind))


def _hands_on(kind: type[nn.Module], base: type[nn.Module]) -> bool:
    """Whether a subclass has a forward of its own that calls torch's: then that is what is to be stood in for."""
    own = kind.forward
    return issubclass(kind, base) and own is not base.forward and "super" in own.__code__.co_names


def is_plugged(kind: type) -> bool:
    """Whether a class is one of those that :func:`plugged` makes."""
    return "plugged_kind" in vars(kind)


def host_class(module: nn.Module) -> type[nn.Module]:
    """The host's class of a module, plugged or not."""
    kind = type(module)
    return kind.plugged_kind if is_plugged(kind) else kind  # type: ignore[attr-defined]


def dress(module: nn.Module, catching: bool | None = None, repaired: bool | None = None) -> None:
    """Give a module the class that stands in for its own; what is None stays as it is."""
    kind = type(module)
    now = kind.plugged_how if is_plugged(kind) else (False, False)  # type: ignore[attr-defined]
    how = (now[0] if catching is None else catching, now[1] if repaired is None else repaired)
    bare = host_class(module)
    stands_in = any(how) or bool(fast_paths.members(bare))
    module.__class__ = plugged(bare, *how) if stands_in else bare  # type: ignore[arg-type]  # a type is hashable
    fast_paths.keep(module)


def undress(module: nn.Module) -> None:
    """Give a module its own class back."""
    if is_plugged(type(module)):
        module.__class__ = host_class(module)
        fast_paths.give_back(module)


def _intercepted(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def entrance(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        site = self.__dict__[KEY]
        with Interceptor(site):
            out = method(self, *args, **kwargs)
        if isinstance(out, tuple):
            return type(out)(*map(written, out)) if hasattr(out, "_fields") else tuple(map(written, out))
        return written(out)

    return multi_head.beside(method, entrance) if method is nn.MultiheadAttention.forward else entrance


class _Attention(nn.MultiheadAttention):
    """Comes between ``nn.MultiheadAttention`` and a subclass whose forward calls it."""

    forward = _intercepted(nn.MultiheadAttention.forward)


def _reduce(self: nn.Module, protocol: Any) -> tuple[Any, ...]:
    """For pickles and copies: the class is made anew from the host's."""
    state = (
        self.__getstate__() if hasattr(self, "__getstate__") else dict(self.__dict__)
    )  # Python 3.10 has none
    return _restored, (type(self).plugged_kind, *type(self).plugged_how), state  # type: ignore[attr-defined]


def _restored(kind: type[nn.Module], *how: bool) -> nn.Module:
    made = plugged(kind, *how)  # type: ignore[arg-type]
    return made.__new__(made)
