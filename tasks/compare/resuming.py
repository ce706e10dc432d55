"""A training that is killed goes on from its last epoch as if nothing had happened."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer


class KeepEpochs(Callback):
    """Keeps the whole state after each epoch, that of chance included, in one file.

    A run that goes on from it draws the same batches, scenes and dropout as one that was never stopped, with loaders
    that work in the main process. Put it behind all other callbacks, whose states it keeps.

    Args:
        path: of the checkpoint; there is only ever a whole one.
        loaders: that a training step draws from.
    """

    def __init__(self, path: Path, loaders: int = 1) -> None:
        self.path = path
        self.loaders = loaders
        self._chance: dict[str, Any] | None = None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        part = self.path.with_suffix(".part")
        trainer.save_checkpoint(part)
        part.replace(self.path)

    def state_dict(self) -> dict[str, Any]:
        """The states of all sources of chance."""
        numbers: dict[str, Any] = np.random.get_state(legacy=False)  # noqa: NPY002
        return {
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
            "numpy": {**numbers, "state": {**numbers["state"], "key": numbers["state"]["key"].tolist()}},
            "python": list(random.getstate()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep the states until training begins: until then, much is drawn that is drawn again."""
        self._chance = state

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        state, self._chance = self._chance, None
        if state is None:
            return
        torch.set_rng_state(state["torch"])
        if state["cuda"]:
            torch.cuda.set_rng_state_all(state["cuda"])
        kept = state["numpy"]
        key = np.array(kept["state"]["key"], dtype=np.uint32)
        np.random.set_state({**kept, "state": {**kept["state"], "key": key}})  # noqa: NPY002
        version, numbers, gauss = state["python"]
        random.setstate((version, tuple(numbers), gauss))
        # A loader's iterator draws one number when it is made: after the checkpoint in a run that goes on, before
        # this hook in one that takes up.
        for _ in range(self.loaders):
            torch.empty((), dtype=torch.int64).random_()
