"""A report written out: one page that stands alone, and its twins in Markdown, JSON and CSV."""

from __future__ import annotations

import json
import os
from functools import cache
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

import jinja2

from mmattn.explore import Exploration, fragment
from mmattn.report import codec, drawings, names, tables, views, words
from mmattn.report.claims.results import amount
from mmattn.report.contents import Report

#: The page stays below 8 MB with this much of samples to look into.
LARGEST_EXPLORER = 5_000_000


def _markdown(text: Any) -> str:
    """``text`` as literal Markdown that also stays inside one cell of a table."""
    out = str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in "\\`*_[]|":
        out = out.replace(mark, "\\" + mark)
    return " ".join(out.encode("utf-8", "replace").decode("utf-8").split())


def _p(value: float | None) -> str:
    """A p-value: ``0.032``, ``< 0.001``; a dash for None."""
    if value is None:
        return words.MISSING
    return "<\N{NO-BREAK SPACE}0.001" if value < 0.001 else f"{value:.3f}"


def _inside_script(text: str) -> str:
    """JSON that no ``</script>`` in it can end."""
    return text.replace("<", "\\u003c")


@cache
def _asset(name: str) -> str:
    return (resources("mmattn.report") / "templates" / name).read_text(encoding="utf-8")


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mmattn.report", "templates"),
        autoescape=jinja2.select_autoescape(enabled_extensions=("html.j2",)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for name in ("percent", "count", "memory", "duration", "listing", "counted"):
        environment.filters[name] = getattr(words, name)
    for name in ("arm_name", "arm_meaning", "domain_name"):
        environment.filters[name] = getattr(names, name)
    environment.filters.update(md=_markdown, p_value=_p)
    environment.globals |= {
        "dash": words.MISSING,
        "amount": amount,
        "between": drawings.between,
        "would_find": drawings.would_find,
        "bar": drawings.bar,
        "panel_drawing": drawings.panel_drawing,
        "legend": drawings.legend,
    }
    return environment


def _machines(report: Report) -> dict[str, str]:
    """Every version and every fact of a machine, each different value once."""
    found: dict[str, dict[str, None]] = {}
    for run in report.runs:
        for name, value in (*run.versions.items(), *run.environment.items()):
            found.setdefault(name, {})[value] = None
    return {name: ", ".join(values) for name, values in found.items()}


def _context(report: Report) -> dict[str, Any]:
    commits = dict.fromkeys(run.git_commit for run in report.runs if run.git_commit)
    return {
        "report": report,
        "claims": views.claim_views(report.judgement),
        "columns": views.senses(report.judgement),
        "outcome": views.outcome(report.judgement),
        "facts": views.facts(report),
        "grid": views.grid(report.accuracies),
        "trunks": views.grid(report.trunks),
        "trunk_sizes": {row.arm: row.parameters for row in report.trunks},
        "levels": views.levels(report.accuracies),
        "domains_said": views.domains_said(report),
        "warned": len(report.judgement.warnings) + len(report.failed),
        "numbers": {run.path: index for index, run in enumerate(report.runs)},
        "machines": _machines(report),
        "commits": list(commits),
    }


def few_enough(explorations: list[Exploration]) -> tuple[list[Exploration], str]:
    """Samples that fit the page, of all domains by turns, and a sentence on those left out (or none)."""
    turns: dict[str, int] = {}
    order = []
    for place, each in enumerate(explorations):
        turns[each.domain] = turns.get(each.domain, -1) + 1
        order.append((turns[each.domain], place))
    kept, size = [], 0
    for _, place in sorted(order):
        size += len(json.dumps(explorations[place].plain()))
        if size <= LARGEST_EXPLORER:
            kept.append(place)
    left = len(explorations) - len(kept)
    note = f"{words.counted(left, 'more sample')} would make this page too large." if left else ""
    return [explorations[place] for place in sorted(kept)], note


def _put(path: Path, text: str) -> None:
    """Write a whole file or none."""
    whole = path.with_name(path.name + ".part")
    # Half a surrogate pair, as a damaged label may hold, has no place in a UTF-8 file.
    whole.write_bytes(text.encode("utf-8", "replace"))
    os.replace(whole, path)


def write(report: Report, explorations: list[Exploration], out: Path) -> Path:
    """Write ``index.html``, ``report.md``, ``report.json`` and CSV files to ``out``; gives the page's path.

    Equal reports give equal bytes. Other files in ``out`` are left alone.
    """
    out.mkdir(parents=True, exist_ok=True)
    environment, context = _environment(), _context(report)
    sheets, whole = tables.files(report), codec.to_json(report)
    shown, note = few_enough(explorations)
    page = environment.get_template("page.html.j2").render(
        **context,
        explorer=fragment(shown) if shown else None,
        explorer_note=note,
        style=_asset("style.css"),
        script=_asset("page.js"),
        sheets=_inside_script(json.dumps({**sheets, "report.json": whole})),
    )
    markdown = environment.get_template("report.md.j2").render(**context)
    for name, text in {**sheets, "report.json": whole, "report.md": markdown, "index.html": page}.items():
        _put(out / name, text)
    return out / "index.html"
