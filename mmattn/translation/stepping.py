"""A decoder as beam search wants it: ids in, logits out, rows chosen."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from mmattn.decoder import Decoder
from mmattn.tokens import TokenBatch


class DecoderSteps:
    """Decoding in steps, with keys and values of tokens and context kept; see :class:`~mmattn.translation.Steps`.

    Args:
        decoder: with cross-attention, out of training.
        context: what it attends to, one sequence for each row.
        begin: ``[D]``, the first input.
        table: ``[V, D]``, the input of each id.
        weight: ``[V + 1, D]`` of the output.
        bias: ``[V + 1]``.
    """

    def __init__(
        self,
        decoder: Decoder,
        context: TokenBatch,
        begin: Tensor,
        table: Tensor,
        weight: Tensor,
        bias: Tensor,
    ) -> None:
        self.decoder = decoder
        self.begin, self.table, self.weight, self.bias = begin, table, weight, bias
        self.state = decoder.start(context)

    def step(self, last: Tensor | None) -> Tensor:
        """Logits ``[R, V + 1]`` after the ids ``[R]``; ``None`` at the beginning."""
        if last is None:
            x = self.begin.expand(self.state.batch_size or 0, -1)
        else:
            x = self.table.index_select(0, last.to(self.table.device))
        hidden = self.decoder.step(x[:, None], self.state)
        return F.linear(hidden[:, 0], self.weight, self.bias)

    def select(self, rows: Tensor) -> None:
        """Keep these rows, in this order."""
        self.state.select(rows)
