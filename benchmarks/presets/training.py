"""One training of one model, from a configuration."""

from __future__ import annotations

import json
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from lightning import Callback, LightningModule, Trainer

from benchmarks.presets.presets import ROOT, Preset
from mmattn.training.cli import TaskCLI
from mmattn.training.record import RecordRun


class Curve(Callback):
    """What validation says over the minutes since the process began."""

    def __init__(self, begin: float) -> None:
        self.begin = begin
        self.points: list[dict[str, float]] = []

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        found = {name: float(v) for name, v in trainer.callback_metrics.items() if name.startswith("val/")}
        self.points.append({"minutes": (time.perf_counter() - self.begin) / 60} | found)


def named(place: str) -> Any:
    """What ``module:name`` names; the data modules beside it get their short names."""
    module, name = place.split(":")
    import_module(f"{'.'.join(module.split('.')[:-1])}.data")
    return getattr(import_module(module), name)


def build(task: str, config: Path, args: list[str], folder: Path, seed: int) -> TaskCLI:
    """Data, model and trainer, with neither logs nor checkpoints."""
    quiet = ["--trainer.logger=false", "--trainer.enable_checkpointing=false"]
    quiet += ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    place = [f"--seed_everything={seed}", f"--trainer.default_root_dir={folder}"]
    return TaskCLI(named(task), [f"--config={config}", *quiet, *place, *args], run=False)


def without_checkpoints(config: Path) -> list[str]:
    """Arguments that leave out the callbacks that write or stop, but keep those that shape the weights."""
    listed = yaml.safe_load(config.read_text())["trainer"].get("callbacks") or []
    kept = [
        part
        for part in listed
        if part["class_path"].rsplit(".", 1)[-1] not in ("ModelCheckpoint", "EarlyStopping")
    ]
    return [f"--trainer.callbacks={json.dumps(kept)}" if kept else "--trainer.callbacks=null"]


def pretrain(each: Preset, args: list[str], folder: Path, seed: int) -> Path:
    """The checkpoint of the earlier stage, which the preset's trainings take up."""
    assert each.before is not None
    task, config = each.before
    cli = build(task, ROOT / config, [*without_checkpoints(ROOT / config), *args], folder, seed)
    cli.trainer.fit(cli.model, cli.datamodule)
    path = folder / "pretrained.ckpt"
    cli.trainer.save_checkpoint(path, weights_only=True)
    return path


def train_one(
    each: Preset, args: list[str], folder: Path, seed: int, begin: float, save: Path | None = None
) -> dict[str, Any]:
    """Train a model and test it: metrics by name, the curve, and what else is told of a run.

    Args:
        each: the preset.
        args: arguments besides its configuration.
        folder: of the run.
        seed: of the training.
        begin: when the run began, by ``time.perf_counter``, from which the minutes of the curve count.
        save: file for a checkpoint.
    """
    cli = build(each.task, each.path, args, folder, seed)
    curve = Curve(begin)
    callbacks: list[Callback] = cli.trainer.callbacks  # type: ignore[attr-defined]  # set by Trainer
    callbacks.append(curve)
    cli.trainer.fit(cli.model, cli.datamodule)
    trained = time.perf_counter()
    cli.trainer.test(cli.model, cli.datamodule, verbose=False)
    end = time.perf_counter()
    if save is not None:
        cli.trainer.save_checkpoint(save, weights_only=True)
    record = next(part for part in callbacks if isinstance(part, RecordRun)).record
    metrics = {name: float(value) for name, value in cli.trainer.callback_metrics.items()}
    return {
        "metrics": metrics | {"decoding/seconds": end - trained},
        "outside_share": None if record is None else record.outside_share,
        "parameters": sum(p.numel() for p in cli.model.parameters() if p.requires_grad),
        "curve": curve.points,
    }
