"""What a topic of ``python -m benchmarks.plugins`` gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from benchmarks.bars import Bar


@dataclass
class Topic:
    """A table and what it is held against.

    Attributes:
        title: one line.
        table: Markdown.
        bars: the figures of the topic.
        facts: everything else that was measured, for the JSON file.
    """

    title: str
    table: str
    bars: list[Bar] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def markdown(header: list[str], rows: list[list[Any]]) -> str:
    """A table.

    Example:
        >>> print(markdown(["a", "b"], [[1, 2.5]]))
        | a | b |
        |---|---|
        | 1 | 2.5 |
    """
    lines = [header, *rows]
    text = [
        "| " + " | ".join(f"{x:.4g}" if isinstance(x, float) else str(x) for x in row) + " |" for row in lines
    ]
    return "\n".join([text[0], "|" + "---|" * len(header), *text[1:]])
