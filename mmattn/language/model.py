"""A masked language model over packed tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmattn.adapters import TextNgrams, TextTokens
from mmattn.encoder import Encoder
from mmattn.language.head import LanguageHead
from mmattn.language.masking import DynamicMasking
from mmattn.language.vocabulary import Encoded, TokenVocabulary, Vocabulary, WordVocabulary
from mmattn.tokens import TokenBatch


class Guess(NamedTuple):
    """What may stand at a hidden place, and how probable it is."""

    text: str
    probability: float


class MaskedLanguageModel(nn.Module):
    """Adapter -> encoder -> head, which names hidden tokens (Devlin et al. 2019).

    The mask is a learned vector in place of a token's embedding, so that the adapter stays as it is, and its weights
    and the encoder's load into a classifier. Only the chosen tokens go through the head.

    Args:
        adapter: texts -> tokens, without token dropout: masking takes its place.
        encoder: tokens -> tokens, of the same width.
        vocabulary: what can be named; ``None`` takes the tokenizer's ids with ``TextTokens``, and 8,000 words with
            ``TextNgrams``.
        masking: which tokens are hidden in training.

    Raises:
        TypeError: adapter and vocabulary do not go together.
        ValueError: the widths differ, the sizes of vocabulary and tokenizer differ, or the adapter drops tokens.

    Example:
        >>> from mmattn import TextTokens, build_encoder
        >>> model = MaskedLanguageModel(TextTokens(8), build_encoder(8, depth=1, num_heads=2))
        >>> model(["attend", "to this"]).shape
        torch.Size([13, 256])
    """

    def __init__(
        self,
        adapter: TextTokens | TextNgrams,
        encoder: Encoder,
        vocabulary: Vocabulary[Any] | None = None,
        masking: DynamicMasking = DynamicMasking(),  # noqa: B008  # frozen
    ) -> None:
        super().__init__()
        if adapter.embed_dim != encoder.embed_dim:
            raise ValueError(
                f"adapter and encoder must have the same embed_dim: "
                f"got {adapter.embed_dim} and {encoder.embed_dim}"
            )
        if adapter.token_dropout:
            raise ValueError(
                f"a masked language model needs every token, so token_dropout must be 0: got {adapter.token_dropout}"
            )
        self.adapter = adapter
        self.encoder = encoder
        self.vocabulary = _fitting(adapter, vocabulary)
        self.masking = masking
        self.mask = nn.Parameter(torch.empty(encoder.embed_dim))
        nn.init.trunc_normal_(self.mask, std=0.02)
        self.head = LanguageHead(encoder.embed_dim, self.vocabulary.size)

    @property
    def ready(self) -> bool:
        """False until tokenizer and vocabulary have seen texts: :meth:`learn`."""
        return self.vocabulary.ready(self.adapter)

    def learn(self, texts: Sequence[str]) -> None:
        """Let tokenizer and vocabulary learn from texts."""
        self.vocabulary.learn(self.adapter, texts)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Logits ``[T, V]`` at all tokens of B texts, in float32, with nothing hidden."""
        encoded = self._encode(texts)
        return self._logits(self._encoded(encoded, encoded.ids.values).values)

    def masked(self, texts: Sequence[str], generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Hide tokens, and give logits ``[P, V]`` and targets ``[P]`` of the chosen ones.

        Args:
            texts: B texts.
            generator: a CPU generator that decides what is hidden; None takes torch's global one.
        """
        encoded = self._encode(texts)
        words = self.vocabulary.words(self.adapter, texts) if self.masking.whole_words else None
        hidden = self.masking(encoded.ids, self.vocabulary.size, words, generator)
        tokens = self._encoded(encoded, hidden.ids.values)
        return self._logits(tokens.values[hidden.positions]), hidden.targets

    def loss(self, texts: Sequence[str], generator: torch.Generator | None = None) -> Tensor:
        """Mean cross-entropy in nats of the chosen tokens of B texts; 0 where there is nothing to choose."""
        logits, targets = self.masked(texts, generator)
        return F.cross_entropy(logits, targets, reduction="sum") / max(len(targets), 1)

    @torch.no_grad()
    def fill(self, text: str, top_k: int = 5, symbol: str = "[MASK]") -> list[list[Guess]]:
        """For each ``symbol`` in a text the ``top_k`` likeliest tokens, best first.

        A space before the symbol belongs to the token that is sought, as in RoBERTa.

        Raises:
            ValueError: the text has no symbol, or top_k is below 1 or above the size of the vocabulary.
        """
        if symbol not in text:
            raise ValueError(f"the text must contain {symbol}: got {text!r}")
        if not 1 <= top_k <= self.vocabulary.size:
            raise ValueError(f"top_k must lie in [1, {self.vocabulary.size}]: got {top_k}")
        *before, last = text.split(symbol)
        encoded, ids = self._joined(self._encode([part.rstrip() for part in before] + [last]))
        training = self.training
        self.eval()
        try:
            tokens = self._encoded(encoded, ids)
            probabilities = self._logits(tokens.values[ids == self.vocabulary.size]).softmax(-1)
        finally:
            self.train(training)
        best = probabilities.topk(top_k)
        return [
            [Guess(*pair) for pair in zip(self.vocabulary.texts(self.adapter, row), chances, strict=True)]
            for row, chances in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def _encode(self, texts: Sequence[str]) -> Encoded:
        if not self.ready:
            raise ValueError("a masked language model must have seen texts before use: call learn(texts)")
        return self.vocabulary.encode(self.adapter, texts)

    def _joined(self, parts: Encoded) -> tuple[Encoded, Tensor]:
        """One text of its parts, with a blank token between them, and its ids, with the mask there."""
        rows, ids = parts.tokens.values.split(parts.tokens.sizes), parts.ids.values.split(parts.ids.sizes)
        blank = parts.tokens.values.new_zeros(1, *parts.tokens.values.shape[1:])
        unknown = parts.ids.values.new_full((1,), -1)
        hidden = torch.full_like(unknown, self.vocabulary.size)
        between = [(blank, unknown, hidden)] * (len(rows) - 1)
        pieces = [(rows[0], ids[0], ids[0])]
        for gap, row, known in zip(between, rows[1:], ids[1:], strict=True):
            pieces += [gap, (row, known, known)]
        tokens, plain, shown = (torch.cat(column) for column in zip(*pieces, strict=True))
        return Encoded(TokenBatch(tokens, [len(tokens)]), TokenBatch(plain, [len(plain)])), shown

    def _encoded(self, encoded: Encoded, ids: Tensor) -> TokenBatch:
        """What the encoder makes of the texts with these ids ``[T]``."""
        tokens = self.vocabulary.embed(self.adapter, encoded, ids)
        hidden = (ids == self.vocabulary.size)[:, None]
        tokens = tokens.replace(torch.where(hidden, self.mask.to(tokens.values.dtype), tokens.values))
        return cast(TokenBatch, self.encoder(tokens))

    def _logits(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.head(hidden, self.vocabulary.output(self.adapter))
        return logits.float()


def _fitting(adapter: TextTokens | TextNgrams, vocabulary: Vocabulary[Any] | None) -> Vocabulary[Any]:
    """The vocabulary, or the usual one for the adapter."""
    if vocabulary is None and isinstance(adapter, TextTokens):
        vocabulary = TokenVocabulary(adapter.tokenizer.vocab_size)
    elif vocabulary is None:
        vocabulary = WordVocabulary()
    pairs = ((TextTokens, TokenVocabulary), (TextNgrams, WordVocabulary))
    if not any(isinstance(adapter, a) and isinstance(vocabulary, v) for a, v in pairs):
        raise TypeError(
            f"TextTokens goes with TokenVocabulary and TextNgrams with WordVocabulary: "
            f"got {type(adapter).__name__} with {type(vocabulary).__name__}"
        )
    if isinstance(adapter, TextTokens) and vocabulary.size != adapter.tokenizer.vocab_size:
        raise ValueError(
            f"the vocabulary must have the size of the tokenizer's: "
            f"got {vocabulary.size} and {adapter.tokenizer.vocab_size}"
        )
    return vocabulary
