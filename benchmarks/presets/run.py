"""``python -m benchmarks.presets.run``: one run of one preset, in a process of its own."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning import Callback, LightningModule, Trainer

from benchmarks.presets.presets import ROOT, Preset, preset
from mmattn.training.cli import TaskCLI
from mmattn.training.memory import quick_memory
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


def train(each: Preset, variant: str, seed: int, data: Path | None, folder: Path) -> dict[str, Any]:
    """Train and test; metrics by name, minutes, and the curve."""
    begin = time.perf_counter()
    args = list(dict(each.variants)[variant])
    root = [] if data is None else [f"--data.init_args.root={data}"]
    if each.before is not None:
        task, config = each.before
        first = build(task, ROOT / config, [*without_checkpoints(ROOT / config), *root], folder, seed)
        first.trainer.fit(first.model, first.datamodule)
        path = folder / "pretrained.ckpt"
        first.trainer.save_checkpoint(path, weights_only=True)
        args.append(f"--model.pretrained={path}")
    cli = build(each.task, each.path, [*without_checkpoints(each.path), *root, *args], folder, seed)
    curve = Curve(begin)
    callbacks: list[Callback] = cli.trainer.callbacks  # type: ignore[attr-defined]  # set by Trainer
    callbacks.append(curve)
    cli.trainer.fit(cli.model, cli.datamodule)
    trained = time.perf_counter()
    cli.trainer.test(cli.model, cli.datamodule, verbose=False)
    end = time.perf_counter()
    record = next(part for part in callbacks if isinstance(part, RecordRun)).record
    metrics = {name: float(value) for name, value in cli.trainer.callback_metrics.items()}
    return {
        "metrics": metrics | {"decoding/seconds": end - trained},
        "minutes": (end - begin) / 60,
        "outside_share": None if record is None else record.outside_share,
        "parameters": sum(p.numel() for p in cli.model.parameters() if p.requires_grad),
        "curve": curve.points,
    }


def without_checkpoints(config: Path) -> list[str]:
    """Arguments that leave out the callbacks that write or stop, but keep those that shape the weights."""
    listed = yaml.safe_load(config.read_text())["trainer"].get("callbacks") or []
    kept = [
        part
        for part in listed
        if part["class_path"].rsplit(".", 1)[-1] not in ("ModelCheckpoint", "EarlyStopping")
    ]
    return [f"--trainer.callbacks={json.dumps(kept)}" if kept else "--trainer.callbacks=null"]


def control(each: Preset, variant: str, data: Path | None, folder: Path) -> dict[str, Any]:
    """The control's figure, on the same data."""
    assert each.control is not None
    begin = time.perf_counter()
    root = [] if data is None else [f"--data.init_args.root={data}"]
    args = dict(each.variants)[variant]
    cli = build(each.task, each.path, [*without_checkpoints(each.path), *root, *args], folder, 0)
    value = float(named(each.control)(cli.datamodule))
    return {"metrics": {each.goals[0].metric: value}, "minutes": (time.perf_counter() - begin) / 60}


def main() -> int:
    """Run one and write its results."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("preset")
    parser.add_argument("folder", type=Path, help="for results.json")
    parser.add_argument("--variant", default="")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--control", action="store_true")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    quick_memory()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    each = preset(args.preset)
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.control:
        found = control(each, args.variant, args.data, args.folder)
    else:
        found = train(each, args.variant, args.seed, args.data, args.folder)
    # whether the machine was busy with something else belongs to a time
    found |= {"threads": torch.get_num_threads(), "load": os.getloadavg()}
    (args.folder / "results.json").write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
