"""The report's page in headless Chromium."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.bars import Bar
from benchmarks.browser import Scheme, opened

WIDTHS = (360, 1600)
SCHEMES: tuple[Scheme, ...] = ("light", "dark")
MOST_MB = 8.0


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
            with opened(page, width, scheme=scheme) as seen:
                it = seen.page
                for summary in it.query_selector_all("summary"):
                    summary.click()
                wider += it.evaluate("document.documentElement.scrollWidth") > width
                dark.add((scheme, it.evaluate("getComputedStyle(document.body).backgroundColor")))
                sorts += _sorts(it)
                mouse += _by_mouse(it)
                keys += _by_keys(it)
                errors += seen.errors
                requests += seen.requests
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


def _sorts(it: Any) -> bool:
    """Whether the table of accuracies is in the order of a column after a click, and turned round after Enter."""
    button = it.locator("#accuracy table.accuracy thead button").nth(2)
    button.click()
    up = _column(it)
    button.focus()
    it.keyboard.press("Enter")
    down = _column(it)
    return len(set(up)) > 1 and up == sorted(up) and down == sorted(up, reverse=True)


def _column(it: Any) -> list[float]:
    cells = "#accuracy table.accuracy tbody tr > :nth-child(3)"
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
