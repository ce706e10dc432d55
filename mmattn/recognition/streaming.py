"""Recognition of a wave that comes in chunks."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mmattn.adapters.audio_stream import AudioStream
from mmattn.conformer import Conformer
from mmattn.recognition.recognizer import SpeechRecognizer
from mmattn.recognition.units import BLANK


class Heard(NamedTuple):
    """What a chunk of a wave added.

    Attributes:
        logits: ``[n, V]`` of the tokens that became complete; n may be 0.
        text: what they add to the text, decoded greedily.
    """

    logits: Tensor
    text: str


class Stream:
    """Follows one wave chunk by chunk; together the logits are those of the whole wave at once.

    The encoder must look back over a window and not ahead, and the adapter must not need the whole clip. What is kept
    between chunks does not grow: a window of samples, frames, keys and values. A token comes as soon as the samples
    that it depends on are there: half a window of the spectrogram, and the frames that subsampling looks ahead.
    Chunks may be of any size; larger ones take less time altogether. Call ``eval()`` on the recognizer first.

    Args:
        recognizer: with an adapter of ``normalize="global"`` and the encoder of
            ``build_conformer(..., causal=True, window=...)``.

    Raises:
        ValueError: the encoder or the adapter needs what comes later.
        TypeError: the encoder is no Conformer.
    """

    def __init__(self, recognizer: SpeechRecognizer) -> None:
        encoder = recognizer.encoder
        if not isinstance(encoder, Conformer):
            raise TypeError(f"a stream needs a Conformer as encoder: got {type(encoder).__name__}")
        self.recognizer = recognizer
        self._encoder = encoder
        self._frames = AudioStream(recognizer.adapter)
        self._state = encoder.start()
        self._last = BLANK
        self._pending: list[int] = []  # units that end inside a character

    @torch.inference_mode()
    def push(self, samples: Tensor) -> Heard:
        """What the next samples ``[S]`` add.

        Raises:
            ValueError: the samples are not ``[S]``, or the stream is finished.
            TypeError: they are not floating-point.
        """
        return self._heard(self._frames.push(samples), last=False)

    @torch.inference_mode()
    def finish(self) -> Heard:
        """What waited for more samples; ends the stream.

        Raises:
            ValueError: the stream is finished already.
        """
        return self._heard(self._frames.finish(), last=True)

    def _heard(self, tokens: Tensor, last: bool) -> Heard:
        encoded = self._encoder.step(tokens[None], self._state)[0]
        logits = self.recognizer.head(encoded).float()
        return Heard(logits, self._text(logits, last))

    def _text(self, logits: Tensor, last: bool) -> str:
        for unit in logits.argmax(-1).tolist():
            if unit not in (BLANK, self._last):
                self._pending.append(unit)
            self._last = unit
        pending, decode = self._pending, self.recognizer.units.decode
        for waiting in range(0 if last else min(_MOST_BYTES, len(pending) + 1)):
            ready = pending[: len(pending) - waiting]
            text = decode(ready)
            if not text.endswith("\N{REPLACEMENT CHARACTER}"):
                self._pending = pending[len(ready) :]
                return text
        self._pending = []
        return decode(pending)


#: Bytes of a character in UTF-8: with byte-pair encoding each may be a unit of its own.
_MOST_BYTES = 4
