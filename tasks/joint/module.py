"""One trunk, several senses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy

from mmattn.adapters.audio import AudioFrames
from mmattn.adapters.base import Adapter
from mmattn.adapters.text import TextTokens
from mmattn.builders import build_classifier
from mmattn.encoder import Encoder
from mmattn.tokens import TokenBatch
from mmattn.training.data import Batch, TaskData
from mmattn.training.optim import AdamWCosine
from mmattn.training.task import Task
from tasks.joint.data import Items, JointBatch, JointData
from tasks.joint.weighting import FixedWeights, Weighting


@dataclass
class Sense:
    """What a sense has for itself, on both sides of the trunk.

    Args:
        adapter: raw items -> tokens, of the trunk's width.
        augment: what is done to log-mel frames in training, e.g. SpecAugment; for ``AudioFrames`` only.
        pool: how the head pools the tokens: ``"attention"`` or ``"mean"``.
        pool_heads: heads of the pooling attention.
        head_dropout: dropout on the pooled features.
        label_smoothing: of the cross-entropy, in [0, 1).
    """

    adapter: Adapter
    augment: nn.Module | None = None
    pool: Literal["attention", "mean"] = "attention"
    pool_heads: int = 4
    head_dropout: float = 0.0
    label_smoothing: float = 0.0


class JointClassification(Task):
    """One encoder between the adapters and the classification heads of several senses.

    A step sends the batch of each sense through its adapter, the one encoder and its head; the losses are weighted
    and added. What is said of a sense is logged by its name, ``val/vision_accuracy`` or ``test_text/accuracy``, and
    the mean over the senses as ``val/accuracy``.

    Args:
        encoder: the trunk: tokens -> tokens.
        class_names: sense -> names of its classes; the command line takes them from the data.
        vision: adapter and head of pictures; ``None`` leaves the sense out.
        speech: those of recordings; likewise.
        text: those of texts; likewise.
        weighting: of the losses; ``None`` adds them up.
        frozen: parts that are not trained, by the names of the modules: ``"encoder"``, ``"adapters.vision"``,
            ``"heads.text"``, ``"encoder.blocks.0"``, ... They stay as in evaluation, without dropout.
        trunk: checkpoint of a joint model, whose encoder this one takes up before training.
        optimizer: optimiser and schedule.

    Raises:
        ValueError: a sense is given without classes or the reverse, an adapter has another width than the encoder,
            or a frozen part does not exist.
        FileNotFoundError: there is no such checkpoint.
    """

    domain = "joint"
    data_class: ClassVar[Any] = JointData
    from_data: ClassVar[dict[str, str]] = {"class_names": "class_names"}

    def __init__(
        self,
        encoder: Encoder,
        class_names: dict[str, list[str]],
        vision: Sense | None = None,
        speech: Sense | None = None,
        text: Sense | None = None,
        weighting: Weighting | None = None,
        frozen: Sequence[str] = (),
        trunk: str | None = None,
        optimizer: AdamWCosine = AdamWCosine(),  # noqa: B008  # frozen, and jsonargparse shows its defaults
    ) -> None:
        super().__init__(optimizer)
        given = {"vision": vision, "speech": speech, "text": text}
        self.senses = {name: sense for name, sense in given.items() if sense is not None}
        self.class_names = {name: list(names) for name, names in class_names.items()}
        self._check(encoder)
        self.encoder = encoder
        self.adapters = nn.ModuleDict({name: sense.adapter for name, sense in self.senses.items()})
        self.augments = nn.ModuleDict({n: s.augment for n, s in self.senses.items() if s.augment is not None})
        self.heads = nn.ModuleDict({name: self._head(name) for name in self.senses})
        self.weighting = FixedWeights() if weighting is None else weighting
        self.accuracies = nn.ModuleDict({f"val_{name}": self._accuracy(name) for name in self.senses})
        if trunk is not None:
            self.encoder.load_state_dict(trunk_of(trunk))
        self.frozen = list(frozen)
        for part in self._frozen_parts():
            part.requires_grad_(False)

    def _check(self, encoder: Encoder) -> None:
        if set(self.senses) != set(self.class_names):
            raise ValueError(
                "model and data must have the same senses: "
                f"got {', '.join(self.senses) or 'none'} and {', '.join(self.class_names) or 'none'}"
            )
        for name, sense in self.senses.items():
            if sense.adapter.embed_dim != encoder.embed_dim:
                raise ValueError(
                    f"adapter and encoder must have the same embed_dim: "
                    f"got {sense.adapter.embed_dim} for {name} and {encoder.embed_dim}"
                )
            if not 0 <= sense.label_smoothing < 1:
                raise ValueError(
                    f"label_smoothing must lie in [0, 1): got {sense.label_smoothing} for {name}"
                )
            if sense.augment is not None and not isinstance(sense.adapter, AudioFrames):
                raise ValueError(f"augment needs the adapter AudioFrames: got {type(sense.adapter).__name__}")

    def _head(self, name: str) -> nn.Module:
        sense, classes = self.senses[name], len(self.class_names[name])
        return build_classifier(
            sense.adapter.embed_dim,
            classes,
            pool=sense.pool,
            num_heads=sense.pool_heads,
            dropout=sense.head_dropout,
        )

    def _accuracy(self, name: str) -> MulticlassAccuracy:
        return MulticlassAccuracy(len(self.class_names[name]), average="micro")

    def _frozen_parts(self) -> list[nn.Module]:
        modules = dict(self.named_modules())
        for name in self.frozen:
            if name not in modules or not name:
                known = [
                    "encoder",
                    *(f"{kind}.{sense}" for kind in ("adapters", "heads") for sense in self.senses),
                ]
                raise ValueError(f"frozen must name parts such as {', '.join(known)}: got {name!r}")
        return [modules[name] for name in self.frozen]

    def train(self, mode: bool = True) -> JointClassification:
        """Train all but the frozen parts."""
        super().train(mode)
        for part in self._frozen_parts():
            part.eval()
        return self

    def check_data(self, data: TaskData) -> None:
        """Refuse waves of another sample rate than the adapter's."""
        for name, part in cast(JointData, data).parts.items():
            rate, adapter = getattr(part, "sample_rate", None), self.adapters[name]
            if rate is not None and isinstance(adapter, AudioFrames) and rate != adapter.sample_rate:
                raise ValueError(
                    "data and adapter must have the same sample_rate: "
                    f"got {rate} and {adapter.sample_rate} samples a second"
                )

    def prepare(self, data: TaskData, stage: str) -> None:
        """Train tokenizers that need it, and make one accuracy for each test set."""
        assert isinstance(data, JointData)
        for sense, name in data.tests:
            if name not in self.accuracies:
                self.accuracies[name] = self._accuracy(sense)
        for sense, adapter in self.adapters.items():
            if isinstance(adapter, TextTokens) and not adapter.tokenizer.ready:
                adapter.tokenizer.train(data.parts[sense].training_texts())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the recipe in the checkpoint, without the other checkpoint that the trunk came from."""
        super().on_save_checkpoint(checkpoint)
        if self.recipe is not None:
            arguments = {**self.recipe["init_args"], "trunk": None}
            checkpoint["recipe"] = {**self.recipe, "init_args": arguments}

    def tokens(self, sense: str, items: Any) -> TokenBatch:
        """Raw items of a sense -> tokens; log-mel frames are augmented in training."""
        adapter = self.adapters[sense]
        if sense not in self.augments:
            return cast(TokenBatch, adapter(items))
        assert isinstance(adapter, AudioFrames)
        return adapter.embed(self.augments[sense](adapter.features(items)))

    def logits(self, sense: str, items: Any) -> Tensor:
        """Logits ``[B, C]`` of raw items of a sense, in float32."""
        hidden = cast(TokenBatch, self.encoder(self.tokens(sense, items)))
        return cast(Tensor, self.heads[sense](hidden)).float()

    def forward(self, items: Items) -> dict[str, Tensor]:
        """Logits ``[B, C]`` of each sense that there are items of."""
        return {sense: self.logits(sense, of) for sense, of in items.by_sense.items()}

    def training_step(self, batch: JointBatch, batch_index: int) -> Tensor:
        """The weighted losses of one step."""
        losses = {
            sense: F.cross_entropy(
                logits, batch.labels[sense], label_smoothing=self.senses[sense].label_smoothing
            )
            for sense, logits in self(batch.items).items()
        }
        loss: Tensor = self.weighting(losses)
        options: dict[str, Any] = {"on_step": False, "on_epoch": True, "batch_size": len(batch.items)}
        self.log("train/loss", loss, prog_bar=True, **options)
        self.log_dict({f"train/{sense}_loss": of for sense, of in losses.items()}, **options)
        return loss

    def validation_step(self, batch: Batch, batch_index: int, dataloader_idx: int = 0) -> None:
        """Loss and accuracy of one sense."""
        sense = list(self.senses)[dataloader_idx]
        self._evaluate(f"val_{sense}", sense, batch, f"val/{sense}_")

    def on_validation_epoch_end(self) -> None:
        """The mean accuracy over the senses."""
        values = [
            cast(MulticlassAccuracy, self.accuracies[f"val_{sense}"]).compute() for sense in self.senses
        ]
        self.log("val/accuracy", torch.stack(values).mean(), prog_bar=True)

    def test_step(self, batch: Batch, batch_index: int, dataloader_idx: int = 0) -> None:
        """Loss and accuracy on each test set of each sense."""
        data = cast(JointData, self.trainer.datamodule)  # type: ignore[attr-defined]  # set by Trainer
        sense, name = data.tests[dataloader_idx]
        self._evaluate(name, sense, batch, f"{name}/")

    def _evaluate(self, name: str, sense: str, batch: Batch, place: str) -> None:
        logits = self.logits(sense, batch.items)
        accuracy = cast(MulticlassAccuracy, self.accuracies[name])
        accuracy.update(logits, batch.labels)
        options: dict[str, Any] = {"batch_size": len(batch.labels), "add_dataloader_idx": False}
        self.log(f"{place}loss", F.cross_entropy(logits, batch.labels), **options)
        self.log(f"{place}accuracy", accuracy, **options)

    def predict_step(self, batch: Batch, batch_index: int, dataloader_idx: int = 0) -> list[dict[str, Any]]:
        """For each item its sense, its most probable class and all probabilities."""
        sense = list(self.senses)[dataloader_idx]
        names = self.class_names[sense]
        return [
            {"sense": sense, "label": names[max(range(len(row)), key=row.__getitem__)],
             "probabilities": dict(zip(names, row, strict=True))}
            for row in self.logits(sense, batch.items).softmax(-1).tolist()
        ]  # fmt: skip


def trunk_of(checkpoint: str) -> dict[str, Tensor]:
    """The encoder's parameters in a checkpoint of :class:`JointClassification`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has no encoder.
    """
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
    place = "encoder."
    found = {name.removeprefix(place): value for name, value in state.items() if name.startswith(place)}
    if not found:
        raise ValueError(f"trunk must be a checkpoint of a model with an encoder: got {checkpoint}")
    return found
