"""The loss of connectionist temporal classification (Graves et al. 2006) over packed tokens."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from mmattn.recognition.units import BLANK
from mmattn.tokens import TokenBatch


def ctc_loss(logits: TokenBatch, targets: Sequence[Sequence[int]]) -> Tensor:
    """Mean over clips of ``-log p(target | clip) / len(target)`` (an empty target divides by 1).

    A clip with fewer tokens than its target needs has probability 0. It counts as loss 0 with gradient 0
    (``zero_infinity`` of torch), so that one such clip, for instance after a change of speed, does not end the
    training of all; :func:`check_fits` finds them beforehand.

    Args:
        logits: ``[T, V]``, unnormalised; id 0 is the blank.
        targets: ids from 1 on, for each clip.

    Raises:
        ValueError: there is not one target for each clip, or an id is outside 1 to V - 1.

    Example:
        >>> logits = TokenBatch(torch.zeros(5, 4), [3, 2])
        >>> round(ctc_loss(logits, [[1], [2, 3]]).item(), 3)  # 6 of 64 alignments, and 1 of 16
        1.877
    """
    if len(targets) != len(logits):
        raise ValueError(f"targets must be one for each clip: got {len(targets)} for {len(logits)} clips")
    flat = torch.tensor([index for target in targets for index in target], dtype=torch.long)
    vocab_size = logits.values.shape[-1]
    if flat.numel() and not 0 < int(flat.min()) <= int(flat.max()) < vocab_size:
        raise ValueError(
            f"target ids must lie between 1 and {vocab_size - 1}: got {int(flat.min())} to {int(flat.max())}"
        )
    # float32 whatever the autocast: probabilities of long alignments differ in the last digits
    log_probs = logits.replace(logits.values.float().log_softmax(-1)).to_padded()[0].transpose(0, 1)
    sizes = torch.tensor([len(target) for target in targets], dtype=torch.long)
    return F.ctc_loss(
        log_probs, flat.to(log_probs.device), logits.lengths, sizes, BLANK, "mean", zero_infinity=True
    )


def tokens_needed(target: Sequence[int]) -> int:
    """Fewest tokens that can write a target: one for each id, and a blank between two equal ones."""
    return len(target) + sum(a == b for a, b in pairwise(target))


def check_fits(
    lengths: Sequence[int], targets: Sequence[Sequence[int]], names: Sequence[str] | None = None
) -> None:
    """Refuse clips with fewer tokens than their targets need, before a training that would pass over them.

    Args:
        lengths: tokens of each clip.
        targets: ids of each clip.
        names: what to call the clips in the message; ``None`` takes their numbers from 0.

    Raises:
        ValueError: a clip is too short; the message tells how many are, and the first.

    Example:
        >>> check_fits([3, 2], [[1, 1], [1, 2]])
        >>> check_fits([3, 2], [[1, 1], [2, 2]])
        Traceback (most recent call last):
        ValueError: a clip must have a token for each unit and one between equal units: got 1 of 2 clips too short,
        first clip 1 with 2 tokens for 2 units that need 3
    """
    short = [
        index
        for index, (length, target) in enumerate(zip(lengths, targets, strict=True))
        if length < tokens_needed(target)
    ]
    if short:
        first = short[0]
        name = f"clip {first}" if names is None else repr(names[first])
        raise ValueError(
            "a clip must have a token for each unit and one between equal units: "
            f"got {len(short)} of {len(targets)} clips too short, first {name} with {lengths[first]} tokens "
            f"for {len(targets[first])} units that need {tokens_needed(targets[first])}"
        )
