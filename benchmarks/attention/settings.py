"""What a run of the benchmarks is asked for, and what it hands back."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

import torch

from benchmarks.attention.timing import Timing, Work, race
from benchmarks.bars import Bar


@dataclass(frozen=True)
class Settings:
    """Options of a run.

    Attributes:
        device: ``"cpu"`` or ``"cuda"``.
        repeats: rounds of each race at most; ``None`` takes what each topic thinks right.
        quick: tiny shapes, to see that everything runs; its figures mean nothing.
        compile: whether peers may be compiled.
        budget: seconds for each race; at least three rounds are run.
        seed: of data, weights and orders.
        match: texts that must all stand in the name of a setting, else it is left out (dense, encoder, best).
    """

    device: str = "cpu"
    repeats: int | None = None
    quick: bool = False
    compile: bool = True
    budget: float = 20.0
    seed: int = 0
    match: tuple[str, ...] = ()

    def wants(self, setting: str) -> bool:
        """Whether a setting is to be measured.

        Example:
            >>> Settings(match=("FSDD", "D=144")).wants("FSDD, batch 32, D=256")
            False
        """
        return all(text in setting for text in self.match)

    def race(
        self, contenders: dict[str, list[Work]], repeats: int = 15, least: int = 3, warmup: int = 1
    ) -> dict[str, Timing]:
        """Time contenders as asked for; ``repeats`` is what the topic thinks right."""
        wait = torch.cuda.synchronize if self.device == "cuda" else lambda: None
        repeats = 2 if self.quick else repeats if self.repeats is None else self.repeats
        return race(
            contenders,
            repeats=repeats,
            least=min(least, repeats),
            budget=self.budget,
            warmup=warmup,
            seed=self.seed,
            wait=wait,
        )


@dataclass(frozen=True)
class Race:
    """Contenders that were timed together.

    Attributes:
        setting: what they ran on.
        timings: by name.
        reference: the contender that all are compared with.
        unit: of the times, with its size in seconds.
    """

    setting: str
    timings: dict[str, Timing]
    reference: str
    unit: tuple[str, float] = ("ms", 1e-3)


@dataclass
class Report:
    """What one topic found.

    Attributes:
        topic: its name.
        title: what was measured, in words.
        races: tables of times.
        bars: promised figures.
        facts: anything else, for the JSON file.
        notes: lines to print below the tables.
        curves: by quantity (``"seconds"``, ``"bytes"``) and contender, the pairs (length, value).
    """

    topic: str
    title: str
    races: list[Race] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    curves: dict[str, dict[str, list[tuple[int, float]]]] = field(default_factory=dict)

    def add(self, race: Race) -> None:
        """Keep a race, and tell whoever waits at the terminal."""
        self.races.append(race)
        name, size = race.unit
        shown = ", ".join(f"{key} {timing.seconds / size:.4g}" for key, timing in race.timings.items())
        print(f"{self.topic}: {race.setting}: {shown} {name}", file=sys.stderr, flush=True)
