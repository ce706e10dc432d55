"""Translator: an encoder-decoder from texts to texts."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmattn.adapters.text import TextTokens
from mmattn.decoder import Decoder, DecoderBlock
from mmattn.encoder import Encoder
from mmattn.tokens import TokenBatch
from mmattn.translation.beam import Hypothesis, beam_search
from mmattn.translation.loss import linear_cross_entropy
from mmattn.translation.stepping import DecoderSteps


class Translator(nn.Module):
    """Texts to texts by an encoder and a decoder that attends to it (Vaswani et al. 2017).

    The ids are those of the tokenizers: what begins a target is a learned vector without an id, and what ends
    it is one more row of the output, of index :attr:`end`.

    Args:
        source: the texts to translate -> ids -> embeddings.
        encoder: of the width of ``source``.
        target: the same for translations, of the decoder's width; ``None`` shares vocabulary and embedding with
            the source.
        decoder: with cross-attention; ``build_decoder(context=True)`` makes one.
        tied: whether the output takes the target's embedding as its weights (Press and Wolf 2017).

    Raises:
        ValueError: widths differ, the decoder has no cross-attention, or the target has token dropout, which
            would leave no input for some outputs.

    Example:
        >>> from mmattn import build_decoder, build_encoder
        >>> encoder, decoder = build_encoder(8, 1, 2), build_decoder(8, 1, 2, context=True)
        >>> translator = Translator(TextTokens(8), encoder, None, decoder).eval()
        >>> translator(["ein Hund"], ["a dog"])
        TokenBatch(1 sequences, 6 tokens, lengths 6..6, values [6, 257] float32, coords [6, 1], cpu)
        >>> len(translator.translate(["ein Hund", "zwei"], beam_size=2, max_length=3))
        2
    """

    def __init__(
        self,
        source: TextTokens,
        encoder: Encoder,
        target: TextTokens | None,
        decoder: Decoder,
        tied: bool = True,
    ) -> None:
        super().__init__()
        _check(source, encoder, source if target is None else target, decoder)
        self.source = source
        self.encoder = encoder
        self.own_target = target
        self.decoder = decoder
        width, vocabulary = self.target.embed_dim, self.target.tokenizer.vocab_size
        self.begin = nn.Parameter(torch.empty(width))
        self.end_weight = nn.Parameter(torch.empty(1, width))
        self.output_weight = None if tied else nn.Parameter(torch.empty(vocabulary, width))
        self.output_bias = nn.Parameter(torch.zeros(vocabulary + 1))
        for weight in (self.begin, self.end_weight, self.output_weight):
            if weight is not None:
                nn.init.trunc_normal_(weight, std=0.02)

    @property
    def target(self) -> TextTokens:
        """Translations -> ids -> embeddings; the source's own where both sides share it."""
        return self.source if self.own_target is None else self.own_target

    @property
    def shared(self) -> bool:
        """Whether both sides have one vocabulary and one embedding."""
        return self.own_target is None

    @property
    def end(self) -> int:
        """Index of the output that ends a translation: one behind the last id."""
        return self.target.embedding.num_embeddings

    def encode(self, sources: Sequence[str]) -> TokenBatch:
        """The encoder's tokens ``[S, D]`` of B texts: what the decoder attends to."""
        return cast(TokenBatch, self.encoder(self._embedded(self.source.encode(sources))))

    def _embedded(self, ids: TokenBatch) -> TokenBatch:
        """Embeddings of source ids. Tables of embeddings are small, as output weights must be; inputs are not
        (Vaswani et al. 2017)."""
        tokens = self.source.embed(ids)
        return tokens.replace(tokens.values * self.source.embed_dim**0.5)

    def forward(self, sources: Sequence[str], targets: Sequence[str]) -> TokenBatch:
        """Logits ``[T, V + 1]`` of each target's tokens and its end, given the true tokens before (teacher forcing).

        Raises:
            ValueError: there are not equally many sources and targets.
        """
        hidden, _ = self.hidden(sources, targets)
        return hidden.replace(self.logits(hidden.values))

    def loss(self, sources: Sequence[str], targets: Sequence[str], label_smoothing: float = 0.0) -> Tensor:
        """Cross-entropy per target token, ends included, with label smoothing (Szegedy et al. 2016).

        The same as ``F.cross_entropy`` of :meth:`forward`'s logits, without keeping them all in float32.
        """
        hidden, labels = self.hidden(sources, targets)
        return self.cross_entropy(hidden.values, labels, label_smoothing)

    def cross_entropy(self, hidden: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """The mean loss of the decoder's tokens ``[T, D]`` and the ids ``[T]`` that come next."""
        return linear_cross_entropy(hidden, self.output_weights(), self.output_bias, labels, label_smoothing)

    def hidden(self, sources: Sequence[str], targets: Sequence[str]) -> tuple[TokenBatch, Tensor]:
        """The decoder's tokens ``[T, D]`` before the output, one for the beginning of each target and one for
        each of its tokens, and the ids ``[T]`` that come next."""
        if len(sources) != len(targets):
            raise ValueError(
                f"sources and targets must be equally many: got {len(sources)} and {len(targets)}"
            )
        inputs, labels = self.inputs(self.target.encode(targets))
        return cast(TokenBatch, self.decoder(inputs, self.encode(sources))), labels

    def inputs(self, ids: TokenBatch) -> tuple[TokenBatch, Tensor]:
        """What the decoder sees of target ids ``[T]``, and what it is to answer.

        Returns:
            embeddings ``[T + B, D]``: the begin vector and the ids of each target; and the ids ``[T + B]`` that
            come next: those of each target and :attr:`end`.
        """
        lengths = ids.lengths + 1
        stops = lengths.cumsum(0)
        first = torch.zeros(len(ids.values) + len(ids), dtype=torch.bool)
        first[stops - lengths] = True
        last = torch.zeros_like(first)
        last[stops - 1] = True
        labels = torch.full((len(first),), self.end, device=ids.device)
        labels[~last.to(ids.device)] = ids.values
        # row 0 is the begin vector, row i + 1 the embedding of token i
        places = (~first).cumsum(0).masked_fill_(first, 0).to(ids.device)
        rows = torch.cat([self.begin[None], self.embed(ids.values)]).index_select(0, places)
        return TokenBatch(self.target.dropout(rows), lengths), labels

    def embed(self, ids: Tensor) -> Tensor:
        """Embeddings ``[..., D]`` of target ids, scaled as those of the source."""
        rows: Tensor = self.target.embedding(ids) * self.target.embed_dim**0.5
        return rows

    def logits(self, hidden: Tensor) -> Tensor:
        """Decoder's output ``[..., D]`` -> logits ``[..., V + 1]``; the last one ends the translation."""
        return F.linear(hidden, self.output_weights(), self.output_bias)

    def output_weights(self) -> Tensor:
        """``[V + 1, D]``."""
        weight = self.target.embedding.weight if self.output_weight is None else self.output_weight
        return torch.cat([weight, self.end_weight])

    def translate(
        self,
        texts: Sequence[str],
        beam_size: int = 5,
        length_penalty: float = 1.0,
        max_length: int | None = None,
        batch_size: int = 64,
        dtype: torch.dtype | None = None,
    ) -> list[str]:
        """Translate by beam search, whether training or not; arguments as in :meth:`search`."""
        found = self.search(texts, beam_size, length_penalty, max_length, batch_size, dtype)
        return [self.decode(best.ids) for best in found]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of target ids."""
        return self.target.tokenizer.decode(ids)

    def search(
        self,
        texts: Sequence[str],
        beam_size: int = 5,
        length_penalty: float = 1.0,
        max_length: int | None = None,
        batch_size: int = 64,
        dtype: torch.dtype | None = None,
    ) -> list[Hypothesis]:
        """The best hypothesis for each text, which in float32 does not depend on the other texts.

        Args:
            texts: the texts, in any order.
            beam_size: hypotheses kept for each text; 1 is greedy decoding.
            length_penalty: exponent of the length by which log-probabilities are divided, see
                :func:`~mmattn.translation.beam_search`; 0 prefers short translations.
            max_length: most tokens of a translation; ``None`` takes 20 and twice those of the text.
            batch_size: texts that are decoded together, those of like length.
            dtype: decode with weights of this type; ``None`` keeps theirs. bfloat16 is faster on CPUs with AMX, and
                its rounding may decide between hypotheses that score alike.

        Raises:
            ValueError: a number is out of range.
        """
        if max_length is not None and max_length < 1:
            raise ValueError(f"max_length must be at least 1: got {max_length}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1: got {batch_size}")
        model = self if dtype is None else copy.deepcopy(self).to(dtype)
        training = model.training
        model.eval()
        try:
            with torch.inference_mode(), torch.autocast(self.begin.device.type, enabled=False):
                return model._search(texts, beam_size, length_penalty, max_length, batch_size)
        finally:
            model.train(training)

    def _search(
        self, texts: Sequence[str], beam_size: int, penalty: float, max_length: int | None, batch_size: int
    ) -> list[Hypothesis]:
        ids = self.source.encode(texts)
        found: dict[int, Hypothesis] = {}
        table = self.embed(torch.arange(self.end, device=self.begin.device))
        weight = self.output_weights()
        order = ids.lengths.argsort(stable=True)
        for chosen in order.split(batch_size):
            part = ids.select(chosen)
            context = cast(TokenBatch, self.encoder(self._embedded(part)))
            steps = DecoderSteps(self.decoder, context, self.begin, table, weight, self.output_bias)
            limits = [2 * size + 20 if max_length is None else max_length for size in part.sizes]
            best = beam_search(steps, limits, beam_size, penalty)
            found.update(zip(chosen.tolist(), best, strict=True))
        return [found[index] for index in range(len(texts))]


def _check(source: TextTokens, encoder: Encoder, target: TextTokens, decoder: Decoder) -> None:
    if source.embed_dim != encoder.embed_dim:
        raise ValueError(
            f"source and encoder must have the same embed_dim: got {source.embed_dim} and {encoder.embed_dim}"
        )
    if target.embed_dim != decoder.embed_dim:
        raise ValueError(
            f"target and decoder must have the same embed_dim: got {target.embed_dim} and {decoder.embed_dim}"
        )
    if target is not source and target.token_dropout:
        raise ValueError(f"the target must keep all of its tokens: got token_dropout={target.token_dropout}")
    cross = cast(DecoderBlock, decoder.blocks[0]).cross_attention
    if cross is None:
        raise ValueError("the decoder must have cross-attention, build_decoder(context=True): got none")
    if (cross.context_dim or cross.embed_dim) != encoder.embed_dim:
        raise ValueError(
            f"the decoder's context must be as wide as the encoder: got {cross.context_dim or cross.embed_dim} "
            f"and {encoder.embed_dim}"
        )
