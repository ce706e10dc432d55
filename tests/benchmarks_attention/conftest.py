"""Times that are made up."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks.attention.timing import Timing


@pytest.fixture
def once() -> Callable[..., Timing]:
    """One item, one round for each number."""
    return lambda *seconds: Timing(tuple((s,) for s in seconds))
