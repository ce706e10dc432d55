"""``python -m benchmarks.presets.run``: one run of one preset, in a process of its own."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from importlib import import_module
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import yaml
from lightning import Callback, LightningModule, Trainer

from benchmarks.presets.presets import ROOT, Preset, preset
from mmattn.inference import Ensemble, open_model
from mmattn.training.cli import TaskCLI
from mmattn.training.data import ExampleSet
from mmattn.training.memory import quick_memory
from mmattn.training.record import RecordRun

_BATCH = 64


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
    args = [] if data is None else [f"--data.init_args.root={data}"]
    pretrained = (
        [] if each.before is None else [f"--model.pretrained={_pretrained(each, args, seed, folder)}"]
    )
    args += [*without_checkpoints(each.path), *dict(each.variants)[variant], *pretrained]
    curve, members = Curve(begin), []
    for index, own in enumerate(each.members):
        cli = build(each.task, each.path, [*args, *own], folder, seed * len(each.members) + index)
        if index == 0:
            _callbacks(cli).append(curve)
        cli.trainer.fit(cli.model, cli.datamodule)
        members.append(cli)
    trained = time.perf_counter()
    alone = []
    for cli in members:
        cli.trainer.test(cli.model, cli.datamodule, verbose=False)
        alone.append({name: float(value) for name, value in cli.trainer.callback_metrics.items()})
    metrics = dict(alone[0])
    if len(members) > 1:
        metrics = {each.goals[0].metric: _together(members, folder)}
    end = time.perf_counter()
    records = [part.record for cli in members for part in _callbacks(cli) if isinstance(part, RecordRun)]
    shares = [record.outside_share for record in records if record and record.outside_share is not None]
    return {
        "metrics": metrics | {"decoding/seconds": end - trained},
        "members": [found[each.goals[0].metric] for found in alone],
        "minutes": (end - begin) / 60,
        "outside_share": mean(shares) if shares else None,
        "parameters": sum(p.numel() for cli in members for p in cli.model.parameters() if p.requires_grad),
        "curve": curve.points,
    }


def _pretrained(each: Preset, args: list[str], seed: int, folder: Path) -> Path:
    """The checkpoint of the earlier stage, which all members take up."""
    assert each.before is not None
    task, config = each.before
    cli = build(task, ROOT / config, [*without_checkpoints(ROOT / config), *args], folder, seed)
    cli.trainer.fit(cli.model, cli.datamodule)
    path = folder / "pretrained.ckpt"
    cli.trainer.save_checkpoint(path, weights_only=True)
    return path


def _together(members: list[TaskCLI], folder: Path) -> float:
    """Accuracy of all as one, saved and opened again as a user would with ``mmattn predict --ensemble``."""
    saved = [folder / f"member{index}.ckpt" for index in range(len(members))]
    for cli, path in zip(members, saved, strict=True):
        cli.trainer.save_checkpoint(path, weights_only=True)
    found = accuracy(Ensemble([open_model(path) for path in saved]), members[0].datamodule.sets["test"])
    for path in saved:
        path.unlink()
    return found


def accuracy(model: Any, examples: ExampleSet) -> float:
    """Share of examples whose label a predictor, or an ensemble, gives."""
    rows: list[dict[str, Any]] = []
    pairs = [examples[i] for i in range(len(examples))]
    for start in range(0, len(pairs), _BATCH):
        rows += model.predict([pair.item for pair in pairs[start : start + _BATCH]], top=1)
    names = model.outputs["class_names"]
    right: int = sum(row["label"] == names[pair.label] for row, pair in zip(rows, pairs, strict=True))
    return right / len(pairs)


def _callbacks(cli: TaskCLI) -> list[Callback]:
    found: list[Callback] = cli.trainer.callbacks  # type: ignore[attr-defined]  # set by Trainer
    return found


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
