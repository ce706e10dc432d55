"""A page in headless Chromium: what it logs and what it asks of the network are kept."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

Scheme = Literal["light", "dark"]
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
_FLAGS += ["--disable-component-update", "--disable-sync"]


class Opened:
    """A page in the browser.

    Attributes:
        page: Playwright's page.
        errors: what the console logged as an error or a warning, and exceptions nobody caught.
        requests: addresses asked for, but for the file itself and what lies in it (data:, blob:).
    """

    def __init__(self, page: Any, file: Path) -> None:
        self.page = page
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._own = file.resolve().as_uri()
        page.on("console", self._logged)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", self._asked)
        page.goto(self._own)

    def _logged(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def _asked(self, request: Any) -> None:
        if request.url.split("#")[0] != self._own and not request.url.startswith(("data:", "blob:")):
            self.requests.append(request.url)


@contextmanager
def opened(file: Path, width: int = 1200, height: int = 900, scheme: Scheme = "light") -> Iterator[Opened]:
    """Open a file.

    Raises:
        ImportError: Playwright is not installed.
        FileNotFoundError: there is no Chromium.
    """
    from playwright.sync_api import sync_playwright

    if CHROMIUM is None:
        raise FileNotFoundError("a page is looked at in Chromium: got none on the path")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
        try:
            context = browser.new_context(
                viewport={"width": width, "height": height}, color_scheme=scheme, accept_downloads=True
            )
            yield Opened(context.new_page(), file)
        finally:
            browser.close()
