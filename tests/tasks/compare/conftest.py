"""Small grids that a stand-in trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("lightning")

from tasks.compare.grid import Grid


@pytest.fixture
def tiny() -> Callable[..., Grid]:
    """A grid of two arms and two seeds; further settings go to the stand-in."""

    def made(**settings: object) -> Grid:
        extra = [f"--{name}={value}" for name, value in settings.items()]
        return Grid("tiny", ("vision",), ("attention", "uniform"), (0, 1), extra=tuple(extra))

    return made


@pytest.fixture
def begun(tmp_path: Path) -> Callable[[], list[str]]:
    """Names of the runs that were begun, in order, each time."""

    def names() -> list[str]:
        path = tmp_path / ".work" / "begun.txt"
        return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []

    return names
