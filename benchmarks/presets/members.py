"""Several trainings used as one model."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from benchmarks.presets.presets import Preset
from benchmarks.presets.training import build, train_one
from mmattn.inference import Ensemble, open_model
from mmattn.training.data import ExampleSet
from mmattn.training.memory import quick_memory

_BATCH = 64


def train_members(each: Preset, args: list[str], folder: Path, seed: int, begin: float) -> dict[str, Any]:
    """Train the members of an ensemble with seeds of their own, and test them alone and together.

    On a CPU they are trained side by side, a thread each: small models gain little from a second thread. They are
    saved, and opened again as one, as a user would with ``mmattn predict FIRST texts.txt --ensemble SECOND``.
    Arguments and result are those of :func:`~benchmarks.presets.training.train_one`.
    """
    count = len(each.members)
    saved = [folder / f"member{index}.ckpt" for index in range(count)]
    workers = 1 if torch.cuda.is_available() else min(count, torch.get_num_threads())
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _start, (torch.get_num_threads() // workers,)) as pool:
        running = [
            pool.submit(train_one, each, [*args, *own], folder, seed * count + index, begin, saved[index])
            for index, own in enumerate(each.members)
        ]
        found = [member.result() for member in running]
    data = build(each.task, each.path, args, folder, seed).datamodule
    data.setup("test")
    metric = each.goals[0].metric
    together = accuracy(Ensemble([open_model(path) for path in saved]), data.sets["test"])
    for path in saved:
        path.unlink()
    shares = [member["outside_share"] for member in found if member["outside_share"] is not None]
    return {
        "metrics": {metric: together},
        "members": [member["metrics"][metric] for member in found],
        "outside_share": mean(shares) if shares else None,
        "parameters": sum(member["parameters"] for member in found),
        "curve": found[0]["curve"],
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


def _start(threads: int) -> None:
    """Prepare a process that trains."""
    quick_memory()
    torch.set_num_threads(threads)
