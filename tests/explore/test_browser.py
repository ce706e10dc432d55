"""The explorer in a browser: by mouse and by keys, light and dark, narrow and wide."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from mmattn.explore import Exploration, explore, fragment, page
from tests.browser import Opened, opened
from tests.explore.made import Labelled, Tiny

NO_BREAK = "\N{NO-BREAK SPACE}"


@pytest.fixture
def file(all_three: list[Exploration], tmp_path: Path) -> Path:
    path = tmp_path / "explore.html"
    path.write_text(page(all_three, 'What "a & b" </title> looks at'), encoding="utf-8")
    return path


def ready(found: Opened, domain: str | None = None) -> Any:
    if domain is not None:
        found.page.locator(f'.mmx input[value="{domain}"]').check(force=True)
    found.page.wait_for_selector(
        {"text": ".mmx-text", "speech": ".mmx-sound"}.get(domain or "", ".mmx-frame")
    )
    return found.page


def live(page: Any) -> str:
    return str(page.locator(".mmx-live").text_content()).replace(NO_BREAK, " ")


def colours(page: Any) -> list[str]:
    script = "all => all.map(x => getComputedStyle(x.querySelector('.mmx-tint') ?? x).backgroundColor)"
    return list(page.locator("[data-token]").evaluate_all(script))


def percent(value: float) -> str:
    return f"{100 * value:.1f}".removesuffix(".0") + " %" if value < 0.0995 else f"{100 * value:.0f} %"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1600])
def test_every_domain_opens_without_a_word_to_console_or_network(file: Path, width: int, scheme: str) -> None:
    with opened(file, width=width, scheme=scheme) as found:
        assert found.page.title() == 'What "a & b" </title> looks at'
        for domain in ("vision", "speech", "text"):
            shown = ready(found, domain)
            assert shown.locator("[data-token]").count() > 5
            assert shown.locator(".mmx-cell").count() == (6 if domain == "text" else 9)
            assert shown.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
            assert shown.locator(".mmx-heads").evaluate("x => x.scrollWidth - x.clientWidth") <= 0
        assert found.errors == []
        assert found.requests == []


def test_the_mouse_shows_where_a_token_looks(file: Path, all_three: list[Exploration]) -> None:
    weights = all_three[0].weights(1)
    with opened(file) as found:
        shown = ready(found)
        before = colours(shown)
        assert live(shown).startswith("Mean of the heads of block 2, mean over all tokens: ")
        shown.locator('[aria-label^="block 2, head 2"]').click()
        shown.locator("[data-token]").nth(6).hover()
        assert colours(shown) != before
        best = int(weights[1, 6].argmax())
        most = f"{all_three[0].tokens[best]} ({percent(float(weights[1, 6, best]))})"
        assert live(shown).startswith(f"Head 2 of block 2: row 2, column 3 looks most at {most}")
        mass = float(weights[1, 6][all_three[0].relevant].sum())
        assert live(shown).endswith(f"; {percent(mass)} on the relevant tokens, which are 33 % of all.")
        shown.locator('.mmx input[value="to"]').check(force=True)
        shown.locator("[data-token]").nth(6).hover()
        best = int(weights[1, :, 6].argmax())
        assert f"row 2, column 3 is looked at most by {all_three[0].tokens[best]}" in live(shown)
        shown.mouse.move(1, 1)
        assert "mean over all tokens" in live(shown)
        shown.locator("[data-token]").nth(6).click()
        shown.mouse.move(1, 1)
        assert "row 2, column 3 is looked at" in live(shown)  # a click holds it
        assert found.errors == []


def test_keys_reach_everything(file: Path) -> None:
    with opened(file) as found:
        shown = ready(found)
        shown.locator(".mmx-tokens").focus()
        shown.keyboard.press("ArrowRight")
        shown.keyboard.press("ArrowRight")
        assert "row 1, column 2 looks most at" in live(shown)
        shown.keyboard.press("ArrowDown")
        assert "row 2, column 2 looks most at" in live(shown)
        active = shown.locator(".mmx-tokens").get_attribute("aria-activedescendant")
        assert shown.locator(f"#{active}").get_attribute("aria-selected") == "true"
        assert shown.locator(f"#{active}").get_attribute("aria-label") == "row 2, column 2"
        shown.keyboard.press("End")
        assert "row 3, column 4 looks most at" in live(shown)
        shown.keyboard.press("Tab")  # to their order
        shown.keyboard.press("Tab")  # to the heads, on the one that is chosen
        focused = "document.activeElement.getAttribute('aria-label')"
        assert shown.evaluate(focused).startswith("block 2, mean of the heads")
        shown.keyboard.press("ArrowRight")
        assert shown.evaluate(focused).startswith("block 2, head 1")
        assert live(shown).startswith("Head 1 of block 2: row 3, column 4 looks")
        shown.keyboard.press("ArrowDown")
        assert live(shown).startswith("Head 1 of pooling: the pooling query gives row 3, column 4 ")
        ring = shown.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert ring == "solid"
        shown.locator(".mmx-tokens").focus()
        shown.keyboard.press("Escape")
        assert live(shown).startswith("Head 1 of pooling: ")
        assert found.errors == []


def test_rollout_and_relevance_beside_the_weights(file: Path, all_three: list[Exploration]) -> None:
    with opened(file) as found:
        shown = ready(found)
        for each in all_three[0].maps:
            shown.locator(f'.mmx input[value="{each.name}"]').check(force=True)
            shown.locator("[data-token]").nth(0).hover()
            assert f"row 1, column 1 has {percent(each.values[0])} of all." in live(shown)
            assert live(shown).startswith(each.name.capitalize())
        shown.locator(".mmx-cell").first.click()
        assert live(shown).startswith("Mean of the heads of block 1")
        assert shown.locator('.mmx input[value="weights"]').is_checked()


def test_heads_in_the_order_of_importance(file: Path, all_three: list[Exploration]) -> None:
    with opened(file) as found:
        shown = ready(found)
        shown.locator('.mmx input[value="importance"]').check(force=True)
        for index, layer in enumerate(all_three[0].layers):
            assert layer.importance is not None
            order = sorted(range(2), key=lambda head: -layer.importance[head])  # type: ignore[index]
            names = shown.locator(".mmx-row").nth(index).locator("b").all_text_contents()
            assert names == ["all", *(str(head + 1) for head in order)]


def test_samples_and_models_are_chosen(file: Path) -> None:
    with opened(file) as found:
        shown = ready(found)
        model, sample = shown.locator(".mmx-top select").all()
        assert sample.locator("option").count() == 2
        sample.select_option(index=1)
        shown.wait_for_selector(".mmx-heading h3:text-is('two')")
        model.select_option(index=1)
        shown.wait_for_selector(".mmx-heading h3:text-is('one')")
        assert not sample.is_visible()
        assert found.errors == []


def test_the_sound_plays_and_stops(file: Path) -> None:
    with opened(file) as found:
        shown = ready(found, "speech")
        play, part = shown.locator(".mmx-play").all()
        assert part.is_disabled()
        play.click()
        shown.wait_for_selector(".mmx-playhead:not([hidden])", state="attached")
        shown.wait_for_selector(".mmx-playhead[hidden]", state="attached")  # at the end
        shown.locator("[data-token]").nth(4).click()
        part.click()
        shown.wait_for_selector(".mmx-playhead:not([hidden])", state="attached")
        assert found.errors == []


def test_texts_are_text_whatever_they_hold(text: Tiny, tmp_path: Path) -> None:
    item = "</script><img src=x onerror=alert(1)> \u202e!"
    path = tmp_path / "x.html"
    path.write_text(page(explore(text, [Labelled(item, 0)], titles=["<b>bold</b>"])), encoding="utf-8")
    with opened(path) as found:
        shown = found.page
        shown.wait_for_selector(".mmx-text")
        assert "".join(shown.locator("[data-token]").all_text_contents()[:9]) == "</script>"
        assert shown.locator(".mmx-heading h3").text_content() == "<b>bold</b>"
        assert (found.errors, found.requests) == ([], [])


def test_the_scale_is_even_in_lightness_and_inverts_in_the_dark(file: Path) -> None:
    script = """() => { const g = getComputedStyle(document.querySelector('.mmx-ramp')).backgroundImage;
      return [...g.matchAll(/rgb\\((\\d+), (\\d+), (\\d+)\\)/g)].map(m => m.slice(1).map(Number)); }"""

    def lightness(rgb: list[int]) -> float:
        r, g, b = (x / 255 / 12.92 if x <= 10 else ((x / 255 + 0.055) / 1.055) ** 2.4 for x in rgb)
        y = 0.2126 * r + 0.7152 * g + 0.0722 * b
        return 116 * y ** (1 / 3) - 16 if y > 0.008856 else 903.3 * y

    for scheme, sign in (("light", -1), ("dark", 1)):
        with opened(file, scheme=scheme) as found:
            values = [lightness(each) for each in ready(found).evaluate(script)]
        steps = [sign * (b - a) for a, b in pairwise(values)]
        assert len(values) == 11
        assert min(steps) > 3
        assert max(steps) < 11


def test_fragments_are_the_same_for_the_same(all_three: list[Exploration]) -> None:
    one = fragment(all_three)
    assert one == fragment(list(all_three))
    assert "<" not in one.html.partition('class="mmx-data">')[2].partition("</script>")[0]
    with pytest.raises(ValueError, match="an explorer needs at least one exploration: got none"):
        fragment([])
