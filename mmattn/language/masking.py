"""Which tokens are hidden from a masked language model, drawn anew each time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mmattn.tokens import TokenBatch


class MaskedTokens(NamedTuple):
    """Ids of which some are hidden.

    Attributes:
        ids: ``[T]``; ``vocab_size`` where the mask stands, another id or the token's own at the other chosen places.
        positions: ``[P]``, the chosen places among the T tokens, ascending.
        targets: ``[P]``, what stood there.
    """

    ids: TokenBatch
    positions: Tensor
    targets: Tensor


@dataclass(frozen=True)
class DynamicMasking:
    """BERT's rule (Devlin et al. 2019), drawn anew each time (Liu et al. 2019): of the chosen tokens 80 % become the
    mask, 10 % a token drawn from the whole vocabulary, and 10 % stay as they are.

    Of each sequence ``share`` of its tokens are chosen, rounded, but at least one. Ids below 0 stand for tokens that
    the vocabulary does not know: they are never chosen, nor is a word that holds one.

    Args:
        share: share of the tokens that are chosen, in (0, 1]; of the words with ``whole_words``.
        mask: share of the chosen that become the mask.
        random: share of the chosen that become a random token; what remains keeps its token.
        whole_words: choose words, with all of their tokens (needs the words of the tokens).

    Raises:
        ValueError: a share is out of range.

    Example:
        >>> ids = TokenBatch(torch.arange(6), [4, 2])
        >>> hidden = DynamicMasking(share=0.5, mask=1.0, random=0.0)(ids, vocab_size=6)
        >>> len(hidden.positions), (hidden.ids.values == 6).sum().item()
        (3, 3)
    """

    share: float = 0.15
    mask: float = 0.8
    random: float = 0.1
    whole_words: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share must lie in (0, 1]: got {self.share}")
        if self.mask < 0 or self.random < 0 or self.mask + self.random > 1 + 1e-9:
            raise ValueError(
                f"mask and random must be shares with a sum of at most 1: got {self.mask} and {self.random}"
            )

    def __call__(
        self,
        ids: TokenBatch,
        vocab_size: int,
        words: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> MaskedTokens:
        """Hide some of the ids ``[T]``.

        Args:
            ids: below ``vocab_size``; below 0 for unknown tokens.
            vocab_size: number of ids; also the id of the mask.
            words: ``[T]``, a number for each word of the batch, counting up from 0 along the tokens.
            generator: a CPU generator; None takes torch's global one.

        Raises:
            ValueError: whole words are asked for without ``words``.
        """
        if self.whole_words and words is None:
            raise ValueError("whole_words needs the word of each token: got none")
        values = ids.values
        units = (
            words if self.whole_words and words is not None else torch.arange(len(values), device=ids.device)
        )
        chosen = self._chosen(ids, units, generator)
        positions = chosen.nonzero()[:, 0]
        targets = values[positions]
        fate = torch.rand(len(targets), generator=generator).to(ids.device)
        others = torch.randint(vocab_size, (len(targets),), generator=generator).to(ids.device)
        shown = torch.where(fate < self.mask + self.random, others, targets)
        shown = torch.where(fate < self.mask, torch.full_like(targets, vocab_size), shown)
        return MaskedTokens(ids.replace(values.index_put((positions,), shown)), positions, targets)

    def _chosen(self, ids: TokenBatch, units: Tensor, generator: torch.Generator | None) -> Tensor:
        """Boolean ``[T]``: the tokens of the units that were drawn."""
        device = ids.device
        count = int(units.max()) + 1 if len(units) else 0
        sequence = torch.zeros(count, dtype=torch.long, device=device).index_put((units,), ids.segment_ids)
        unknown = torch.zeros(count, dtype=torch.bool, device=device)
        unknown[units[ids.values < 0]] = True
        known = torch.zeros(len(ids), dtype=torch.long, device=device).index_add(
            0, sequence, (~unknown).long()
        )
        wanted = (known * self.share).round().long().clamp(min=1).minimum(known)
        score = torch.rand(count, generator=generator).to(device) + 2.0 * unknown  # the unknown come last
        order = score.argsort()
        order = order[sequence[order].argsort(stable=True)]  # by sequence, inside it by score
        sizes = torch.bincount(sequence, minlength=len(ids))
        rank = torch.arange(count, device=device) - (sizes.cumsum(0) - sizes)[sequence[order]]
        drawn = torch.zeros(count, dtype=torch.bool, device=device)
        drawn[order] = rank < wanted[sequence[order]]
        return drawn[units]
