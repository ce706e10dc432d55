"""What a comparison consists of, from a YAML file: domains, arms, seeds, and how large everything is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from tasks.compare.arms import ARMS, CONTROLS
from tasks.compare.jobs import JOINT, SPEED, Job
from tasks.compare.suite import SUITE

CONFIGS = Path(__file__).parent / "configs"
DOMAINS = tuple(part.domain for part in SUITE)

KINDS = ("joint", "separate", "third")
"""What is compared of the joint trainings, in the terms of :class:`tasks.joint.arms.Arm`."""


@dataclass(frozen=True)
class Grid:
    """A comparison.

    Attributes:
        name: of the file, for the reader.
        domains: ``vision``, ``speech``, ``text``.
        arms: of :mod:`tasks.compare.arms`; the controls among them run once for each domain.
        seeds: of each training.
        overrides: for a domain, or ``joint``, what its training configuration is changed by, in the form of that
            configuration.
        levels: for a domain the numbers of distractors to answer at, besides 0 and that of the verdicts; where a
            domain has none, all up to that.
        measuring: how much is measured: fields of :class:`tasks.compare.measuring.Effort`.
        joint: one trunk for all senses, and what stands beside it: ``joint``, ``separate`` (a trunk as large for each
            sense), ``third`` (one of a third of the blocks for each).
        speed: whether to time, and how: fields of :class:`tasks.compare.measuring.Pace`; None times nothing.
        explore_seed: seed of the attention runs that the explorer shows; None shows none.
        explore_scenes: how many test scenes of each it shows.
        extra: further arguments for every training, from the command line.

    Raises:
        ValueError: one sentence, the rule and then the value.
    """

    name: str
    domains: tuple[str, ...] = DOMAINS
    arms: tuple[str, ...] = ("attention",)
    seeds: tuple[int, ...] = (0,)
    overrides: dict[str, dict[str, Any]] = field(default_factory=dict)
    levels: dict[str, tuple[int, ...]] = field(default_factory=dict)
    measuring: dict[str, Any] = field(default_factory=dict)
    joint: tuple[str, ...] = ()
    speed: dict[str, Any] | None = None
    explore_seed: int | None = None
    explore_scenes: int = 4
    extra: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _known("domains", self.domains, DOMAINS)
        _known("arms", self.arms, (*ARMS, *CONTROLS))
        _known("overrides", self.overrides, (*DOMAINS, JOINT))
        _known("joint", self.joint, KINDS)
        _known("levels", self.levels, DOMAINS)
        for name in ("domains", "arms", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} must name something, each once: got {list(values)}")
        if not all(isinstance(seed, int) and seed >= 0 for seed in self.seeds):
            raise ValueError(f"seeds must be whole numbers of at least 0: got {list(self.seeds)}")
        if self.explore_seed is not None and self.explore_seed not in self.seeds:
            raise ValueError(f"explore_seed must be one of the seeds: got {self.explore_seed}")

    @classmethod
    def load(cls, config: str | Path, extra: tuple[str, ...] = ()) -> Grid:
        """Read a YAML file, or the one of this name beside this module.

        Raises:
            ValueError: the file is missing, is no such YAML, or a value in it does not fit.
        """
        path = CONFIGS / f"{config}.yaml" if str(config).isidentifier() else Path(config)
        if not path.is_file():
            names = ", ".join(sorted(found.stem for found in CONFIGS.glob("*.yaml")))
            raise ValueError(f"the configuration must be a file, or one of {names}: got {config}")
        try:
            plain = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(f"{path} must be YAML: {' '.join(str(error).split())}") from None
        if not isinstance(plain, dict):
            raise ValueError(f"{path} must hold settings by name: got {type(plain).__name__}")
        try:
            return cls.read({"name": path.stem, "extra": extra, **plain})
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    @classmethod
    def read(cls, plain: dict[str, Any]) -> Grid:
        """Out of plain data, as YAML gives it; ``seeds`` may be their number.

        Raises:
            ValueError: a setting is unknown or does not fit.
        """
        _known("settings", plain, tuple(field.name for field in fields(cls)))
        made = dict(plain)
        if isinstance(made.get("seeds"), int):
            made["seeds"] = tuple(range(made["seeds"]))
        for name in ("domains", "arms", "seeds", "joint", "extra"):
            if name in made:
                made[name] = tuple(_a(list, name, made[name]))
        for name in ("overrides", "levels", "measuring"):
            made[name] = _a(dict, name, made.get(name) or {})
        if made.get("speed") is not None:
            made["speed"] = _a(dict, "speed", made["speed"])
        made["levels"] = {domain: tuple(_a(list, "levels", some)) for domain, some in made["levels"].items()}
        return cls(**made)

    def jobs(self) -> list[Job]:
        """All runs, the longest kinds first and the timings at the end, so that no worker idles."""
        return [*self._joint(), *self._trainings(), *self._controls(), *self._timings()]

    def _joint(self) -> Iterator[Job]:
        measuring = {name: value for name, value in self.measuring.items() if name == "examples"}
        changed = (*flat(self.overrides.get(JOINT, {})), *self.extra)
        for seed in self.seeds:
            for kind in self.joint:
                for arm in joint_arms(kind):
                    yield Job(JOINT, arm, seed, changed, measuring)

    def _trainings(self) -> Iterator[Job]:
        for seed in self.seeds:
            for domain in reversed(self.domains):
                for arm in (arm for arm in self.arms if arm not in CONTROLS):
                    shown = arm == "attention" and seed == self.explore_seed
                    yield self._job(domain, arm, seed, self.explore_scenes if shown else 0)

    def _controls(self) -> Iterator[Job]:
        # nothing in them is drawn by the seed
        for arm in (arm for arm in self.arms if arm in CONTROLS):
            yield from (self._job(domain, arm, self.seeds[0]) for domain in self.domains)

    def _timings(self) -> Iterator[Job]:
        if self.speed is not None:
            yield Job(SPEED, SPEED, 0, measuring=self.speed)

    def _job(self, domain: str, arm: str, seed: int, explore: int = 0) -> Job:
        changed = (*flat(self.overrides.get(domain, {})), *self.extra)
        levels = {"levels": list(self.levels[domain])} if domain in self.levels else {}
        return Job(domain, arm, seed, changed, {**self.measuring, **levels}, explore)


def joint_arms(kind: str) -> list[str]:
    """The arms of a kind: ``joint``, or one for each sense such as ``separate_vision``."""
    return [kind] if kind == JOINT else [f"{kind}_{sense}" for sense in DOMAINS]


def flat(settings: dict[str, Any], prefix: str = "") -> list[str]:
    """Nested settings as arguments of a command line: ``{"trainer": {"max_epochs": 3}}`` as
    ``--trainer.max_epochs=3``."""
    found: list[str] = []
    for name, value in settings.items():
        if isinstance(value, dict):
            found += flat(value, f"{prefix}{name}.")
        else:
            found.append(f"--{prefix}{name}={value if isinstance(value, str) else json.dumps(value)}")
    return found


def _known(what: str, given: Any, known: tuple[str, ...]) -> None:
    for name in given:
        if name not in known:
            raise ValueError(f"{what} must be among {', '.join(known)}: got {name!r}")


def _a(kind: type, name: str, value: Any) -> Any:
    if kind is list and isinstance(value, tuple):
        return value
    if not isinstance(value, kind):
        shown = "a list" if kind is list else "settings by name"
        raise ValueError(f"{name} must be {shown}: got {value!r}")
    return value
