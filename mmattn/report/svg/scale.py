"""Scales from values to places, and round values to mark on them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["linear", "log", "asinh"]


@dataclass(frozen=True)
class Scale:
    """From ``low..high`` to ``start..stop``.

    Attributes:
        low, high: values at both ends; ``high`` above ``low``; positive where ``kind`` is ``log``.
        start, stop: their places.
        kind: ``asinh`` is even near 0 and logarithmic far from it, on both sides.
    """

    low: float
    high: float
    start: float
    stop: float
    kind: Kind = "linear"

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"Scale.high must be above low: got {self.low:g} to {self.high:g}")
        if self.kind == "log" and self.low <= 0:
            raise ValueError(f"Scale.low must be positive on a log scale: got {self.low:g}")

    def _bend(self, value: float) -> float:
        if self.kind == "log":
            return math.log(value)
        return math.asinh(value) if self.kind == "asinh" else value

    def __call__(self, value: float) -> float:
        """The place of ``value``; values beyond an end lie at that end."""
        value = min(self.high, max(self.low, value))
        low, high = self._bend(self.low), self._bend(self.high)
        return self.start + (self.stop - self.start) * (self._bend(value) - low) / (high - low)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """At most ``most`` + 1 round values between ``low`` and ``high``, 1, 2 or 5 times a power of ten apart.

    >>> ticks(0, 1), ticks(-3, 27)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.0, 10.0, 20.0])
    """
    span = high - low
    step = 10.0 ** math.floor(math.log10(span / most))
    step = next(step * factor for factor in (1, 2, 5, 10) if span / (step * factor) <= most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def powers(low: float, high: float, base: int = 10) -> list[float]:
    """Powers of ``base`` between ``low`` and ``high``, both included.

    >>> powers(0.0004, 0.2)
    [0.001, 0.01, 0.1]
    """
    first = math.ceil(math.log(low, base) - 1e-9)
    last = math.floor(math.log(high, base) + 1e-9)
    return [float(f"{float(base) ** index:.12g}") for index in range(first, last + 1)]


def reach(values: Iterable[float], pad: float = 0.06, include: tuple[float, ...] = ()) -> tuple[float, float]:
    """Lowest and highest of ``values`` and ``include``, with ``pad`` of their distance on both sides."""
    kept = [value for value in (*values, *include) if math.isfinite(value)]
    low, high = min(kept, default=0.0), max(kept, default=1.0)
    room = pad * (high - low) or max(abs(high), 1.0) * 0.1
    return low - room, high + room
