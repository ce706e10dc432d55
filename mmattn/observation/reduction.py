"""Observations of many batches in the memory of one example."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmattn.observation.measures import Statistics

if TYPE_CHECKING:
    from numpy import ndarray

#: Of a query, as against those of a key.
_OF_QUERIES = ("entropy", "distance", "sink_mass", "max_logit")


class Reduced:
    """Sums, or means, over all sequences of all calls of one module, taken as they come.

    ``entropy``, ``distance``, ``sink_mass`` and ``max_logit`` are ``[H, N]``, ``received`` is ``[H, M]`` and
    ``weights`` ``[H, N, M]``: a mean is over the sequences, but for that of ``max_logit``, ``entropy``, ``distance``
    and ``sink_mass`` of a query over the sequences in which it sees a key. This needs sequences of equal lengths.
    ``per_head`` has the same for any lengths, ``[H]`` each: over all queries that see a key, and over all keys.

    Args:
        name: of the module.
        mean: whether to divide by the number.

    Attributes:
        num_calls, examples: how many calls and sequences there were.
    """

    def __init__(self, name: str, mean: bool) -> None:
        self.name = name
        self.mean = mean
        self.num_calls = self.examples = 0
        self.heads: tuple[int, ...] = ()
        self.missing: dict[str, str] = {}
        self._lengths: tuple[int, int] | None = None
        self._uneven = ""
        self._tokens: dict[str, Tensor] = {}
        self._heads: dict[str, Tensor] = {}
        self._weights: Tensor | None = None

    def begin(self, heads: tuple[int, ...], missing: dict[str, str]) -> None:
        """One more call, of these heads; ``missing`` says why something will not be found."""
        if self.num_calls and len(heads) != len(self.heads):
            raise ValueError(
                f"a reduction needs the same number of heads in each call: "
                f"got {len(heads)} after {len(self.heads)} in {self.name!r}"
            )
        self.num_calls += 1
        self.heads = heads
        self.missing |= missing

    def room(self, heads: int, queries: int, keys: int, weights: bool) -> int:
        """Bytes that sequences of these lengths add to what is held."""
        if self._lengths is not None or self._uneven:
            return 0
        return 8 * heads * (5 * queries + keys + 8 + (queries * keys if weights else 0))

    def add(self, found: Statistics, weights: Tensor | None) -> None:
        """Sequences of equal lengths: their statistics, and the sum of their weights over the batch."""
        live = found.max_logit != -torch.inf
        numbers = {
            name: getattr(found, name).masked_fill(~live, 0.0) for name in _OF_QUERIES
        } | {"queries": live, "received": found.received}  # fmt: skip
        for name, x in numbers.items():
            _add(self._heads, name, x.sum((0, 2), dtype=_wide(x)))
        keys = found.received
        _add(self._heads, "keys", torch.full_like(keys[0, :, 0] if keys.numel() else keys.sum((0, 2)),
             keys.shape[0] * keys.shape[2], dtype=_wide(keys)))  # fmt: skip
        self.examples += len(live)
        lengths = live.shape[2], keys.shape[2]
        if self._lengths is None and not self._uneven:
            self._lengths = lengths
        if self._lengths != lengths:
            self._uneven = self._uneven or f"got {list(lengths)} after {list(self._lengths or ())}"
            self._lengths, self._weights = None, None
            self._tokens.clear()
            return
        for name, x in numbers.items():
            _add(self._tokens, name, x.sum(0, dtype=_wide(x)))
        if weights is not None:
            self._weights = weights if self._weights is None else self._weights.add_(weights)

    @property
    def even(self) -> bool:
        """Whether all sequences so far had the same lengths."""
        return not self._uneven

    @property
    def per_head(self) -> Statistics:
        """Each ``[H]``: over all queries that see a key (``received``: over all keys) of all sequences."""
        found = self._heads
        return Statistics(**{
            name: self._over(found[name], found["keys" if name == "received" else "queries"])
            for name in Statistics._fields
        })  # fmt: skip

    def __getattr__(self, attribute: str) -> Any:
        if attribute in ("q_lengths", "k_lengths", "explanation"):
            raise AttributeError(
                f"{attribute} is that of one call, observe without reduce: got {self.name!r}"
            )
        if attribute not in (*Statistics._fields, "weights"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {attribute!r}")
        if attribute in self.missing:
            raise AttributeError(self.missing[attribute])
        if self._uneven:
            raise AttributeError(
                f"{attribute} of several sequences needs equal lengths [N, M], take per_head: "
                f"{self._uneven} in {self.name!r}"
            )
        if attribute == "weights":
            assert self._weights is not None
            return self._over(self._weights, torch.tensor(self.examples))
        if attribute == "received":
            return self._over(self._tokens[attribute], torch.tensor(self.examples))
        return self._over(self._tokens[attribute], self._tokens["queries"])

    def numpy(self) -> dict[str, ndarray[Any, Any]]:
        """All that was found as NumPy arrays, those of ``per_head`` under ``"per_head.entropy"`` and so on."""
        found: dict[str, Tensor] = {f"per_head.{name}": x for name, x in self.per_head._asdict().items()}
        if not self._uneven:
            names = (*Statistics._fields, "weights")
            found |= {name: getattr(self, name) for name in names if name not in self.missing}
        return {name: x.cpu().numpy() for name, x in found.items()}

    def _over(self, total: Tensor, count: Tensor) -> Tensor:
        if not self.mean:
            return total.float()
        return (total / count.to(total).clamp(min=1)).float()

    def __repr__(self) -> str:
        return f"{'mean' if self.mean else 'sum'} over {self.examples} sequences of {self.num_calls} calls"


def _wide(x: Tensor) -> torch.dtype:
    """Where long sums keep their digits."""
    return torch.float32 if x.device.type == "mps" else torch.float64


def _add(sums: dict[str, Tensor], name: str, x: Tensor) -> None:
    if name in sums:
        sums[name] += x
    else:
        sums[name] = x
