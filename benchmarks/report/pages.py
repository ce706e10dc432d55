"""The report's page in headless Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from benchmarks.bars import Bar

Scheme = Literal["light", "dark"]
WIDTHS = (360, 1600)
SCHEMES: tuple[Scheme, ...] = ("light", "dark")
MOST_MB = 8.0
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


def bars(page: Path) -> list[Bar]:
    """Size, silence, width, sorting and explorer of a page.

    Raises:
        ImportError: Playwright is not installed.
        FileNotFoundError: there is no Chromium.
    """
    errors: list[str] = []
    requests: list[str] = []
    wider, sorts, mouse, keys, dark = 0, 0, 0, 0, set()
    for width in WIDTHS:
        for scheme in SCHEMES:
            with _opened(page, width, scheme, errors, requests) as it:
                for summary in it.query_selector_all("summary"):
                    summary.click()
                wider += it.evaluate("document.documentElement.scrollWidth") > width
                dark.add((scheme, it.evaluate("getComputedStyle(document.body).backgroundColor")))
                sorts += _sorts(it)
                mouse += _by_mouse(it)
                keys += _by_keys(it)
    views = len(WIDTHS) * len(SCHEMES)
    return [
        Bar("page, MB", page.stat().st_size / 1e6, MOST_MB, at_least=False),
        Bar(
            "page: errors and warnings in the console",
            len(errors),
            0,
            at_least=False,
            note="; ".join(errors[:2]),
        ),
        Bar("page: requests to the network", len(requests), 0, at_least=False, note="; ".join(requests[:2])),
        Bar(
            f"page: views of {views} wider than the window", wider, 0, at_least=False, note="360 and 1,600 px"
        ),
        Bar(f"page: views of {views} in which a table sorts", sorts, views),
        Bar(f"page: views of {views} in which the explorer follows the mouse", mouse, views),
        Bar(f"page: views of {views} in which the explorer follows the keys", keys, views),
        Bar("page: grounds, light and dark", len({ground for _, ground in dark}), len(SCHEMES)),
    ]


@contextmanager
def _opened(file: Path, width: int, scheme: Scheme, errors: list[str], requests: list[str]) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    browser_path = next((found for name in _BROWSERS if (found := shutil.which(name))), None)
    if browser_path is None:
        raise FileNotFoundError(f"the page is looked at in Chromium: got none of {', '.join(_BROWSERS)}")
    own = file.resolve().as_uri()
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path, args=_FLAGS)
        it = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        it.on("console", lambda said: errors.append(said.text) if said.type in ("error", "warning") else None)
        it.on("pageerror", lambda error: errors.append(str(error)))
        it.on(
            "request",
            lambda asked: (
                None
                if asked.url.split("#")[0] == own or asked.url.startswith(("data:", "blob:"))
                else requests.append(asked.url)
            ),
        )
        it.goto(own)
        try:
            yield it
        finally:
            browser.close()


def _sorts(it: Any) -> bool:
    """Whether the table of accuracies is in the order of a column after a click, and turned round after Enter."""
    button = it.locator("table.accuracy thead button").nth(2)
    button.click()
    up = _column(it)
    button.focus()
    it.keyboard.press("Enter")
    down = _column(it)
    return len(set(up)) > 1 and up == sorted(up) and down == sorted(up, reverse=True)


def _column(it: Any) -> list[float]:
    cells = "table.accuracy tbody tr > :nth-child(3)"
    found: list[str] = it.eval_on_selector_all(cells, "cells => cells.map(c => c.dataset.value)")
    return [float(value) for value in found if value]


def _by_mouse(it: Any) -> bool:
    """Whether pointing at another token says something else, and leaving it the first thing again."""
    it.wait_for_selector("[data-token]")
    before = _said(it)
    it.locator("[data-token]").nth(3).hover()
    during = _said(it)
    it.mouse.move(1, 1)
    return before != during and _said(it) == before


def _by_keys(it: Any) -> bool:
    """Whether arrow keys walk from token to token, each with words of its own."""
    it.locator(".mmx-tokens").focus()
    said = []
    for _ in range(3):
        it.keyboard.press("ArrowRight")
        said.append(_said(it))
    return len(set(said)) == 3


def _said(it: Any) -> str:
    return str(it.locator(".mmx-live").text_content())
