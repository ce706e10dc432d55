"""Where in a wave each unit of a known text is spoken."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmattn.recognition.ctc import check_fits
from mmattn.recognition.recognizer import SpeechRecognizer
from mmattn.recognition.units import BLANK


class AlignedUnit(NamedTuple):
    """A character, or a piece of a word, and where it is spoken.

    Attributes:
        character: the text of the unit.
        start_sample, stop_sample: in samples of the wave, the stop exclusive.
        score: mean probability of the unit over its tokens.
    """

    character: str
    start_sample: int
    stop_sample: int
    score: float


@torch.no_grad()
def align(recognizer: SpeechRecognizer, wave: Tensor, text: str) -> list[AlignedUnit]:
    """The most probable alignment of a wave ``[S]`` with its text (``torchaudio.functional.forced_align``).

    CTC marks a unit by a few tokens, often one, at about the place where it is certain; between units lie blanks,
    which belong to none. Call ``eval()`` first.

    Raises:
        ValueError: the wave is too short for the text, or the text has unknown characters.
    """
    [ids] = recognizer.units.encode([text])
    if not ids:
        return []
    check_fits([recognizer.adapter.num_tokens(len(wave))], [ids], [text])
    spans = token_spans(recognizer([wave]).values, ids)
    [regions] = recognizer.adapter.regions([wave])
    return [
        AlignedUnit(
            recognizer.units.decode([span.token]),
            int(regions[span.start, 0]),
            int(regions[span.end - 1, 1]),
            float(span.score),
        )
        for span in spans
    ]


def token_spans(logits: Tensor, ids: list[int]) -> list[Any]:
    """torchaudio's ``TokenSpan`` of each id: tokens from ``start`` to ``end`` (exclusive), and mean probability.

    Args:
        logits: ``[T, V]`` of one clip.
        ids: of its text, at least one.
    """
    from torchaudio.functional import forced_align, merge_tokens

    log_probs = logits.float().log_softmax(-1)
    path, scores = forced_align(log_probs[None], torch.tensor([ids], device=logits.device), blank=BLANK)
    spans: list[Any] = merge_tokens(path[0], scores[0].exp(), BLANK)
    return spans
