"""One run of the grid as plain data, and the digest of all that its results depend on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from tasks.compare.suite import ROOT, SUITE, domain_task

SPEED = "speed"
"""Domain and arm of the timings."""

JOINT = "joint"
"""Domain of the trainings on all senses, and of those beside them."""

JOINT_CONFIG = ROOT / "tasks" / "joint" / "configs" / "trio.yaml"

COMMIT = "MMATTN_COMMIT"
"""Variable of the environment that names the commit of code that was copied out of its checkout."""

#: Rooms of mmattn that no run depends on: they show results, or belong to other tasks.
_APART = (
    "convert",
    "explore",
    "inference",
    "language",
    "plugins",
    "recognition",
    "report",
    "translation",
    "vit",
)
#: What of this package a result depends on; the rest says what runs where, and shows it.
_OURS = ("arms.py", "controls.py", "mixing.py", "resuming.py", "suite.py", "training.py", "measuring")
_PACKAGES = (
    "torch", "torchvision", "torchaudio", "lightning", "torchmetrics", "numpy", "scikit-learn", "timm", "Django",
    "espeakng-loader", "tokenizers",
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        domain: ``vision``, ``speech`` or ``text``; ``joint`` for one trunk of all, ``speed`` for timings.
        arm: an arm of the suite, one of :func:`tasks.compare.grid.joint_arms`, or ``speed``.
        seed: of the training.
        overrides: arguments that change the domain's configuration, as on its command line.
        measuring: how much is measured: fields of :class:`tasks.compare.measuring.Effort`, of
            :class:`tasks.compare.measuring.Pace` for timings.
        explore: how many test scenes are kept for the explorer.
    """

    domain: str
    arm: str
    seed: int = 0
    overrides: tuple[str, ...] = ()
    measuring: dict[str, Any] = field(default_factory=dict)
    explore: int = 0

    @property
    def name(self) -> str:
        """Folder of the results."""
        return f"{self.domain}-{self.arm}-{self.seed}"

    @property
    def alone(self) -> bool:
        """Whether nothing may run beside it."""
        return self.domain == SPEED

    def plain(self) -> dict[str, Any]:
        """As JSON data; :meth:`read` is the way back."""
        return asdict(self) | {"overrides": list(self.overrides)}

    @classmethod
    def read(cls, plain: dict[str, Any]) -> Job:
        """Out of JSON data."""
        return cls(**{**plain, "overrides": tuple(plain["overrides"])})


def identity(job: Job) -> str:
    """Digest of all that the results of a job depend on: code, configuration, versions and the job itself.

    How pages look, and what else the library can do, is no part of it.
    """
    content = hashlib.sha256(_code(job.domain, job.explore > 0).encode())
    if job.domain != SPEED:
        content.update(config_path(job.domain).read_bytes())
    content.update(json.dumps([job.plain(), _versions()], sort_keys=True).encode())
    return content.hexdigest()


def config_path(domain: str) -> Path:
    """The YAML file of a domain's trainings."""
    return JOINT_CONFIG if domain == JOINT else domain_task(domain).config_path


@cache
def _code(domain: str, explores: bool) -> str:
    content = hashlib.sha256()
    for path in sources(domain, explores):
        content.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return content.hexdigest()


def sources(domain: str, explores: bool = False) -> list[Path]:
    """The files of code that a run of a domain depends on."""
    tasks = ROOT / "tasks"
    found = [
        path for path in (ROOT / "mmattn").rglob("*.py") if path.relative_to(ROOT).parts[1] not in _APART
    ]
    found += tasks.glob("*.py")
    if domain == JOINT:
        found.append(tasks / "compare" / "joint.py")
    senses = [part.domain for part in SUITE] if domain == JOINT else []
    for folder in (domain, *senses) if domain != SPEED else ():
        found += (tasks / folder).rglob("*.py")
    if explores:
        found += (ROOT / "mmattn" / "explore").rglob("*.py")
    for name in _OURS:
        place = tasks / "compare" / name
        found += place.rglob("*.py") if place.is_dir() else [place] if place.exists() else []
    return sorted(found)


@cache
def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
