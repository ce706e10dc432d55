"""What a masked language model can name: the ids of a tokeniser, or the words of the training texts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from mmattn.adapters import TextNgrams, TextTokens
from mmattn.adapters.base import Adapter
from mmattn.adapters.ngrams import pieces
from mmattn.tokens import TokenBatch

A = TypeVar("A", bound=Adapter)


class Encoded(NamedTuple):
    """Texts for one adapter.

    Attributes:
        tokens: what the adapter embeds.
        ids: ``[T]``, the id of each token; -1 where the vocabulary has none.
    """

    tokens: TokenBatch
    ids: TokenBatch


class Vocabulary(nn.Module, ABC, Generic[A]):
    """Ids 0 to ``size - 1`` of what stands at a token; ``size`` is the id of the mask.

    It has no weights: they are the adapter's, which is handed to each call.
    """

    size: int

    @abstractmethod
    def ready(self, adapter: A) -> bool:
        """False until what learns from texts has seen some."""

    @abstractmethod
    def learn(self, adapter: A, texts: Sequence[str]) -> None:
        """Learn from texts; the adapter's tokenizer too, where it has one."""

    @abstractmethod
    def encode(self, adapter: A, texts: Sequence[str]) -> Encoded:
        """Tokens and ids of B texts."""

    @abstractmethod
    def embed(self, adapter: A, encoded: Encoded, ids: Tensor) -> TokenBatch:
        """Embeddings ``[T, D]`` with ``ids`` in place of those that were encoded; at a mask, any finite values."""

    @abstractmethod
    def output(self, adapter: A) -> Tensor:
        """Output matrix ``[V, D]``: the adapter's own embedding of each id."""

    @abstractmethod
    def texts(self, adapter: A, ids: Sequence[int]) -> list[str]:
        """How ids read."""

    @abstractmethod
    def words(self, adapter: A, texts: Sequence[str]) -> Tensor:
        """``[T]``: the word that each token belongs to, counted through the batch from 0."""


class TokenVocabulary(Vocabulary[TextTokens]):
    """The ids of the tokenizer inside :class:`~mmattn.TextTokens`.

    Args:
        size: the tokenizer's ``vocab_size``.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def ready(self, adapter: TextTokens) -> bool:
        return adapter.tokenizer.ready

    def learn(self, adapter: TextTokens, texts: Sequence[str]) -> None:
        adapter.tokenizer.train(texts)

    def encode(self, adapter: TextTokens, texts: Sequence[str]) -> Encoded:
        ids = adapter.encode(texts)
        return Encoded(ids, ids)

    def embed(self, adapter: TextTokens, encoded: Encoded, ids: Tensor) -> TokenBatch:
        return adapter.embed(encoded.tokens.replace(ids.clamp(max=self.size - 1)))

    def output(self, adapter: TextTokens) -> Tensor:
        return adapter.embedding.weight

    def texts(self, adapter: TextTokens, ids: Sequence[int]) -> list[str]:
        return [adapter.tokenizer.decode([number]) for number in ids]

    def words(self, adapter: TextTokens, texts: Sequence[str]) -> Tensor:
        numbers: list[int] = []
        word = -1
        for text in texts:
            stop = None
            for start, end in adapter.tokenizer.spans(text)[: adapter.max_length]:
                word += stop is None or not _joined(text, start, stop)
                numbers.append(word)
                stop = end
        return torch.tensor(numbers, dtype=torch.long, device=adapter.embedding.weight.device)


class WordVocabulary(Vocabulary[TextNgrams]):
    """The most frequent words of the training texts, for :class:`~mmattn.TextNgrams`.

    A word's row of the output matrix is its embedding by character n-grams, so that what is learnt of a word reaches
    its relatives. Other words are seen, and never hidden.

    Args:
        size: most words; what training does not fill is never the answer.
        min_count: how often a word must occur.

    Raises:
        ValueError: a number is below 1.
    """

    def __init__(self, size: int = 8000, min_count: int = 2) -> None:
        super().__init__()
        for name, value in (("size", size), ("min_count", min_count)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1: got {value}")
        self.size = size
        self.min_count = min_count
        self._words: list[str] = []
        self._ids: dict[str, int] = {}
        self._rows: Tensor | None = None

    def ready(self, adapter: TextNgrams) -> bool:
        return bool(self._words)

    def learn(self, adapter: TextNgrams, texts: Sequence[str]) -> None:
        """Take the most frequent words; of equally frequent ones, the first in the alphabet.

        Raises:
            ValueError: no word occurs often enough.
        """
        counts = Counter(word for text in texts for word in _split(adapter, text))
        frequent = [(-count, word) for word, count in counts.items() if count >= self.min_count]
        if not frequent:
            raise ValueError(
                f"a word must occur min_count={self.min_count} times: got {len(counts)} rarer words"
            )
        self._take([word for _, word in sorted(frequent)[: self.size]])

    def _take(self, words: Iterable[str]) -> None:
        self._words = list(words)
        self._ids = {word: number for number, word in enumerate(self._words)}
        self._rows = None

    def encode(self, adapter: TextNgrams, texts: Sequence[str]) -> Encoded:
        rows = adapter.encode(texts)
        ids = [self._ids.get(word, -1) for text in texts for word in _split(adapter, text)]
        return Encoded(rows, rows.replace(torch.tensor(ids, dtype=torch.long, device=rows.device)))

    def embed(self, adapter: TextNgrams, encoded: Encoded, ids: Tensor) -> TokenBatch:
        changed = ids != encoded.ids.values
        rows = adapter.without(encoded.tokens, changed)
        other = (changed & (ids < self.size)).nonzero()[:, 0]
        if len(other):
            rows = self._put(adapter, rows, other, ids[other])
        return adapter.embed(rows)

    def _put(self, adapter: TextNgrams, rows: TokenBatch, places: Tensor, ids: Tensor) -> TokenBatch:
        """Rows with the vocabulary's words at some places."""
        words = self.rows(adapter)[ids]
        width = max(rows.values.shape[1], words.shape[1])
        values = nn.functional.pad(rows.values, (0, width - rows.values.shape[1]))
        words = nn.functional.pad(words, (0, width - words.shape[1]))
        return rows.replace(values.index_put((places,), words))

    def rows(self, adapter: TextNgrams) -> Tensor:
        """Rows ``[V, W + G]`` of each word, standing alone; zeros for those that training did not fill."""
        if self._rows is None:
            known = adapter.encode(self._words).values
            self._rows = nn.functional.pad(known, (0, 0, 0, self.size - len(known)))
        return self._rows.to(adapter.embedding.weight.device)

    def output(self, adapter: TextNgrams) -> Tensor:
        return adapter.vectors(self.rows(adapter))

    def texts(self, adapter: TextNgrams, ids: Sequence[int]) -> list[str]:
        return [self._words[number] if number < len(self._words) else "" for number in ids]

    def words(self, adapter: TextNgrams, texts: Sequence[str]) -> Tensor:
        count = sum(len(pieces(text, adapter.max_piece)) for text in texts)
        return torch.arange(count, device=adapter.embedding.weight.device)

    def get_extra_state(self) -> dict[str, list[str]]:
        """The words, so that a checkpoint can be used without the training data."""
        return {"words": self._words}

    def set_extra_state(self, state: dict[str, list[str]]) -> None:
        """Take up the words of a checkpoint."""
        self._take(state["words"])


def _split(adapter: TextNgrams, text: str) -> list[str]:
    return [text[start:stop] for start, stop in pieces(text, adapter.max_piece)]


def _joined(text: str, start: int, stop: int) -> bool:
    """Whether a token from ``start`` goes on with the word of one that ended at ``stop``; a space belongs to what
    follows it."""
    if start < stop:  # bytes of one character
        return True
    before, here = text[start - 1], text[start : start + 1]
    return (
        start == stop and not here.isspace() and (before.isspace() or (before.isalnum() and here.isalnum()))
    )
