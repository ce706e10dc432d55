"""The report written out: a page, a Markdown file with its figures, and the input as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from mmattn.report import words
from mmattn.report.drawing import ExampleView, data_uri, example_view, top_tokens
from mmattn.report.examples import AttentionExample, Sentence
from mmattn.report.figures import DARK, LIGHT, curve_names, example_figure, learning_curve
from mmattn.report.records import DomainReport, ReportInput, ResultRow, RunRecord
from mmattn.report.verdict import Comparison, Verdict, judge, wilson


@dataclass(frozen=True)
class RowView:
    """One row of the results: the row, its intervals, and the comparison that the aim makes with it."""

    row: ResultRow
    plain: tuple[float, float] | None
    standard: tuple[float, float] | None
    comparison: Comparison | None


@dataclass(frozen=True)
class CostView:
    """One row of the costs; ``run`` is None for a model without a run record."""

    name: str
    parameters: int | None
    seconds: float | None
    run: RunRecord | None


@dataclass(frozen=True)
class CurveView:
    """A learning curve for a bright and a dark page, and its words."""

    file: str
    alt: str
    light: bytes
    dark: bytes

    @property
    def light_uri(self) -> str:
        """For a bright page."""
        return data_uri(self.light)

    @property
    def dark_uri(self) -> str:
        """For a dark page."""
        return data_uri(self.dark)


@dataclass(frozen=True)
class DomainView:
    """One domain, ready for the templates."""

    part: DomainReport
    verdict: Verdict
    rows: list[RowView]
    curves: list[CurveView]
    costs: list[CostView]
    examples: list[ExampleView]
    figures: dict[str, bytes] = field(default_factory=dict)


def _row(row: ResultRow, verdict: Verdict) -> RowView:
    plain, standard = (
        None if value is None else wilson(value, row.n_test) for value in (row.plain, row.standard)
    )
    return RowView(
        row, plain, standard, next((part for part in verdict.comparisons if part.control == row.name), None)
    )


def _costs(part: DomainReport) -> list[CostView]:
    arms = {row.arm: row.name for row in part.rows if row.arm is not None}
    out = [CostView(arms.get(run.arm, run.arm), run.parameters, run.wall_seconds, run) for run in part.runs]
    recorded = {run.arm for run in part.runs}
    for row in part.rows:
        if row.arm not in recorded and (row.parameters is not None or row.seconds is not None):
            out.append(CostView(row.name, row.parameters, row.seconds, None))
    return out


def _curve(part: DomainReport, curve: str) -> CurveView:
    last = "val_accuracy" if curve == "accuracy" else "val_loss"
    ends = []
    for run in part.runs:
        values = [row.get(last) for row in run.epochs]
        if values and values[-1] is not None:
            end = words.percent(values[-1]) if curve == "accuracy" else f"{values[-1]:.3f}"
            ends.append(f"{run.arm} (seed {run.seed}) ends at {end}")
    alt = f"{part.title}: validation {curve} over epochs; {words.listing(ends)}."
    light, dark = (learning_curve(part.runs, curve, theme) for theme in (LIGHT, DARK))
    return CurveView(f"{part.domain}-{curve}.png", alt, light, dark)


def _domain(part: DomainReport) -> DomainView:
    verdict = judge(part)
    examples = [
        example_view(example, f"{part.domain}-example-{index + 1}")
        for index, example in enumerate(part.examples)
    ]
    figures = {
        f"{part.domain}-example-{index + 1}.png": example_figure(example)
        for index, example in enumerate(part.examples)
        if not isinstance(example.picture, Sentence)
    }
    curves = [_curve(part, curve) for curve in curve_names(part.runs)]
    return DomainView(
        part, verdict, [_row(row, verdict) for row in part.rows], curves, _costs(part), examples, figures
    )


def _outcome(views: list[DomainView]) -> str:
    """What follows from the numbers: which aims are supported, and which data are synthetic."""
    met = [view.part.title for view in views if view.verdict.supported]
    missed = [view.part.title for view in views if not view.verdict.supported]
    made = [view.part.title for view in views if view.part.synthetic]
    found = [view.part.title for view in views if not view.part.synthetic]
    said = [
        f"{how} for {words.listing(of)}" for how, of in (("supported", met), ("not supported", missed)) if of
    ]
    kinds = [
        f"{what} data: {words.listing(of)}." for what, of in (("Synthetic", made), ("Collected", found)) if of
    ]
    return (
        " ".join([f"The aim is {' and '.join(said)}.", *kinds])
        if views
        else "There is no domain to report on."
    )


def _markdown(text: Any) -> str:
    """``text`` as literal Markdown that also stays inside one cell of a table."""
    out = str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in "\\`*_[]|":
        out = out.replace(mark, "\\" + mark)
    return " ".join(out.encode("utf-8", "replace").decode("utf-8").split())


def _code(text: str) -> str:
    # A fence longer than any run of backticks inside cannot be closed by the text.
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}\n{text}\n{fence}"


def _top(example: AttentionExample, head: int) -> list[tuple[str, float]]:
    assert isinstance(example.picture, Sentence)
    return top_tokens(example.picture, example.layers[-1].heads[head])


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mmattn.report", "templates"),
        autoescape=jinja2.select_autoescape(enabled_extensions=("html.j2",)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for name in ("percent", "points", "count", "memory", "duration", "listing"):
        environment.filters[name] = getattr(words, name)
    environment.filters |= {"md": _markdown, "code": _code}
    environment.globals |= {
        "interval": words.interval,
        "span": words.span,
        "top": _top,
        "dash": words.MISSING,
    }
    return environment


def _shared(report: ReportInput) -> dict[str, Any]:
    """Facts of all runs for the section on reproduction; every different value is listed once, in order."""
    runs = [run for part in report.domains for run in part.runs]
    versions: dict[str, dict[str, None]] = {}
    environment: dict[str, dict[str, None]] = {}
    for run in runs:
        for table, facts in ((versions, run.versions), (environment, run.environment)):
            for name, value in facts.items():
                table.setdefault(name, {})[str(value)] = None
    return {
        "runs": runs,
        "versions": {name: ", ".join(values) for name, values in sorted(versions.items())},
        "environment": {name: ", ".join(values) for name, values in sorted(environment.items())},
        "commits": list(dict.fromkeys(run.git_commit or "not known" for run in runs)),
        "seeds": sorted({run.seed for run in runs}),
    }


def write(report: ReportInput, out_dir: str | Path) -> Path:
    """Write ``index.html``, ``report.md``, ``report.json`` and ``figures/*.png``; gives the path of the page.

    Equal input gives equal bytes. Other files in ``out_dir`` are left alone.
    """
    out = Path(out_dir)
    (out / "figures").mkdir(parents=True, exist_ok=True)
    views = [_domain(part) for part in report.domains]
    most = max((len(it.layers) for view in views for it in view.examples), default=1)
    context = {
        "report": report,
        "views": views,
        "outcome": _outcome(views),
        "most_layers": most,
        **_shared(report),
    }
    environment = _environment()
    for template, name in (("page.html.j2", "index.html"), ("report.md.j2", "report.md")):
        text = environment.get_template(template).render(context)
        # Half a surrogate pair, as a damaged label may hold, has no place in a UTF-8 file.
        (out / name).write_bytes(text.encode("utf-8", "replace"))
    for view in views:
        for name, png in {**{curve.file: curve.light for curve in view.curves}, **view.figures}.items():
            (out / "figures" / name).write_bytes(png)
    report.save(out / "report.json")
    return out / "index.html"
