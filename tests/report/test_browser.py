"""The page in a browser: quiet, offline, sortable, readable on a phone and in the dark."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("playwright.sync_api")

from mmattn.report.contents import contents
from mmattn.report.page import write
from mmattn.report.runs import load_runs
from tests.browser import opened
from tests.report.seen import exploration
from tests.report.verdicts import judgement


@pytest.fixture(scope="module")
def page_file(made_up_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(contents(load_runs(made_up_runs), judgement()), [], tmp_path_factory.mktemp("page"))


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (360, "dark"), (800, "light"), (1600, "dark")])
def test_page_is_quiet_and_fits(page_file: Path, width: int, scheme: str) -> None:
    with opened(page_file, width, scheme=scheme) as it:
        for summary in it.page.query_selector_all("summary"):
            summary.click()
        assert it.page.evaluate("document.documentElement.scrollWidth") == width
        assert it.errors == []
        assert it.requests == []


#: Colour of the first element that fits, and of the ground on which it lies.
COLOURS = """selector => {
  const found = document.querySelector(selector), style = getComputedStyle(found);
  let ground = "";
  for (let e = found; e && !ground; e = e.parentElement) {
    const colour = getComputedStyle(e).backgroundColor;
    if (colour.startsWith("rgb(")) ground = colour;
  }
  return [found.namespaceURI.endsWith("svg") ? style.fill : style.color, ground];
}"""


def test_dark_and_light_differ_and_both_can_be_read(page_file: Path) -> None:
    def luminance(colour: str) -> float:
        parts = [float(part) / 255 for part in colour.strip("rgb()").split(",")[:3]]
        red, green, blue = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    seen = set()
    for scheme in ("light", "dark"):
        with opened(page_file, scheme=scheme) as it:
            for selector in (
                "h1",
                ".intro",
                ".badge",
                ".held",
                ".of",
                ".tick",
                ".row-verdict",
                "nav a",
                ".source",
            ):
                ink, ground = it.page.evaluate(COLOURS, selector)
                bright, deep = sorted((luminance(ink), luminance(ground)), reverse=True)
                assert (bright + 0.05) / (deep + 0.05) >= 4.5, (scheme, selector)
            seen.add((scheme, luminance(ground) > 0.5))
    assert seen == {("light", True), ("dark", False)}


def column(it: object, index: int) -> list[str]:
    return it.page.eval_on_selector_all(  # type: ignore[attr-defined, no-any-return]
        f"#accuracy table.accuracy tbody tr > :nth-child({index})", "cells => cells.map(c => c.dataset.value)"
    )


def test_tables_sort_by_mouse_and_by_keyboard(page_file: Path) -> None:
    with opened(page_file) as it:
        button = it.page.locator("#accuracy table.accuracy thead button").nth(2)
        header = it.page.locator("#accuracy table.accuracy thead th").nth(2)
        before = column(it, 3)
        assert header.get_attribute("aria-sort") == "none"
        button.click()
        assert header.get_attribute("aria-sort") == "ascending"
        assert column(it, 3) == sorted(before, key=float)
        button.focus()
        it.page.keyboard.press("Enter")
        assert header.get_attribute("aria-sort") == "descending"
        assert column(it, 3) == sorted(before, key=float, reverse=True)
        it.page.keyboard.press("Space")
        assert header.get_attribute("aria-sort") == "ascending"
        assert it.errors == []


def test_what_was_not_measured_sorts_last(page_file: Path) -> None:
    with opened(page_file) as it:
        for _ in range(2):
            it.page.locator("#runs-table thead button").nth(6).click()
            values = it.page.eval_on_selector_all(
                "#runs-table tbody tr > :nth-child(7)", "cells => cells.map(c => c.dataset.value)"
            )
            assert "" in values
            assert values == [v for v in values if v] + [v for v in values if not v]


def test_a_number_leads_to_the_runs_behind_it(page_file: Path) -> None:
    with opened(page_file) as it:
        it.page.locator("#focus .forest a.number").first.click()
        shown = it.page.locator("#runs-table tbody tr:visible")
        assert shown.locator("th").all_inner_texts() == [
            f"vision-{arm}-{seed}" for arm in ("attention", "uniform") for seed in range(3)
        ]
        status = it.page.locator("#filter")
        assert "6 runs behind “Vision: attention − uniform" in status.inner_text()
        status.get_by_role("button").click()
        assert shown.count() == 112
        assert not status.is_visible()


def test_downloads_need_no_files_beside_the_page(page_file: Path, tmp_path: Path) -> None:
    alone = tmp_path / "index.html"
    alone.write_bytes(page_file.read_bytes())
    with opened(alone) as it:
        for name in ("comparisons.csv", "report.json"):
            with it.page.expect_download() as caught:
                it.page.get_by_role("link", name=name).click()
            assert caught.value.suggested_filename == name
            assert Path(caught.value.path()).read_bytes() == (page_file.parent / name).read_bytes()
        assert it.errors == []
        assert it.requests == []


def test_links_of_the_bar_follow_the_reader(page_file: Path) -> None:
    with opened(page_file) as it:
        it.page.locator("nav a", has_text="Method").click()
        it.page.wait_for_selector('nav a[aria-current][href="#method"]')
        assert it.page.locator("nav a[aria-current]").count() == 1


def test_page_reads_without_its_program(page_file: Path, tmp_path: Path) -> None:
    html = page_file.read_text(encoding="utf-8")
    start = html.index("<script>\n")
    bare = tmp_path / "bare.html"
    bare.write_text(html[:start] + html[html.index("</script>", start) + 9 :], encoding="utf-8")
    with opened(bare) as it:
        assert it.page.locator("#runs-table tbody tr:visible").count() == 112
        assert it.errors == []


def test_explorer_stands_in_the_page(made_up_runs: Path, tmp_path: Path) -> None:
    report = contents(load_runs(made_up_runs), judgement())
    file = write(report, [exploration("text", 12), exploration("vision", 16)], tmp_path)
    with opened(file, 360) as it:
        it.page.locator("#explorer .mmx").get_by_text("All heads").wait_for()
        assert "Scene of " in it.page.locator("#explorer").inner_text()
        assert it.page.evaluate("document.documentElement.scrollWidth") == 360
        assert it.errors == []
        assert it.requests == []
