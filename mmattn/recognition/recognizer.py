"""SpeechRecognizer: waves to text by CTC."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmattn.adapters.audio import AudioFrames, Waves
from mmattn.dropout import Dropout
from mmattn.encoder import Encoder
from mmattn.recognition.ctc import check_fits, ctc_loss
from mmattn.recognition.decoding import beam_search, greedy
from mmattn.recognition.units import Units
from mmattn.tokens import TokenBatch


class SpeechRecognizer(nn.Module):
    """Waves -> log-mel frames -> encoder -> logits of units at every token (CTC, Graves et al. 2006).

    Nothing is padded, so a transcript does not depend on what else is in the batch. The units are saved in the
    module's ``state_dict`` as text.

    Args:
        adapter: waves to tokens.
        encoder: :func:`mmattn.conformer.build_conformer` or :func:`mmattn.build_encoder` make one.
        units: characters or pieces of words; they may be trained later, before the first text is encoded.
        dropout: on the encoder's output.

    Raises:
        ValueError: the widths of adapter and encoder differ.

    Example:
        >>> from mmattn import build_encoder
        >>> from mmattn.recognition import CharacterUnits
        >>> adapter, units = AudioFrames(8, sample_rate=4000, n_mels=20), CharacterUnits("abc ")
        >>> model = SpeechRecognizer(adapter, build_encoder(8, depth=1, num_heads=2), units).eval()
        >>> model([torch.randn(4000), torch.randn(2000)])
        TokenBatch(2 sequences, 39 tokens, lengths 13..26, values [39, 5] float32, coords [39, 1], cpu)
    """

    def __init__(self, adapter: AudioFrames, encoder: Encoder, units: Units, dropout: float = 0.0) -> None:
        super().__init__()
        if adapter.embed_dim != encoder.embed_dim:
            raise ValueError(
                "adapter and encoder must have the same embed_dim: "
                f"got {adapter.embed_dim} and {encoder.embed_dim}"
            )
        self.adapter = adapter
        self.encoder = encoder
        self.units = units
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(encoder.embed_dim, units.vocab_size)

    def forward(self, waves: Waves) -> TokenBatch:
        """Logits ``[T', V]`` (float32) of B waves ``[S]`` of any lengths."""
        return self.logits_of(self.adapter.features(waves))

    def logits_of(self, frames: TokenBatch) -> TokenBatch:
        """Logits ``[T', V]`` (float32) of log-mel frames ``[T, n_mels]``, as ``adapter.features`` gives them.

        Between the two is where SpecAugment belongs.
        """
        tokens = self.adapter.embed(frames)
        encoded = self.encoder(tokens)
        return tokens.replace(self.head(self.dropout(encoded.values)).float())

    def loss(self, logits: TokenBatch, targets: Sequence[Sequence[int]]) -> Tensor:
        """CTC loss of target ids, as :func:`~mmattn.recognition.ctc_loss`."""
        return ctc_loss(logits, targets)

    def check_fits(
        self, samples: Sequence[int], texts: Sequence[str], names: Sequence[str] | None = None
    ) -> None:
        """Refuse waves too short for their texts before training: see :func:`~mmattn.recognition.check_fits`.

        Args:
            samples: of each wave.
            texts: of each wave.
            names: what to call the waves in the message.

        Raises:
            ValueError: a wave is too short for its text.
        """
        tokens = [self.adapter.num_tokens(count) for count in samples]
        check_fits(tokens, self.units.encode(texts), names)

    @torch.inference_mode()
    def transcribe(self, waves: Waves, beam_size: int | None = None) -> list[str]:
        """The texts of waves; call ``eval()`` first.

        Args:
            waves: as in :meth:`forward`.
            beam_size: prefixes that the beam search keeps; ``None`` decodes greedily.
        """
        logits = self(waves)
        if beam_size is None:
            ids = greedy(logits)
        else:
            ids = [beam_search(part.values, beam_size)[0].ids for part in logits.split()]
        return [self.units.decode(sequence) for sequence in ids]

    def get_extra_state(self) -> dict[str, str]:
        """The units, so that a checkpoint can be used without the training texts."""
        return {"units": self.units.state()}

    def set_extra_state(self, state: dict[str, str]) -> None:
        """Take up the units of a checkpoint."""
        self.units.load_state(state["units"])
