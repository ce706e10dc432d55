"""The loss against all alignments, and clips that are too short."""

from __future__ import annotations

import math
from itertools import groupby, product

import pytest
import torch

from mmattn import TokenBatch
from mmattn.recognition import check_fits, ctc_loss


def probability(logits: torch.Tensor, target: list[int]) -> torch.Tensor:
    """Sum over all alignments that read as the target."""
    probs, total = logits.double().softmax(-1), logits.new_zeros((), dtype=torch.float64)
    for path in product(range(logits.shape[1]), repeat=len(logits)):
        if [unit for unit, _ in groupby(path) if unit] == target:
            total = total + torch.stack([probs[t, unit] for t, unit in enumerate(path)]).prod()
    return total


def test_the_loss_sums_over_all_alignments():
    logits = TokenBatch(torch.randn(12, 4), [5, 3, 4]).replace(torch.randn(12, 4, requires_grad=True))
    targets = [[1, 1, 2], [3], []]
    parts = [
        -probability(clip, target).log() / max(len(target), 1)
        for clip, target in zip(logits.values.split([5, 3, 4]), targets, strict=True)
    ]
    want = torch.stack(parts).mean()
    loss = ctc_loss(logits, targets)
    assert loss.item() == pytest.approx(want.item(), rel=1e-5)
    [ours] = torch.autograd.grad(loss, logits.values)
    [theirs] = torch.autograd.grad(want, logits.values)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_batch_mates_do_not_matter():
    logits = TokenBatch(torch.randn(12, 4), [5, 1, 6])
    targets = [[1, 2], [3], [2, 2, 1]]
    alone = [ctc_loss(c, [t]).item() for c, t in zip(logits.split(), targets, strict=True)]
    assert ctc_loss(logits, targets).item() == pytest.approx(sum(alone) / 3, rel=1e-5)


def test_a_clip_too_short_counts_nothing():
    values = torch.randn(7, 4, requires_grad=True)
    loss = ctc_loss(TokenBatch(values, [2, 5]), [[1, 1], [2]])
    [grad] = torch.autograd.grad(loss, values)
    assert loss.isfinite()
    assert (grad[:2] == 0).all()
    assert (grad[2:] != 0).any()


def test_bfloat16_logits_are_widened():
    values = torch.randn(7, 4).bfloat16()
    loss = ctc_loss(TokenBatch(values, [7]), [[1, 2]])
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(ctc_loss(TokenBatch(values.float(), [7]), [[1, 2]]).item())


def test_what_fits_has_an_alignment_and_what_does_not_has_none():
    for length, size in product(range(1, 5), range(1, 4)):
        for target in product([1, 2], repeat=size):
            possible = probability(torch.zeros(length, 3), list(target)) > 0
            if possible:
                check_fits([length], [list(target)])
            else:
                with pytest.raises(ValueError, match="too short"):
                    check_fits([length], [list(target)])


def test_the_first_clip_too_short_is_named():
    with pytest.raises(
        ValueError, match=r"got 2 of 3 clips too short, first 'b.wav' with 2 tokens for 2 units"
    ):
        check_fits([9, 2, 0], [[1], [2, 2], [1]], ["a.wav", "b.wav", "c.wav"])
    with pytest.raises(ValueError, match="first clip 2 with 0 tokens for 1 units that need 1"):
        check_fits([9, 3, 0], [[1], [2, 2], [1]])


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("one for each clip: got 1 for 2 clips", [[1]]),
        ("lie between 1 and 3: got 0 to 2", [[0, 2], [1]]),
        ("lie between 1 and 3: got 1 to 4", [[1, 4], [1]]),
    ],
)
def test_errors(text, targets):
    with pytest.raises(ValueError, match=text):
        ctc_loss(TokenBatch(torch.zeros(5, 4), [3, 2]), targets)


def test_the_example_in_words():
    assert math.exp(-ctc_loss(TokenBatch(torch.zeros(2, 2), [2]), [[1]]).item()) == pytest.approx(3 / 4)
