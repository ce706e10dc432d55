"""The runs of a report: measures and records found below folders, and what a reader must know of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmattn.report.codec import require
from mmattn.report.measures import Measures
from mmattn.report.records import RunRecord
from mmattn.report.words import listing

_SHOWN = 6

#: Arms without chance in them: their single run may stand beside every seed of the others.
CONTROLS = ("linear", "majority")


@dataclass(frozen=True)
class StoredRun:
    """A finished run.

    Attributes:
        path: of its folder, relative to the folder of runs, with ``/``; its name everywhere in the report.
        record: None for what has no training, such as a linear control or timings.
        measures: what was measured on it.
    """

    path: str
    record: RunRecord | None
    measures: Measures

    @property
    def key(self) -> tuple[str, str, int]:
        """Domain, arm and seed."""
        return self.measures.domain, self.measures.arm, self.measures.seed


def load_runs(folder: str | Path, *more: str | Path) -> list[StoredRun]:
    """All runs with measures below ``folder``, in all depths, sorted by path.

    Runs from other machines merge when their folders lie in ``folder``, or are named behind it; then each path begins
    with the folder as it was given.

    Raises:
        ValueError: without any run, naming the file that does not fit, or where a record and measures in one folder
            are of different runs.
    """
    runs = [
        _load(file.parent, _name(file.parent, Path(root), bool(more)))
        for root in (folder, *more)
        for file in sorted(Path(root).rglob("measures.json"))
    ]
    shown = ", ".join(map(str, (folder, *more)))
    require(bool(runs), "a folder of runs must hold at least one measures.json", shown)
    return sorted(runs, key=lambda run: run.path)


def unmeasured(folder: str | Path, *more: str | Path) -> list[str]:
    """Paths of the runs that have a record and no measures, named as :func:`load_runs` would.

    Records in a folder of a measured run, as a training leaves them in a log folder of its own, are part of it.
    """
    return sorted(
        _name(file.parent, Path(root), bool(more))
        for root in (folder, *more)
        for file in Path(root).rglob("record.json")
        if not any((place / "measures.json").exists() for place in (file.parent, file.parent.parent))
    )


def _name(place: Path, root: Path, several: bool) -> str:
    return (root / place.relative_to(root) if several else place.relative_to(root)).as_posix()


def _load(place: Path, path: str) -> StoredRun:
    measures = Measures.load(place / "measures.json")
    if not (place / "record.json").exists():
        return StoredRun(path, None, measures)
    record = RunRecord.load(place / "record.json")
    same = (record.domain, record.seed) == (measures.domain, measures.seed)
    require(same, "record.json and measures.json must be of the same domain and seed", place)
    return StoredRun(path, record, measures)


def first_runs(runs: Iterable[StoredRun]) -> list[StoredRun]:
    """Of runs with equal domain, arm and seed the first by path."""
    found: dict[tuple[str, str, int], StoredRun] = {}
    for run in sorted(runs, key=lambda run: run.path):
        found.setdefault(run.key, run)
    return list(found.values())


def oddities(runs: list[StoredRun]) -> list[str]:
    """What a reader must know before believing numbers from ``runs``, one sentence each; none if all is well.

    Doubles, versions or commits that differ, tests or networks that differ where they should be equal, and seeds that
    an arm lacks.
    """
    checks = (_doubles, _versions, _commits, _machines, _tests, _networks, _missing)
    return [sentence for check in checks for sentence in check(runs)]


def _groups(runs: Iterable[StoredRun], key: Callable[[StoredRun], Any]) -> dict[Any, list[StoredRun]]:
    """Runs by ``key``, in the order in which keys come up."""
    found: dict[Any, list[StoredRun]] = defaultdict(list)
    for run in runs:
        found[key(run)].append(run)
    return dict(found)


def _short(names: list[str]) -> str:
    """A listing that stays short."""
    rest = len(names) - _SHOWN
    return listing([*names[:_SHOWN], f"{rest} more"] if rest > 1 else names)


def _doubles(runs: list[StoredRun]) -> Iterable[str]:
    for same in _groups(runs, lambda run: run.key).values():
        if len(same) > 1:
            paths = sorted(run.path for run in same)
            yield (
                f"{paths[0]} is there {len(same)} times: only it counts for verdicts, not {_short(paths[1:])}."
            )


def _versions(runs: list[StoredRun]) -> Iterable[str]:
    recorded = [run.record for run in runs if run.record is not None]
    for package in sorted({name for record in recorded for name in record.versions}):
        found = sorted({record.versions[package] for record in recorded if package in record.versions})
        if len(found) > 1:
            yield f"The runs were made with different versions of {package}: {_short(found)}."


def _commits(runs: list[StoredRun]) -> Iterable[str]:
    recorded = [run for run in runs if run.record is not None]
    found = _groups(recorded, lambda run: run.record.git_commit if run.record else None)
    if len(found) > 1:
        shown = [f"{(commit or 'none')[:9]} ({len(made)} runs)" for commit, made in found.items()]
        yield f"The runs were made by different commits of the code: {_short(shown)}."


def _machines(runs: list[StoredRun]) -> Iterable[str]:
    recorded = [run for run in runs if run.record is not None]
    found = _groups(recorded, lambda run: str(run.record.environment.get("cpu")) if run.record else "")
    if len(found) > 1:
        shown = [f"{name} ({len(made)} runs)" for name, made in found.items()]
        yield f"The runs come from different processors, so their times do not compare: {_short(shown)}."


def _tests(runs: list[StoredRun]) -> Iterable[str]:
    answering = [run for run in runs if run.measures.correct]
    for domain, made in _groups(answering, lambda run: run.measures.domain).items():
        by_level: dict[str, dict[str, list[StoredRun]]] = {}
        for run in made:
            # where levels are tests of their own, a run may have some of them
            own = run.measures.test != run.measures.questions(run.measures.standard)
            for level in run.measures.correct if own else [""]:
                asked = (
                    run.measures.questions(level) if own else f"{run.measures.test} {run.measures.standard}"
                )
                by_level.setdefault(level, {}).setdefault(asked, []).append(run)
        for level, found in by_level.items():
            if len(found) > 1:
                shown = [f"{one[0].path} and {len(one) - 1} more" for one in found.values()]
                tests = f"tests in {level}" if level else "tests"
                yield f"The runs in {domain} answered different {tests}: {_short(shown)}."


def _networks(runs: list[StoredRun]) -> Iterable[str]:
    recorded = [run for run in runs if run.record is not None]
    for (domain, arm), made in _groups(recorded, lambda run: run.key[:2]).items():
        sizes = sorted({run.record.parameters for run in made if run.record})
        if len(sizes) > 1:
            shown = _short([f"{size:,}" for size in sizes])
            yield f"The runs of {arm} in {domain} have different numbers of parameters: {shown}."


def _missing(runs: list[StoredRun]) -> Iterable[str]:
    for domain, made in _groups(runs, lambda run: run.measures.domain).items():
        arms = {arm: {run.key[2] for run in of} for arm, of in _groups(made, lambda run: run.key[1]).items()}
        wanted = set().union(*arms.values())
        for arm, seeds in sorted(arms.items()):
            if seeds != wanted and not (arm in CONTROLS and len(seeds) == 1):
                numbers = _short([str(seed) for seed in sorted(wanted - seeds)])
                yield f"{arm} in {domain} lacks the seeds {numbers}."
