"""``python -m benchmarks.real_data --fsdd FOLDER --sst2 FOLDER --cifar10 FOLDER``: the bars on real data.

Trains each data set that is named by its configuration in ``tasks``, once for each seed, and tests the final weights.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from statistics import mean

import torch

from benchmarks.bars import Bar, conclude
from mmattn.training.cli import TaskCLI

MOST_MINUTES = 10.0


@dataclass(frozen=True)
class RealData:
    """One data set: its task, its configuration and its bar on the test set in percent."""

    domain: str
    task: str
    config: str
    bar: float


DATA = {
    "fsdd": RealData("speech", "KeywordSpotting", "fsdd.yaml", 97.5),
    "sst2": RealData("text", "TextClassification", "sst2.yaml", 80.5),
    "cifar10": RealData("vision", "ImageClassification", "cifar10.yaml", 65.0),
}


def measure(data: RealData, root: Path, seed: int, extra: list[str]) -> tuple[float, float]:
    """Test accuracy in percent, and minutes for data, training and test."""
    begin = time.perf_counter()
    import_module(f"tasks.{data.domain}.data")
    task_class = getattr(import_module(f"tasks.{data.domain}.module"), data.task)
    path = Path(__file__).parents[1] / "tasks" / data.domain / "configs" / data.config
    with tempfile.TemporaryDirectory() as folder:
        quiet = ["--trainer.logger=false", "--trainer.callbacks=null", "--trainer.enable_checkpointing=false"]
        place = [f"--data.root={root}", f"--seed_everything={seed}", f"--trainer.default_root_dir={folder}"]
        cli = TaskCLI(task_class, [f"--config={path}", *quiet, *place, *extra], run=False)
        cli.trainer.fit(cli.model, cli.datamodule)
        cli.trainer.test(cli.model, cli.datamodule, verbose=False)
    accuracy = 100 * float(cli.trainer.callback_metrics["test/accuracy"])
    return accuracy, (time.perf_counter() - begin) / 60


def main() -> int:
    """Train, test and conclude; arguments after ``--`` go to every training's command line."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    for name in DATA:
        parser.add_argument(f"--{name}", type=Path, help=f"folder of the data set {name}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, help="threads of each training; the default is torch's")
    parser.add_argument("--out", type=Path)
    parser.add_argument("extra", nargs="*")
    args = parser.parse_args()
    named = {name: getattr(args, name) for name in DATA if getattr(args, name) is not None}
    if not named:
        parser.error("name at least one folder: --" + ", --".join(DATA))
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    bars = []
    for name, root in named.items():
        runs = [measure(DATA[name], root, seed, args.extra) for seed in args.seeds]
        each = ", ".join(f"{accuracy:.2f}" for accuracy, _ in runs)
        note = f"seeds {', '.join(map(str, args.seeds))}: {each}"
        bars.append(Bar(f"{name}, test accuracy, %", mean(a for a, _ in runs), DATA[name].bar, note=note))
        bars.append(Bar(f"{name}, longest run, minutes", max(m for _, m in runs), MOST_MINUTES, False))
    return conclude(bars, args.out)


if __name__ == "__main__":
    sys.exit(main())
