"""Predictions as a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TextIO

from lightning import Callback, LightningModule, Trainer


class WritePredictions(Callback):
    """Writes one JSON object for each item to ``predictions.jsonl`` in the run's log folder."""

    def __init__(self) -> None:
        self._file: TextIO | None = None
        self._count = 0

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        folder = Path(trainer.log_dir or trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / "predictions.jsonl").open("w", encoding="utf-8")
        self._count = 0

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        assert self._file is not None
        for row in outputs:
            self._file.write(json.dumps({"index": self._count, **row}, ensure_ascii=False) + "\n")
            self._count += 1

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self._file is not None
        self._file.close()
        print(f"{self._count} predictions: {self._file.name}")
