"""``python -m benchmarks.presets.members``: one run of a preset that is an ensemble, in a process of its own.

Its members are trained one after the other with seeds of their own, saved, and opened again as one, as a user would
with ``mmattn predict first.ckpt texts.txt --ensemble second.ckpt third.ckpt``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from benchmarks.presets.presets import ROOT, Preset, preset
from benchmarks.presets.run import Curve, build, without_checkpoints
from mmattn.inference import Ensemble, open_model
from mmattn.training.data import ExampleSet
from mmattn.training.memory import quick_memory
from mmattn.training.record import RecordRun

_BATCH = 64


def train(each: Preset, seed: int, data: Path | None, folder: Path) -> dict[str, Any]:
    """Train all members and test them, alone and together."""
    begin = time.perf_counter()
    root = [] if data is None else [f"--data.init_args.root={data}"]
    pretrained = (
        [] if each.before is None else [f"--model.pretrained={_pretrained(each, seed, root, folder)}"]
    )
    curve, parameters = Curve(begin), 0
    alone: list[float] = []
    shares: list[float] = []
    saved: list[Path] = []
    for member in range(each.members):
        args = [*without_checkpoints(each.path), *root, *pretrained]
        cli = build(each.task, each.path, args, folder, seed * each.members + member)
        if member == 0:
            cli.trainer.callbacks.append(curve)  # type: ignore[attr-defined]  # set by Trainer
        cli.trainer.fit(cli.model, cli.datamodule)
        cli.trainer.test(cli.model, cli.datamodule, verbose=False)
        alone.append(float(cli.trainer.callback_metrics[each.goals[0].metric]))
        saved.append(folder / f"member{member}.ckpt")
        cli.trainer.save_checkpoint(saved[-1], weights_only=True)
        records = [part.record for part in cli.trainer.callbacks if isinstance(part, RecordRun)]  # type: ignore[attr-defined]
        shares += [
            record.outside_share
            for record in records
            if record is not None and record.outside_share is not None
        ]
        parameters += sum(p.numel() for p in cli.model.parameters() if p.requires_grad)
    together = accuracy(Ensemble([open_model(path) for path in saved]), cli.datamodule.sets["test"])
    for path in saved:
        path.unlink()
    return {
        "metrics": {each.goals[0].metric: together},
        "members": alone,
        "minutes": (time.perf_counter() - begin) / 60,
        "outside_share": mean(shares) if shares else None,
        "parameters": parameters,
        "curve": curve.points,
    }


def accuracy(model: Any, examples: ExampleSet) -> float:
    """Share of examples whose label a predictor, or an ensemble, gives."""
    rows: list[dict[str, Any]] = []
    pairs = [examples[i] for i in range(len(examples))]
    for start in range(0, len(pairs), _BATCH):
        rows += model.predict([pair.item for pair in pairs[start : start + _BATCH]], top=1)
    names = model.outputs["class_names"]
    right: int = sum(row["label"] == names[pair.label] for row, pair in zip(rows, pairs, strict=True))
    return right / len(pairs)


def _pretrained(each: Preset, seed: int, root: list[str], folder: Path) -> Path:
    """The checkpoint of the earlier stage, which all members take up."""
    assert each.before is not None
    task, config = each.before
    cli = build(task, ROOT / config, [*without_checkpoints(ROOT / config), *root], folder, seed)
    cli.trainer.fit(cli.model, cli.datamodule)
    path = folder / "pretrained.ckpt"
    cli.trainer.save_checkpoint(path, weights_only=True)
    return path


def main() -> int:
    """Run one and write its results."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("preset")
    parser.add_argument("folder", type=Path, help="for results.json")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    quick_memory()
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    args.folder.mkdir(parents=True, exist_ok=True)
    found = train(preset(args.preset), args.seed, args.data, args.folder)
    # whether the machine was busy with something else belongs to a time
    found |= {"threads": torch.get_num_threads(), "load": os.getloadavg()}
    (args.folder / "results.json").write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
