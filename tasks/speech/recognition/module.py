"""Speech recognition by CTC, judged by word and character error rates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, cast

from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.text import CharErrorRate, WordErrorRate

from mmattn import AudioFrames, Encoder, TokenBatch
from mmattn.recognition import SpeechRecognizer, Units, beam_search, greedy
from mmattn.recognition.ctc import tokens_needed
from mmattn.training.data import PairBatch, TaskData
from mmattn.training.optim import AdamWCosine
from mmattn.training.task import Task
from tasks.checks import Problems
from tasks.speech.module import SpecAugment
from tasks.speech.recognition.data.transcribed import RecognitionData, Spoken


class SpeechRecognition(Task):
    """Waves to text: adapter, encoder, and units by CTC.

    Units that learn from texts learn from the transcripts of ``train``. Error rates are shares, ``val/wer`` and
    ``val/cer`` and the same of each test set; they can exceed 1.

    Args:
        adapter: waves -> tokens.
        encoder: tokens -> tokens; of the same width as the adapter.
        units: what is written: characters or pieces of words.
        optimizer: optimiser and schedule.
        spec_augment: masking of the log-mel frames in training; ``None`` masks nothing.
        frame_augment: other changes of the packed log-mel frames in training, in this order and before the masking,
            such as :class:`~tasks.speech.frames.VocalTractWarp`.
        dropout: on the encoder's output.
        beam_size: prefixes that the beam search keeps in ``test`` and ``predict``; ``None`` decodes greedily, as
            validation always does.

    Raises:
        ValueError: the widths of adapter and encoder differ, or beam_size is below 1.
    """

    domain = "speech"
    data_class: ClassVar[Any] = RecognitionData

    def __init__(
        self,
        adapter: AudioFrames,
        encoder: Encoder,
        units: Units,
        optimizer: AdamWCosine = AdamWCosine(),  # noqa: B008  # frozen, and jsonargparse shows its defaults
        spec_augment: SpecAugment | None = None,
        frame_augment: Sequence[nn.Module] = (),
        dropout: float = 0.0,
        beam_size: int | None = None,
    ) -> None:
        super().__init__(optimizer)
        if beam_size is not None and beam_size < 1:
            raise ValueError(f"beam_size must be at least 1: got {beam_size}")
        self.recognizer = SpeechRecognizer(adapter, encoder, units, dropout)
        self.frame_augment = nn.ModuleList(frame_augment)
        self.spec_augment = spec_augment
        self.beam_size = beam_size
        self.error_rates = nn.ModuleDict({"val": _error_rates()})

    @property
    def adapter(self) -> AudioFrames:
        """Waves -> tokens."""
        return self.recognizer.adapter

    def check_data(self, data: TaskData) -> None:
        """Refuse waves of another sample rate than the adapter's."""
        rate, expected = cast(RecognitionData, data).sample_rate, self.adapter.sample_rate
        if rate != expected:
            raise ValueError(
                f"data and adapter must have the same sample_rate: got {rate} and {expected} samples a second"
            )

    def prepare(self, data: TaskData, stage: str) -> None:
        """Learn units and a normalisation that need it, refuse transcripts that cannot be learnt, make the metrics.

        Raises:
            ValueError: transcripts have more units than their clips have frames, or others than those of
                ``train``; the message names all of them.
        """
        assert isinstance(data, RecognitionData)
        for name in data.test_names:
            if name not in self.error_rates:
                self.error_rates[name] = _error_rates().to(self.device)
        units = self.recognizer.units
        if not units.ready and stage != "predict":
            units.train(data.training_targets())
        if not self.adapter.ready and stage != "predict":
            train = data.sets["train"]
            self.adapter.fit(train[index].item for index in range(len(train)))
        if stage == "fit":
            self.check_transcripts(data)

    def check_transcripts(self, data: RecognitionData) -> None:
        """Refuse transcripts of ``train`` and ``val`` that cannot be learnt.

        Raises:
            ValueError: a clip is too short for its units, or a unit is unknown; the message names all of them.
        """
        problems = Problems("every transcript must be of known units, and its clip must have room for them")
        for name in ("train", "val"):
            for spoken in data.sets[name].spoken():
                reason = self._unfit(spoken)
                if reason is not None:
                    problems.add(spoken.name, reason)
        problems.raise_any()

    def _unfit(self, spoken: Spoken) -> str | None:
        """Why a transcript cannot be learnt; ``None`` when it can."""
        try:
            (ids,) = self.recognizer.units.encode([spoken.text])
        except ValueError as error:
            return str(error)
        need, have = tokens_needed(ids), self.adapter.num_tokens(spoken.samples)
        return None if need <= have else f"{need} frames for its units, of {have}"

    def forward(self, items: Sequence[Tensor]) -> TokenBatch:
        """Logits ``[T, V]`` (float32) of waves, packed; in training of changed and masked frames."""
        frames = self.adapter.features(items)
        for augment in self.frame_augment:
            frames = augment(frames)
        if self.spec_augment is not None:
            frames = self.spec_augment(frames)
        return self.recognizer.logits_of(frames)

    def loss(self, logits: TokenBatch, targets: Sequence[str]) -> Tensor:
        """CTC loss of transcripts."""
        return self.recognizer.loss(logits, self.recognizer.units.encode(targets))

    def texts(self, logits: TokenBatch, beam_size: int | None = None) -> list[str]:
        """The text of each clip, its words parted by single spaces."""
        if beam_size is None:
            ids = greedy(logits)
        else:
            ids = [beam_search(part.values, beam_size)[0].ids for part in logits.split()]
        return [" ".join(self.recognizer.units.decode(sequence).split()) for sequence in ids]

    def training_step(self, batch: PairBatch, batch_index: int) -> Tensor:
        """CTC loss of one batch."""
        loss = self.loss(self(batch.items), batch.targets)
        self.log(
            "train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch.targets)
        )
        return loss

    def validation_step(self, batch: PairBatch, batch_index: int) -> None:
        """Loss and error rates on the validation set."""
        logits = self(batch.items)
        self.log("val/loss", self.loss(logits, batch.targets), batch_size=len(batch.targets))
        self._judge("val", self.texts(logits), batch.targets)

    def test_step(self, batch: PairBatch, batch_index: int, dataloader_idx: int = 0) -> None:
        """Error rates on each test set."""
        data = cast(RecognitionData, self.trainer.datamodule)  # type: ignore[attr-defined]  # set by Trainer
        texts = self.texts(self(batch.items), self.beam_size)
        self._judge(data.test_names[dataloader_idx], texts, batch.targets)

    def _judge(self, name: str, texts: list[str], targets: Sequence[str]) -> None:
        for rate, module in cast(nn.ModuleDict, self.error_rates[name]).items():
            metric = cast(Metric, module)
            metric.update(texts, list(targets))
            self.log(
                f"{name}/{rate}",
                metric,
                prog_bar=rate == "wer",
                batch_size=len(targets),
                add_dataloader_idx=False,
            )

    def predict_step(self, batch: PairBatch, batch_index: int) -> list[dict[str, Any]]:
        """The text of each item."""
        return [{"text": text} for text in self.texts(self(batch.items), self.beam_size)]


def _error_rates() -> nn.ModuleDict:
    return nn.ModuleDict({"wer": WordErrorRate(), "cer": CharErrorRate()})
