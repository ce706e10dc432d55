"""What every Lightning task shares: its optimiser, its clipping, and a checkpoint that says how it was built."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from lightning import LightningModule
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn
from torch.optim import Optimizer

from mmattn.training.data import TaskData
from mmattn.training.optim import AdamWCosine
from mmattn.training.precision import slow_precision


class Task(LightningModule):
    """Base of all tasks; ``forward`` takes the raw items of a batch.

    Args:
        optimizer: optimiser and schedule.

    Attributes:
        recipe: class and arguments as plain data, from the command line; it goes into each checkpoint under
            ``"recipe"``, so that a checkpoint can be built again without its configuration.
    """

    domain: ClassVar[Literal["vision", "speech", "text", "joint"]]
    #: The kind of data that it takes: a subclass of TaskData.
    data_class: ClassVar[Any] = TaskData
    #: Arguments that the command line takes from the data: argument -> attribute of the data.
    from_data: ClassVar[dict[str, str]] = {}

    def __init__(self, optimizer: AdamWCosine) -> None:
        super().__init__()
        self.optimizer = optimizer
        self.recipe: dict[str, Any] | None = None

    def check_data(self, data: TaskData) -> None:
        """Refuse data that the model would misread, before anything is trained; a task says how that can be.

        Raises:
            ValueError: the data do not fit; the message says the rule and the values.
        """

    def prepare(self, data: TaskData, stage: str) -> None:
        """Let learn from the data what is not trained by gradients, such as a tokenizer, and refuse what cannot be
        learnt. Called by :meth:`setup`, and by the command line before it, so that a refusal is one sentence; doing
        it again changes nothing.

        Args:
            data: of the run.
            stage: ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``.

        Raises:
            ValueError: the data cannot be learnt; the message says the rule and the values.
        """

    def setup(self, stage: str) -> None:
        """Prepare for the trainer's data module, if it has one of the right kind."""
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, self.data_class):
            self.prepare(data, stage)

    def on_fit_start(self) -> None:
        """Warn of a precision that makes training on this CPU slower; what was asked for stays."""
        if self.device.type == "cpu" and (told := slow_precision(str(self.trainer.precision))):
            rank_zero_warn(told)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the recipe, and tokenizers and the like as they are: a copy of the module that averages its weights
        may have been made before they learnt."""
        checkpoint["recipe"] = self.recipe
        learnt = {name: value for name, value in self.state_dict().items() if name.endswith("_extra_state")}
        checkpoint["state_dict"].update(learnt)

    def configure_optimizers(self) -> Any:
        """The optimiser, with its schedule stepped after each step."""
        total = int(self.trainer.estimated_stepping_batches)
        optimizer, schedule = self.optimizer.configure(self, total, fused=not self._scales_gradients)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @property
    def _scales_gradients(self) -> bool:
        return self.trainer.precision == "16-mixed"

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as asked; Lightning refuses to clip for a fused optimiser under any mixed precision, though only
        float16 scales its gradients."""
        by_norm = gradient_clip_val and gradient_clip_algorithm in (None, "norm")
        if by_norm and not self._scales_gradients:
            nn.utils.clip_grad_norm_(self.parameters(), float(gradient_clip_val or 0.0))
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
