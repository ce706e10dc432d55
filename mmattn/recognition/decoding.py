"""From logits to units: greedy, and prefix beam search."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from mmattn.recognition.units import BLANK
from mmattn.tokens import TokenBatch


class Hypothesis(NamedTuple):
    """What may have been said.

    Attributes:
        ids: of the units.
        score: natural logarithm of its probability, over all alignments that the search kept.
    """

    ids: list[int]
    score: float


def greedy(logits: TokenBatch) -> list[list[int]]:
    """The units of the most probable alignment of each clip: repeats are merged, then blanks left out.

    Args:
        logits: ``[T, V]``; id 0 is the blank.

    Example:
        >>> best = torch.tensor([1, 1, 0, 1, 2, 2, 1])
        >>> greedy(TokenBatch(torch.nn.functional.one_hot(best).float(), [4, 3]))
        [[1, 1], [2, 1]]
    """
    best = logits.values.argmax(-1).cpu()
    before = best.roll(1)
    starts = logits.lengths.cumsum(0) - logits.lengths
    before[starts[logits.lengths > 0]] = BLANK
    kept = (best != BLANK) & (best != before)
    clips = zip(best.split(logits.sizes), kept.split(logits.sizes), strict=True)
    return [units[mask].tolist() for units, mask in clips]


def beam_search(logits: Tensor, beam_size: int) -> list[Hypothesis]:
    """The most probable units of one clip, summed over their alignments (prefix beam search, Hannun et al. 2014).

    In logarithms of float64 on the CPU, and deterministic. With a beam that holds every prefix the result is exact.

    Args:
        logits: ``[T, V]``; id 0 is the blank.
        beam_size: prefixes kept at each token.

    Returns:
        At most ``beam_size`` hypotheses, best first.

    Raises:
        ValueError: beam_size is below 1, or the logits are not ``[T, V]``.

    Example:
        >>> logits = torch.tensor([[0.6, 0.4], [0.6, 0.4]]).log()
        >>> [(ids, round(math.exp(score), 2)) for ids, score in beam_search(logits, beam_size=3)]
        [([1], 0.64), ([], 0.36)]
    """
    if beam_size < 1:
        raise ValueError(f"beam_size must be at least 1: got {beam_size}")
    if logits.ndim != 2:
        raise ValueError(f"logits must be [T, V], of one clip: got shape {list(logits.shape)}")
    nothing = torch.zeros(1, dtype=torch.float64)
    beam = _Beam([()], nothing, torch.full_like(nothing, -math.inf))
    for frame in logits.detach().cpu().double().log_softmax(-1):
        beam = _next(beam, frame, beam_size)
    found = zip(beam.prefixes, torch.logaddexp(beam.blank, beam.unit).tolist(), strict=True)
    return [Hypothesis(list(prefix), score) for prefix, score in sorted(found, key=lambda pair: -pair[1])]


class _Beam(NamedTuple):
    """Prefixes, and logarithms of their probabilities ``[W]``: over alignments that end in a blank, and in a unit."""

    prefixes: list[tuple[int, ...]]
    blank: Tensor
    unit: Tensor


def _next(beam: _Beam, frame: Tensor, beam_size: int) -> _Beam:
    """The beam after one more token with log-probabilities ``[V]``."""
    prefixes, total = beam.prefixes, torch.logaddexp(beam.blank, beam.unit)
    last = torch.tensor([prefix[-1] if prefix else BLANK for prefix in prefixes])
    # prefixes that stay: a blank follows, or their last unit goes on
    blank, unit = total + frame[BLANK], beam.unit + frame[last]
    # prefixes that grow by a unit; by their last one only after a blank
    grown = total[:, None] + frame
    grown[torch.arange(len(prefixes)), last] = beam.blank + frame[last]
    grown[:, BLANK] = -math.inf
    # some grow into one that is in the beam as well
    where = {prefix: row for row, prefix in enumerate(prefixes)}
    pairs = [(where[prefix[:-1]], row) for prefix, row in where.items() if prefix and prefix[:-1] in where]
    if pairs:
        shorter, longer = torch.tensor(pairs).T
        unit[longer] = torch.logaddexp(unit[longer], grown[shorter, last[longer]])
        grown[shorter, last[longer]] = -math.inf
    scores = torch.cat([torch.logaddexp(blank, unit), grown.flatten()])
    best = scores.topk(min(beam_size, len(scores)))
    chosen = best.indices[best.values > -math.inf]
    kept = [_prefix(index, prefixes, len(frame)) for index in chosen.tolist()]
    blank = torch.cat([blank, blank.new_full((grown.numel(),), -math.inf)])
    return _Beam(kept, blank[chosen], torch.cat([unit, grown.flatten()])[chosen])


def _prefix(index: int, prefixes: list[tuple[int, ...]], vocab_size: int) -> tuple[int, ...]:
    """What stands at this place of the scores: first the prefixes, then each of them grown by each unit."""
    if index < len(prefixes):
        return prefixes[index]
    row, unit = divmod(index - len(prefixes), vocab_size)
    return (*prefixes[row], unit)
