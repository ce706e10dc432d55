"""The explorer as a part of a page: its style, its markup with the data, and its program."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from mmattn.explore.exploration import Exploration

_STYLES = ("explore.css",)
_PROGRAMS = ("data.js", "scale.js", "parts.js", "places.js", "heads.js", "words.js", "sound.js", "explore.js")


class Fragment(NamedTuple):
    """What goes into a page; nothing in it asks the network for anything.

    Attributes:
        css: for one ``<style>`` of the page; all selectors begin with ``.mmx``.
        html: where the explorer stands; it holds the data.
        script: for one ``<script>`` behind it.
    """

    css: str
    html: str
    script: str


def fragment(explorations: Sequence[Exploration]) -> Fragment:
    """The explorer of these explorations. Equal ones give equal text.

    Raises:
        ValueError: there are none.
    """
    if not explorations:
        raise ValueError("an explorer needs at least one exploration: got none")
    rows = [json.dumps(each.plain(), allow_nan=False, separators=(",", ":")) for each in explorations]
    # inside <script> only a "<" could end the data
    data = ("[" + ",\n".join(rows) + "]").replace("<", "\\u003c")
    html = (
        '<section class="mmx" aria-label="Attention explorer">\n'
        "<noscript><p>The explorer needs JavaScript, which is off here.</p></noscript>\n"
        f'<script type="application/json" class="mmx-data">{data}</script>\n'
        "</section>\n"
    )
    css = "".join(_asset(name) for name in _STYLES)
    script = '(() => {\n"use strict";\n' + "".join(_asset(name) for name in _PROGRAMS) + "})();\n"
    return Fragment(css, html, script)


def page(explorations: Sequence[Exploration], title: str = "Attention explorer") -> str:
    """A whole page that holds nothing but the explorer."""
    part = fragment(explorations)
    shown = title.replace("&", "&amp;").replace("<", "&lt;")
    values = {"TITLE": shown, "CSS": part.css, "HTML": part.html, "SCRIPT": part.script}
    before, *rest = _asset("page.html").split("{{")
    pieces = [piece.partition("}}") for piece in rest]
    return before + "".join(values[name] + after for name, _, after in pieces)


@cache
def _asset(name: str) -> str:
    return (files("mmattn.explore") / "assets" / name).read_text(encoding="utf-8")
