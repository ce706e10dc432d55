"""Figures of single heads: what each does alone, and how alike they are."""

from __future__ import annotations

from mmattn.report.figures.kinds import Dots, Figure, Panel, Table
from mmattn.report.figures.lines import by_domain
from mmattn.report.measures import HeadMeasure
from mmattn.report.names import domain_name
from mmattn.report.runs import StoredRun

_JS = "heads/js/"


def _first(runs: list[StoredRun], has: str) -> dict[str, StoredRun]:
    """The attention run with the lowest seed of each domain, where it holds what is asked for."""
    kept = [run for run in runs if run.measures.arm == "attention" and getattr(run.measures, has)]
    return {
        domain: min(group, key=lambda run: (run.measures.seed, run.path))
        for domain, group in by_domain(kept).items()
    }


def _layers(heads: list[HeadMeasure]) -> dict[str, str]:
    """``trunk.blocks.0.attention`` to ``block 1``, in the order in which they come."""
    return {name: f"block {index + 1}" for index, name in enumerate(dict.fromkeys(h.layer for h in heads))}


def _dots(run: StoredRun) -> Dots | None:
    heads = [head for head in run.measures.heads if head.removed is not None and head.alone is not None]
    if not heads:
        return None
    layers = _layers(heads)
    values = run.measures.values
    guides = {"all heads": values.get("heads/all"), "none": values.get("heads/none")}
    return Dots(
        rows={
            "one removed": [head.removed or 0.0 for head in heads],
            "one alone": [head.alone or 0.0 for head in heads],
        },
        heads=[f"{layers[head.layer]}, head {head.head + 1}" for head in heads],
        guides={name: value for name, value in guides.items() if value is not None},
        runs=[run.path],
    )


def dots(runs: list[StoredRun]) -> Figure | None:
    """Accuracy with one head removed, and with one head alone, for every head of one model."""
    panels = [
        Panel(domain_name(domain), domain, dots=found)
        for domain, run in _first(runs, "heads").items()
        if (found := _dots(run))
    ]
    return Figure(
        "figure-single-heads",
        "One head removed, one head left alone",
        "Each dot is a head of the attention model with the lowest seed. Alone means that its block keeps "
        "only this head. "
        "Dots are moved up and down by turns so that none hides another.",
        "accuracy",
        "",
        panels,
    ) if panels else None  # fmt: skip


def redundancy(runs: list[StoredRun]) -> Figure | None:
    """Jensen-Shannon distance between the heads of each layer of one model."""
    panels = []
    for domain, run in _first(runs, "matrices").items():
        tables = [table for name, table in run.measures.matrices.items() if name.startswith(_JS)]
        layers = {f"block {index + 1}": table for index, table in enumerate(tables)}
        if layers:
            panels.append(Panel(domain_name(domain), domain, table=Table(layers, [run.path])))
    return Figure(
        "figure-redundancy",
        "How differently the heads of a block look",
        "Jensen-Shannon distance between what two heads look at: 0 where they look alike, 1 where they never look "
        "at the same token. Of the attention model with the lowest seed.",
        "head",
        "head",
        panels,
        x_unit="count",
        y_unit="number",
    ) if panels else None  # fmt: skip
