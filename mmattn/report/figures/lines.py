"""Figures of lines, each the mean over seeds with a band from the lowest seed to the highest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from mmattn.report.figures.kinds import Figure, Line, Panel, Unit
from mmattn.report.names import arm_name, arm_order, domain_name, domain_order
from mmattn.report.runs import StoredRun

_COLOURS = {
    "attention": 0, "uniform": 1, "convolution": 2, "mlp": 3, "linear": 6, "majority": 7,
    "heads_1": 1, "heads_2": 4, "heads_8": 2, "deep_1": 3,
}  # fmt: skip
_MIXING = ("attention", "uniform", "convolution", "mlp", "linear")
_COUNTS = {"heads_1": 1, "heads_2": 2, "attention": 4, "heads_8": 8}
_BAND = "Lines are means over seeds; bands reach from the lowest seed to the highest."

Curve = Sequence[Sequence[float]]


def merge(curves: list[Curve]) -> list[list[float]]:
    """Curves of several seeds as ``[x, mean, lowest, highest]``.

    Curves with other ``x`` than the first are read off at the first one's, straight lines in between.
    """
    grid = np.asarray(curves[0], dtype=float)[:, 0]
    rows = []
    for curve in curves:
        points = np.asarray(curve, dtype=float)
        same = points.shape[0] == grid.shape[0] and bool(np.all(points[:, 0] == grid))
        rows.append(points[:, 1] if same else np.interp(grid, points[:, 0], points[:, 1]))
    table = np.stack(rows)
    columns = (grid, table.mean(axis=0), table.min(axis=0), table.max(axis=0))
    return [[round(float(value), 6) for value in point] for point in zip(*columns, strict=True)]


def by_domain(runs: Iterable[StoredRun]) -> dict[str, list[StoredRun]]:
    """Runs of each domain, in the order of the page."""
    out: dict[str, list[StoredRun]] = {}
    for run in sorted(runs, key=lambda run: domain_order(run.measures.domain)):
        out.setdefault(run.measures.domain, []).append(run)
    return out


def _line(
    name: str, colour: int, runs: list[StoredRun], curve: Callable[[StoredRun], Curve | None]
) -> Line | None:
    found = [(run, points) for run in runs if (points := curve(run))]
    if not found:
        return None
    return Line(name, colour, merge([points for _, points in found]), sorted(run.path for run, _ in found))


def _panels(runs: list[StoredRun], lines: Callable[[list[StoredRun]], list[Line | None]]) -> list[Panel]:
    out = []
    for domain, group in by_domain(runs).items():
        drawn = [line for line in lines(group) if line is not None]
        if drawn:
            out.append(Panel(domain_name(domain), domain, drawn))
    return out


def _of(runs: list[StoredRun], arm: str) -> list[StoredRun]:
    return [run for run in runs if run.measures.arm == arm]


def _by_arm(
    curve: Callable[[StoredRun], Curve | None], arms: Iterable[str]
) -> Callable[..., list[Line | None]]:
    return lambda runs: [_line(arm_name(arm), _COLOURS[arm], _of(runs, arm), curve) for arm in arms]


def _named(curve: str, arm: str, names: dict[str, tuple[str, int]]) -> Callable[..., list[Line | None]]:
    return lambda runs: [
        _line(words, colour, _of(runs, arm), lambda run, key=f"{curve}/{name}": run.measures.curves.get(key))  # type: ignore[misc]
        for name, (words, colour) in names.items()
    ]


def _figure(
    panels: list[Panel], id: str, title: str, reading: str, x: str, x_unit: Unit = "share"
) -> Figure | None:
    if not panels:
        return None
    return Figure(id, title, f"{reading} {_BAND}", x, "accuracy", panels, x_unit)


def accuracy(runs: list[StoredRun]) -> Figure | None:
    """Accuracy over the share of distractors, by arm."""
    lines = _by_arm(lambda run: run.measures.curves.get("accuracy/share"), _MIXING)
    return _figure(
        _panels(runs, lines),
        "figure-distractors",
        "Accuracy as distractors are added",
        "Each line is one way to let tokens exchange what they know.",
        "share of the scene that distracts",
    )


def deletion(runs: list[StoredRun]) -> Figure | None:
    """Accuracy over the share of tokens deleted, by the order of deletion."""
    names = {
        "attention": ("most attended first", 0),
        "gradient": ("largest gradient first", 2),
        "random": ("in random order", 6),
    }
    return _figure(
        _panels(runs, _named("deletion", "attention", names)),
        "figure-deletion",
        "Accuracy as tokens are deleted",
        "Tokens of the test scenes are deleted one after another. The faster a line falls, the more those "
        "tokens mattered.",
        "share of tokens deleted",
    )


def pruning(runs: list[StoredRun]) -> Figure | None:
    """Accuracy over the share of heads removed, by the order of removal."""
    names = {"importance": ("least important first", 0), "random": ("in random order", 6)}
    return _figure(
        _panels(runs, _named("pruning", "attention", names)),
        "figure-pruning",
        "Accuracy as heads are removed",
        "Heads are removed one after another. The longer a line stays high, the more heads were spare.",
        "share of heads removed",
    )


def head_counts(runs: list[StoredRun]) -> Figure | None:
    """Accuracy at the standard level over the number of heads."""

    def lines(group: list[StoredRun]) -> list[Line | None]:
        points, paths = [], []
        for arm, count in _COUNTS.items():
            found = [run for run in _of(group, arm) if run.measures.correct]
            if found:
                points += merge([[[count, standard(run)]] for run in found])
                paths += [run.path for run in found]
        deep = _line(
            arm_name("deep_1"), _COLOURS["deep_1"], _of(group, "deep_1"), lambda run: [[1, standard(run)]]
        )
        heads = Line("attention", 0, points, sorted(paths)) if len(points) > 1 else None
        return [heads, deep] if heads else []

    found = _figure(
        _panels(runs, lines),
        "figure-heads",
        "Accuracy by the number of heads",
        "Width, depth, parameters and compute are equal; only the number of heads differs.",
        "heads",
        "count",
    )
    return found and Figure(**{**vars(found), "log": "x"})


def learning(runs: list[StoredRun]) -> Figure | None:
    """Accuracy on the validation set over epochs, by arm."""

    def curve(run: StoredRun) -> Curve | None:
        rows = run.record.epochs if run.record else []
        kept = [(row["epoch"], row.get("val_accuracy")) for row in rows]
        return [[x, y] for x, y in kept if x is not None and y is not None] or None

    arms = sorted({run.measures.arm for run in runs if run.measures.arm in _COLOURS}, key=arm_order)
    return _figure(
        _panels(runs, _by_arm(curve, [arm for arm in arms if arm in _MIXING])),
        "figure-learning",
        "How the models learned",
        "Accuracy on the validation set after each epoch.",
        "epoch",
        "epoch",
    )


def standard(run: StoredRun, level: str | None = None) -> float:
    """Accuracy of a run at a level, the standard one by default."""
    answers = run.measures.correct[run.measures.standard if level is None else level]
    return answers.count("1") / len(answers)
