"""``python -m benchmarks.presets.run``: one run of one preset, in a process of its own."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.presets.members import train_members
from benchmarks.presets.presets import Preset, preset
from benchmarks.presets.training import build, named, pretrain, train_one, without_checkpoints
from mmattn.training.memory import quick_memory


def train(each: Preset, variant: str, seed: int, data: Path | None, folder: Path) -> dict[str, Any]:
    """Train and test; metrics by name, minutes, and the curve."""
    begin = time.perf_counter()
    args = [] if data is None else [f"--data.init_args.root={data}"]
    pretrained = [] if each.before is None else [f"--model.pretrained={pretrain(each, args, folder, seed)}"]
    args += [*without_checkpoints(each.path), *dict(each.variants)[variant], *pretrained]
    train_it = train_members if len(each.members) > 1 else train_one
    found = train_it(each, args, folder, seed, begin)
    return found | {"minutes": (time.perf_counter() - begin) / 60}


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
