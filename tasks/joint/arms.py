"""What is compared: one trunk for all senses, trunks of their own, and trunks that learned from other senses."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mmattn.training.cli import TaskCLI
from mmattn.training.record import RecordRun, versions
from tasks.compare.controls import linear_control
from tasks.joint.data import SENSES, JointData
from tasks.joint.module import JointClassification

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "tasks" / "joint" / "configs" / "trio.yaml"

#: Rooms of mmattn that no training here depends on.
_APART = (
    "convert",
    "inference",
    "language",
    "observation",
    "plugins",
    "recognition",
    "report",
    "translation",
    "vit",
)


@dataclass(frozen=True)
class Arm:
    """One training, or the linear control of a sense.

    Attributes:
        kind: ``joint`` (one trunk for all), ``separate`` (a trunk of its own, as large), ``third`` (one of a third of
            the blocks), ``others`` (one trunk for the other senses), ``moved`` (that trunk, frozen), ``random``
            (a frozen trunk that never learned) or ``linear``.
        sense: the sense that is meant; none for ``joint``.
        seed: of the training.
    """

    kind: str
    sense: str = ""
    seed: int = 0

    @property
    def name(self) -> str:
        """Folder of the results."""
        return "-".join(part for part in (self.kind, self.sense, str(self.seed)) if part)

    @property
    def senses(self) -> tuple[str, ...]:
        """The senses that it trains on."""
        if self.kind == "joint":
            return SENSES
        return tuple(s for s in SENSES if (s == self.sense) != (self.kind == "others"))

    @property
    def trunk(self) -> Arm | None:
        """The training that its trunk comes from."""
        return Arm("others", self.sense, self.seed) if self.kind == "moved" else None


def arms(seed: int) -> list[Arm]:
    """All arms of a seed, each behind what it builds upon; the longest first."""
    kinds = ("others", "separate", "random", "moved", "third", "linear")
    return [Arm("joint", "", seed), *(Arm(kind, sense, seed) for kind in kinds for sense in reversed(SENSES))]


@dataclass(frozen=True)
class Settings:
    """What is the same for all arms.

    Attributes:
        config: YAML file of the joint run.
        steps: of every training; ``None`` takes those of the joint run as configured.
        extra: further arguments for every training.
    """

    config: Path = CONFIG
    steps: int | None = None
    extra: tuple[str, ...] = ()


def key(arm: Arm, settings: Settings) -> str:
    """Digest of all that the results depend on: code, configuration, versions and arguments."""
    content = hashlib.sha256(settings.config.read_bytes())
    for folder in ("mmattn", "tasks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            place = path.relative_to(ROOT)
            if not {*_APART, "compare.py", "findings.py"} & {*place.parts}:
                content.update(place.as_posix().encode() + path.read_bytes())
    content.update(json.dumps([asdict(arm), settings.steps, settings.extra, versions()]).encode())
    return content.hexdigest()


def load(arm: Arm, settings: Settings, folder: Path) -> dict[str, Any] | None:
    """The results of an arm, if they are there and made by this very code and configuration."""
    path = folder / arm.name / "results.json"
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text())
    return found if found["key"] == key(arm, settings) else None


def run(arm: Arm, settings: Settings, folder: Path) -> None:
    """Do an arm and leave its results, and the trunk that others take up, in ``folder / arm.name``."""
    place = folder / arm.name
    place.mkdir(parents=True, exist_ok=True)
    found = _linear(arm, settings, place) if arm.kind == "linear" else _train(arm, settings, folder)
    (place / "results.json").write_text(json.dumps(found | {"key": key(arm, settings)}, indent=1))


def build(arm: Arm, settings: Settings, folder: Path) -> TaskCLI:
    """Data, model and trainer of an arm, from the configuration of the joint run.

    Raises:
        ValueError: the depth of the encoder is no multiple of three, where a third of it is wanted.
    """
    args = [f"--config={settings.config}", f"--seed_everything={arm.seed}", *settings.extra]
    args += [f"--{part}.{sense}=null" for sense in SENSES if sense not in arm.senses
             for part in ("model", "data.init_args")]  # fmt: skip
    args += ["--trainer.logger=false", "--trainer.callbacks=null", "--trainer.enable_checkpointing=false",
             "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false",
             "--trainer.limit_val_batches=0", f"--trainer.default_root_dir={folder / arm.name}"]  # fmt: skip
    if settings.steps is not None:
        args += [f"--trainer.max_steps={settings.steps}", "--trainer.max_epochs=-1"]
    if arm.kind in ("moved", "random"):
        args.append("--model.frozen=[encoder]")
    if arm.trunk is not None:
        args.append(f"--model.trunk={folder / arm.trunk.name / 'trunk.ckpt'}")
    if arm.kind == "third":
        args.append(f"--model.encoder.init_args.depth={third_of_depth(settings, folder)}")
    return TaskCLI(JointClassification, args, run=False)


def third_of_depth(settings: Settings, folder: Path) -> int:
    """A third of the blocks of the joint trunk."""
    depth = len(build(Arm("joint"), settings, folder).model.encoder.blocks)
    if depth % 3:
        raise ValueError(f"a third of the trunk needs a depth that 3 divides: got {depth} blocks")
    return depth // 3


def steps_of(settings: Settings, folder: Path) -> int:
    """Steps of the joint run as configured."""
    cli = build(Arm("joint"), settings, folder)
    data, trainer = cli.datamodule, cli.trainer
    if trainer.max_steps != -1:
        return int(trainer.max_steps)
    lengths = [len(part.train_dataloader()) for part in data.parts.values()]
    a_round = max(lengths) if data.mode == "max_size_cycle" else min(lengths)
    return int(trainer.max_epochs or 0) * a_round


def _train(arm: Arm, settings: Settings, folder: Path) -> dict[str, Any]:
    begin = time.perf_counter()
    cli = build(arm, settings, folder)
    trainer, task, data = cli.trainer, cli.model, cli.datamodule
    data.setup()
    loaded = time.perf_counter()
    trainer.fit(task, data)
    trained = time.perf_counter()
    metrics = trainer.test(task, data, verbose=False)
    if arm.kind == "others":
        trainer.save_checkpoint(folder / arm.name / "trunk.ckpt", weights_only=True)
    recorder = next(part for part in _callbacks(trainer) if isinstance(part, RecordRun))
    assert recorder.record is not None
    found = {name: value for each in metrics for name, value in each.items()}
    return {
        **asdict(arm),
        "accuracy": {n.removesuffix("/accuracy"): v for n, v in found.items() if n.endswith("/accuracy")},
        "count": {name: len(data.sets[name]) for name in data.test_names},
        "trunk_parameters": sum(p.numel() for p in task.encoder.parameters()),
        "parameters": sum(p.numel() for p in task.parameters()),
        "trained_parameters": sum(p.numel() for p in task.parameters() if p.requires_grad),
        "steps": trainer.global_step,
        "threads": torch.get_num_threads(),
        "minutes": {"data": (loaded - begin) / 60, "training": (trained - loaded) / 60,
                    "test": (time.perf_counter() - trained) / 60},
    }  # fmt: skip


def _callbacks(trainer: Any) -> list[Any]:
    return list(trainer.callbacks)


def _linear(arm: Arm, settings: Settings, place: Path) -> dict[str, Any]:
    """The linear control, at the level that it is judged at (see :mod:`tasks.compare.controls`)."""
    begin = time.perf_counter()
    data: JointData = build(Arm("separate", arm.sense), settings, place).datamodule
    part: Any = data.parts[arm.sense]
    found = {}
    for name in part.test_names:
        level = 0 if name == "test_plain" else part.level
        train = part.scenes("train", level, None)
        train.train_levels = "fixed"
        found[f"{name}_{arm.sense}"] = linear_control(arm.sense, train, part.sets[name])
    return {
        **asdict(arm),
        "accuracy": found,
        "count": {name: len(data.sets[name]) for name in data.test_names},
        "minutes": {"all": (time.perf_counter() - begin) / 60},
    }
