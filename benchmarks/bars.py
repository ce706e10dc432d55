"""Promised figures and whether they hold."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Bar:
    """One promised figure.

    Attributes:
        name: what was measured.
        value: what came out.
        limit: what was promised.
        at_least: whether the value must reach the limit, or stay at or under it.
        note: spread, seeds, time.
    """

    name: str
    value: float
    limit: float
    at_least: bool = True
    note: str = ""

    @property
    def holds(self) -> bool:
        """Whether the promise is kept."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def conclude(bars: Sequence[Bar], out: Path | None) -> int:
    """Print the bars as a Markdown table, write them as JSON where asked, and end with the count.

    Returns:
        0 when all hold, else 1.
    """
    print("\n| figure | measured | promised | holds | |\n|---|---|---|---|---|")
    for bar in bars:
        sign = ">=" if bar.at_least else "<="
        answer = "yes" if bar.holds else "no"
        print(f"| {bar.name} | {bar.value:.4g} | {sign} {bar.limit:.4g} | {answer} | {bar.note} |")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps([asdict(bar) | {"holds": bar.holds} for bar in bars], indent=2))
    held = sum(bar.holds for bar in bars)
    print(f"\nbars: {held} of {len(bars)} hold")
    return 0 if held == len(bars) else 1
