"""The browser of the benchmarks, for tests: they are skipped where it is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks import browser
from benchmarks.browser import Opened, Scheme

__all__ = ["Opened", "opened"]


@contextmanager
def opened(file: Path, width: int = 1200, height: int = 900, scheme: Scheme = "light") -> Iterator[Opened]:
    """Open a file; skips the test where there is no Playwright or no Chromium."""
    pytest.importorskip("playwright.sync_api")
    if browser.CHROMIUM is None:
        pytest.skip("needs Chromium")
    with browser.opened(file, width, height, scheme) as found:
        yield found
