"""A headless Chromium for tests of pages: what it logs and what it asks of the network are kept."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Opened:
    """A page in the browser.

    Attributes:
        page: Playwright's page.
        errors: what the console logged as an error or a warning, and exceptions nobody caught.
        requests: addresses asked for, but for the file itself and what lies in it (data:, blob:).
    """

    def __init__(self, page: Any, file: Path) -> None:
        self.page, self.errors, self.requests = page, [], []
        page.on("console", lambda m: self.errors.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        own = file.resolve().as_uri()
        page.on(
            "request",
            lambda r: (
                None
                if r.url.split("#")[0] == own or r.url.startswith(("data:", "blob:"))
                else self.requests.append(r.url)
            ),
        )
        page.goto(own)


@contextmanager
def opened(file: Path, width: int = 1200, height: int = 900, scheme: str = "light") -> Iterator[Opened]:
    """Open a file; skips the test where there is no Playwright or no Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
        try:
            context = browser.new_context(
                viewport={"width": width, "height": height}, color_scheme=scheme, accept_downloads=True
            )
            yield Opened(context.new_page(), file)
        finally:
            browser.close()
