"""Translation of texts: training with teacher forcing, judged by beam search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, cast

import sacrebleu
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from mmattn import Decoder, DecoderBlock, Encoder, TextTokens, TokenBatch
from mmattn.training.data import PairBatch, TaskData
from mmattn.training.optim import AdamWCosine
from mmattn.training.task import Task
from mmattn.translation import Translator
from tasks.text.translation.data.parallel import ParallelData


class Translation(Task):
    """Translate texts with an encoder and a decoder.

    ``val/loss`` is the cross-entropy per target token without label smoothing; translations of the validation set
    and of the test sets are scored by sacreBLEU (13a, cased; Post 2018), chrF and the share that is exactly right,
    all as fractions.

    Args:
        source: texts -> tokens. A tokenizer that learns does so from the training texts, and where the target
            shares it from their translations, too.
        encoder: of the same width.
        decoder: with cross-attention; ``build_decoder(context=True)`` makes one.
        target: translations -> tokens; ``None`` shares vocabulary and embedding with the source.
        optimizer: optimiser and schedule.
        tied: whether the output takes the target's embedding as its weights.
        attention: ``"uniform"`` is the control: the same model, whose cross-attention weighs all tokens of the
            source alike.
        label_smoothing: of the training loss, in [0, 1).
        beam_size: hypotheses kept for each text; 1 is greedy decoding.
        length_penalty: exponent of the length in :func:`mmattn.translation.beam_search`.
        max_length: most tokens of a translation; ``None`` takes 20 and twice those of the text.
        decoding_batch: texts that are translated together.
        translate_every: epochs between translations of the validation set; 0: only after the last.

    Raises:
        ValueError: widths differ, the decoder has no cross-attention, or a number is out of range.
    """

    domain = "text"
    data_class: ClassVar[Any] = ParallelData

    def __init__(
        self,
        source: TextTokens,
        encoder: Encoder,
        decoder: Decoder,
        target: TextTokens | None = None,
        optimizer: AdamWCosine = AdamWCosine(),  # noqa: B008  # frozen, and jsonargparse shows its defaults
        tied: bool = True,
        attention: Literal["softmax", "uniform"] = "softmax",
        label_smoothing: float = 0.1,
        beam_size: int = 5,
        length_penalty: float = 1.0,
        max_length: int | None = None,
        decoding_batch: int = 64,
        translate_every: int = 0,
    ) -> None:
        super().__init__(optimizer)
        _check_numbers(label_smoothing, beam_size, length_penalty, translate_every)
        self.translator = Translator(source, encoder, target, decoder, tied)
        if attention not in ("softmax", "uniform"):
            raise ValueError(f"attention must be 'softmax' or 'uniform': got {attention!r}")
        if attention == "uniform":
            for block in decoder.blocks:
                cross = cast(DecoderBlock, block).cross_attention
                assert cross is not None
                cross.scale = 0.0
        self.label_smoothing = label_smoothing
        self.beam_size = beam_size
        self.length_penalty = length_penalty
        self.max_length = max_length
        self.decoding_batch = decoding_batch
        self.translate_every = translate_every
        self._found: dict[str, list[tuple[str, str]]] = {}

    def forward(self, items: Sequence[str], targets: Sequence[str] | None = None) -> TokenBatch:
        """Logits ``[T, V + 1]`` of the targets' tokens; without targets the encoder's tokens of the items, to which
        the decoder attends."""
        return self.translator.encode(items) if targets is None else self.translator(items, targets)

    def prepare(self, data: TaskData, stage: str) -> None:
        """Train the tokenizers that need it."""
        assert isinstance(data, ParallelData)
        source, target = self.translator.source.tokenizer, self.translator.target.tokenizer
        if not source.ready:
            source.train(data.training_texts() + (data.training_targets() if source is target else []))
        if not target.ready:
            target.train(data.training_targets())

    def training_step(self, batch: PairBatch, batch_index: int) -> Tensor:
        """Smoothed cross-entropy of one batch."""
        loss = self.translator.loss(batch.items, batch.targets, self.label_smoothing)
        self.log(
            "train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch.targets)
        )
        return loss

    def validation_step(self, batch: PairBatch, batch_index: int) -> None:
        """Loss on the validation set and, where it is time for it, translations."""
        self._log_loss("val", batch)
        if self._translates_now():
            self._translate("val", batch)

    def test_step(self, batch: PairBatch, batch_index: int, dataloader_idx: int = 0) -> None:
        """Loss and translations of each test set."""
        data = cast(ParallelData, self.trainer.datamodule)  # type: ignore[attr-defined]  # set by Trainer
        name = data.test_names[dataloader_idx]
        self._log_loss(name, batch)
        self._translate(name, batch)

    def on_validation_epoch_end(self) -> None:
        """Score what was translated."""
        self._log_scores()

    def on_test_epoch_end(self) -> None:
        """Score what was translated, each test set on its own."""
        self._log_scores()

    def predict_step(self, batch: PairBatch, batch_index: int) -> list[dict[str, Any]]:
        """Each text with its translation."""
        translations = self.translate(batch.items)
        return [
            {"text": text, "translation": translation}
            for text, translation in zip(batch.items, translations, strict=True)
        ]

    def translate(self, texts: Sequence[str]) -> list[str]:
        """Translations by beam search; after training in bf16-mixed with bfloat16 weights."""
        trainer = self._trainer
        dtype = torch.bfloat16 if trainer is not None and trainer.precision == "bf16-mixed" else None
        return self.translator.translate(
            texts, self.beam_size, self.length_penalty, self.max_length, self.decoding_batch, dtype
        )

    def _translates_now(self) -> bool:
        trainer = self.trainer
        if trainer.state.fn != TrainerFn.FITTING:
            return True
        if trainer.sanity_checking:
            return False
        epoch = trainer.current_epoch + 1
        due = self.translate_every > 0 and epoch % self.translate_every == 0
        return due or epoch == trainer.max_epochs

    def _log_loss(self, name: str, batch: PairBatch) -> None:
        hidden, labels = self.translator.hidden(batch.items, batch.targets)
        loss = self.translator.cross_entropy(hidden.values, labels)
        self.log(f"{name}/loss", loss, prog_bar=True, batch_size=len(labels), add_dataloader_idx=False)

    def _translate(self, name: str, batch: PairBatch) -> None:
        pairs = zip(self.translate(batch.items), batch.targets, strict=True)
        self._found.setdefault(name, []).extend(pairs)

    def _log_scores(self) -> None:
        for name, pairs in self._found.items():
            for metric, value in scores([pair[0] for pair in pairs], [pair[1] for pair in pairs]).items():
                self.log(f"{name}/{metric}", value, prog_bar=metric == "bleu")
        self._found.clear()


def scores(translations: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """BLEU (13a, cased) and chrF by sacrebleu, and the share of translations equal to the reference; all in [0, 1].

    Example:
        >>> scores(["a dog runs on grass"], ["a dog runs on grass"])
        {'bleu': 1.0, 'chrf': 1.0, 'exact': 1.0}
    """
    translations, whole = list(translations), [list(references)]
    right = sum(found == wanted for found, wanted in zip(translations, whole[0], strict=True))
    return {
        "bleu": round(sacrebleu.corpus_bleu(translations, whole).score / 100, 6),
        "chrf": round(sacrebleu.corpus_chrf(translations, whole).score / 100, 6),
        "exact": right / len(translations),
    }


def _check_numbers(
    label_smoothing: float, beam_size: int, length_penalty: float, translate_every: int
) -> None:
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must lie in [0, 1): got {label_smoothing}")
    if beam_size < 1:
        raise ValueError(f"beam_size must be at least 1: got {beam_size}")
    if length_penalty < 0:
        raise ValueError(f"length_penalty must not be negative: got {length_penalty}")
    if translate_every < 0:
        raise ValueError(f"translate_every must not be negative: got {translate_every}")
