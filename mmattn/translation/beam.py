"""Beam search over many sequences at once, whatever gives the next token's logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Hypothesis(NamedTuple):
    """A sequence that was found.

    Attributes:
        ids: its tokens, the end left out.
        score: log-probability over the length penalty; the higher the better.
        log_prob: log-probability of its tokens and its end.
    """

    ids: tuple[int, ...]
    score: float
    log_prob: float


class Steps(Protocol):
    """What beam search asks of a model: R rows that go on token by token."""

    def step(self, last: Tensor | None) -> Tensor:
        """Logits ``[R, V + 1]`` of the next token, the last of them of the end, after the ids ``[R]`` of the
        tokens before; ``None`` at the beginning."""

    def select(self, rows: Tensor) -> None:
        """Keep the rows with these indices, in this order, some perhaps twice."""


def length_factor(length: Tensor | int, penalty: float) -> Tensor:
    """Divisor of the log-probability of a sequence of this length, the end counted (Wu et al. 2016).

    Example:
        >>> length_factor(torch.tensor([1, 7]), 1.0)
        tensor([1., 2.])
    """
    return ((5.0 + torch.as_tensor(length)) / 6.0) ** penalty


@torch.no_grad()
def beam_search(
    steps: Steps, limits: Sequence[int], beam_size: int = 5, length_penalty: float = 1.0
) -> list[Hypothesis]:
    """The best sequence that beam search finds for each of S inputs.

    In each step the ``beam_size`` best of all continuations are kept; those of them that are the end become
    finished hypotheses, and other continuations take their places. An input is done when as many hypotheses have
    finished as the beam is wide, when no live one could still come out better than the best finished, or at its
    limit. Inputs that are done leave the batch. A beam of 1 is greedy decoding.

    Args:
        steps: the model, with one row for each input.
        limits: most tokens of each sequence, the end left out.
        beam_size: hypotheses kept for each input.
        length_penalty: exponent of the length, at least 0: hypotheses compete by their log-probability divided by
            ``((5 + length) / 6) ** length_penalty`` (Wu et al. 2016).

    Raises:
        ValueError: a number is out of range.
    """
    if beam_size < 1:
        raise ValueError(f"beam_size must be at least 1: got {beam_size}")
    if length_penalty < 0:
        raise ValueError(f"length_penalty must not be negative: got {length_penalty}")
    if min(limits, default=0) < 0:
        raise ValueError(f"limits must not be negative: got {min(limits)}")
    beams = _Beams(steps, limits, beam_size, length_penalty)
    while len(beams.inputs):
        beams.advance()
    return beams.found()


class _Beams:
    """All live hypotheses, ``W`` for each of the ``S`` inputs that are not done, and the best finished ones."""

    def __init__(self, steps: Steps, limits: Sequence[int], beam_size: int, penalty: float) -> None:
        self.steps, self.beam_size, self.penalty = steps, beam_size, penalty
        self.limits = torch.tensor(list(limits), dtype=torch.long)
        count = len(self.limits)
        self.inputs = torch.arange(count)  # [S], whose rows are still there
        self.scores = torch.zeros(count, 1)  # [S, W]: log-probabilities
        self.ids = torch.zeros(count, 1, 0, dtype=torch.long)  # [S, W, t]
        self.finished = torch.zeros(count, dtype=torch.long)  # of each input, how many
        self.best = torch.full((count,), -torch.inf)
        self.best_log_prob = torch.full((count,), -torch.inf)
        self.best_ids = torch.zeros(count, int(self.limits.max()) if count else 0, dtype=torch.long)
        self.best_length = torch.zeros(count, dtype=torch.long)

    def advance(self) -> None:
        """One token for every live hypothesis."""
        length = self.ids.shape[2]
        count, width = self.scores.shape
        logits = self.steps.step(None if length == 0 else self.ids[:, :, -1].flatten())
        end = logits.shape[1] - 1
        over = self.limits[self.inputs] <= length  # nothing but the end may follow
        log_probs, tokens = self._candidates(logits)
        log_probs = self.scores[..., None] + log_probs.view(count, width, -1)
        if bool(over.any()):
            ends = self.scores + (logits[:, end].float() - logits.float().logsumexp(1)).cpu().view(
                count, width
            )
            log_probs[over] = -torch.inf
            log_probs[over, :, 0] = ends[over]
            tokens = tokens.view(count, width, -1)
            tokens[over, :, 0] = end
        each = log_probs.shape[2]
        most = min(2 * self.beam_size, width * each)
        values, places = log_probs.flatten(1).topk(most)
        tokens = tokens.reshape(count, -1).gather(1, places)
        beams = places // each
        is_end = tokens == end
        self._finish(values, beams, is_end)
        alive = values.masked_fill(is_end, -torch.inf)
        self.scores, order = alive.topk(min(self.beam_size, most))
        # a place that nothing can fill keeps the score -inf, and any id that there is
        tokens, beams = tokens.masked_fill(is_end, 0).gather(1, order), beams.gather(1, order)
        self._keep(~self._done(over), tokens, beams, width)

    def _candidates(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities and ids of each row's best continuations: one more than the beam, for the end."""
        wide = logits if logits.dtype == torch.float64 else logits.float()
        values, tokens = wide.topk(min(self.beam_size + 1, logits.shape[1]))
        return (values - wide.logsumexp(1, keepdim=True)).float().cpu(), tokens.cpu()

    def _finish(self, values: Tensor, beams: Tensor, is_end: Tensor) -> None:
        """Take up the hypotheses that end now: those among the best, as many as the beam is wide."""
        length = self.ids.shape[2]
        ends = is_end & (values > -torch.inf)
        ends[:, self.beam_size :] = False
        scores = (values / length_factor(length + 1, self.penalty)).masked_fill(~ends, -torch.inf)
        self.finished[self.inputs] += ends.sum(1)
        best, place = scores.max(1)
        better = best > self.best[self.inputs]
        of, rows, place = self.inputs[better], better.nonzero()[:, 0], place[better]
        self.best[of] = best[better]
        self.best_log_prob[of] = values[rows, place]
        self.best_ids[of, :length] = self.ids[rows, beams[rows, place]]
        self.best_length[of] = length

    def _done(self, over: Tensor) -> Tensor:
        """``[S]``: inputs whose best hypothesis is found."""
        longest = length_factor(self.limits[self.inputs] + 1, self.penalty)
        within_reach = self.scores[:, 0] / longest  # log-probabilities only fall, so that none can pass this
        full = self.finished[self.inputs] >= self.beam_size
        return over | full | (self.best[self.inputs] >= within_reach)

    def _keep(self, kept: Tensor, tokens: Tensor, beams: Tensor, width: int) -> None:
        """Go on with the inputs that are left, and the hypotheses chosen for each."""
        rows = (torch.arange(len(kept))[:, None] * width + beams)[kept]
        self.inputs, self.scores = self.inputs[kept], self.scores[kept]
        past = self.ids.flatten(0, 1)[rows]
        self.ids = torch.cat([past, tokens[kept][..., None]], 2)
        if len(self.inputs):
            self.steps.select(rows.flatten())

    def found(self) -> list[Hypothesis]:
        """The best of each input."""
        rows = zip(
            self.best_ids.tolist(), self.best_length.tolist(), self.best.tolist(), self.best_log_prob.tolist(),
            strict=True,
        )  # fmt: skip
        return [Hypothesis(tuple(ids[:length]), score, log_prob) for ids, length, score, log_prob in rows]
