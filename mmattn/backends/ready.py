"""Calls that were chosen for before: their function of queries, keys and values alone.

Between large tensor operations, Python that looks at shapes and makes objects runs with cold caches, several times
slower than in a loop of its own: a tenth of a millisecond for each call of attention.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from torch import Tensor

#: Of q, k, v and the mask of the call, a tensor where the call that it was made for had one.
Ready = Callable[[Tensor, Tensor, Tensor, Any], Tensor]

#: By everything that the choice depends on; None: such calls go the long way.
_KNOWN: dict[Hashable, Ready | None] = {}
_MOST = 4096


def known(key: Hashable) -> Ready | None:
    """The function of calls like this one, if there is one."""
    return _KNOWN.get(key)


def is_new(key: Hashable) -> bool:
    """Whether no call like this one was seen."""
    return key not in _KNOWN


def remember(key: Hashable, function: Ready | None) -> None:
    """Keep the function of calls like this one."""
    if len(_KNOWN) >= _MOST:
        _KNOWN.clear()
    _KNOWN[key] = function


def forget() -> None:
    """Choose anew from now on."""
    _KNOWN.clear()
