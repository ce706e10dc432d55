"""One ``record.json`` for each run: what ran, on what, and what came out."""

from __future__ import annotations

import contextlib
import platform
import subprocess
import sys
import time
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from torch.utils.flop_counter import FlopCounterMode

from mmattn.attention import MultiHeadAttention
from mmattn.report.records import DataRecord, RunRecord
from mmattn.training.data import TaskData
from mmattn.training.task import Task

_PACKAGES = (
    "mmattn",
    "numpy",
    "scikit-learn",
    "Django",
    "Babel",
    "sacrebleu",
    "espeakng-loader",
    "torch",
    "torchvision",
    "torchaudio",
    "lightning",
    "torchmetrics",
    "timm",
    "tokenizers",
)


class RecordRun(Callback):
    """Writes ``record.json`` into the run's log folder when training ends, and again with the test results.

    The record follows :class:`mmattn.report.records.RunRecord`. A resumed run keeps the epochs before.
    """

    def __init__(self) -> None:
        self.record: RunRecord | None = None
        self._epochs: list[dict[str, float | None]] = []
        self._metrics: dict[str, float | None] = {}
        self._started = _now()
        self._wall = 0.0
        self._train_seconds = 0.0
        self._examples = 0
        self._tick = 0.0
        self._gradient_seconds = 0.0
        self._mark = 0.0
        self._flops: float | None = None
        self._begin = time.perf_counter()

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run goes on from."""
        return {
            "epochs": self._epochs,
            "started": self._started,
            "train_seconds": self._train_seconds,
            "gradient_seconds": self._gradient_seconds,
            "examples": self._examples,
            "flops": self._flops,
            "metrics": self._metrics,
            "wall": self._wall + time.perf_counter() - self._begin,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._epochs = state["epochs"]
        self._started = state["started"]
        self._train_seconds = state["train_seconds"]
        self._gradient_seconds = state["gradient_seconds"]
        self._examples = state["examples"]
        self._flops = state.get("flops")
        self._metrics = state.get("metrics", {})
        self._wall = state["wall"]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        forget_peak_memory()
        self._begin = time.perf_counter()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._tick = time.perf_counter()

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._mark = time.perf_counter()

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._gradient_seconds += time.perf_counter() - self._mark
        self._mark = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._examples += len(batch.items)
        if self._flops is None and isinstance(pl_module, Task):
            self._train_seconds += time.perf_counter() - self._tick
            self._flops = flops_per_example(pl_module, batch)
            self._tick = time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._train_seconds += time.perf_counter() - self._tick

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._tick = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._train_seconds += time.perf_counter() - self._tick
        row: dict[str, float | None] = {"epoch": float(trainer.current_epoch)}
        for name, value in trainer.callback_metrics.items():
            if name.startswith(("train/", "val/")):
                row[name.replace("/", "_")] = float(value)
        self._epochs.append(row)
        self._metrics = _metrics(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._wall += time.perf_counter() - self._begin
        self._begin = time.perf_counter()
        self._write(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, pl_module)

    def _write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = getattr(trainer, "datamodule", None)
        if not trainer.is_global_zero or not isinstance(data, TaskData):
            return
        if not isinstance(pl_module, Task):
            return
        config = resolved_config(trainer)
        previous = self._metrics if self.record is None else self.record.metrics
        self.record = RunRecord(
            name=f"{pl_module.domain} {type(data).__name__} {arm(pl_module)}",
            domain=pl_module.domain,
            arm=arm(pl_module),
            seed=int(config.get("seed_everything") or 0),
            config=config,
            versions=versions(),
            environment=environment(),
            data=describe(data),
            epochs=self._epochs,
            metrics=previous | _metrics(trainer),
            parameters=sum(p.numel() for p in pl_module.parameters() if p.requires_grad),
            flops_per_example=self._flops,
            samples_per_second=self._examples / self._train_seconds if self._train_seconds else 0.0,
            outside_share=self._outside_share(),
            peak_memory_bytes=peak_memory(),
            wall_seconds=self._wall,
            git_commit=git_commit(),
            started=self._started,
        )
        folder = Path(trainer.log_dir or trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        self.record.save(folder / "record.json")

    def _outside_share(self) -> float | None:
        """Share of the training time outside forward and backward; unknown where work is only queued."""
        if not self._train_seconds or torch.cuda.is_initialized():
            return None
        return max(0.0, 1 - self._gradient_seconds / self._train_seconds)


def _metrics(trainer: Trainer) -> dict[str, float | None]:
    """The last ones that were logged."""
    return {name: float(value) for name, value in trainer.callback_metrics.items() if "/" in name}


def arm(module: Task) -> str:
    """``uniform`` when all attention weighs its keys alike, ``attention`` otherwise."""
    scales = [part.scale for part in module.modules() if isinstance(part, MultiHeadAttention)]
    return "uniform" if scales and all(scale == 0 for scale in scales) else "attention"


def flops_per_example(module: Task, batch: Any) -> float:
    """Floating-point operations of one forward pass, by torch's counter, over the examples of a batch.

    Counted with the ``math`` twin of attention, whose products the counter knows on every device.
    """
    parts = [part for part in module.modules() if isinstance(part, MultiHeadAttention)]
    backends = [part.backend for part in parts]
    training = module.training
    module.eval()
    for part in parts:
        part.backend = "math"
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            module(batch.items)
    finally:
        for part, backend in zip(parts, backends, strict=True):
            part.backend = backend
        module.train(training)
    return float(counter.get_total_flops()) / len(batch.items)


def describe(data: TaskData) -> DataRecord:
    """The data of a run for its record."""
    summary = (type(data).__doc__ or "").strip().splitlines()
    return DataRecord(
        name=type(data).__name__,
        synthetic=data.synthetic,
        fingerprint=data.fingerprint(),
        description=summary[0] if summary else "",
        counts={name: len(examples) for name, examples in data.sets.items()},
    )


def resolved_config(trainer: Trainer) -> dict[str, Any]:
    """The configuration that LightningCLI resolved, as plain data; empty without a command line."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set by Trainer
        if isinstance(callback, SaveConfigCallback):
            text = callback.parser.dump(callback.config, skip_none=False)
            return dict(yaml.safe_load(text))
    return {}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter to a result."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def environment() -> dict[str, Any]:
    """What matters to speed."""
    return {
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def cpu_name() -> str:
    """The processor's name, where the system tells it."""
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def forget_peak_memory() -> None:
    """Let :func:`peak_memory` count from now on, where the system can do that (Linux and CUDA)."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # see proc(5)


def peak_memory() -> int:
    """Highest memory in use, in bytes: of the accelerator where there is one, else of the process."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def git_commit() -> str | None:
    """The commit of the code, with ``+`` when there are changes; None outside a checkout."""
    folder = Path(__file__).parent

    def ask(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return ask("rev-parse", "HEAD") + ("+" if ask("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
