"""Strings as packed word tokens, each embedded by its character n-grams and by words as wholes."""

from __future__ import annotations

import unicodedata
import zlib
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import cast

import torch
from torch import Tensor, nn

from mmattn.adapters.base import Adapter
from mmattn.adapters.text import Span, thinned
from mmattn.dropout import Dropout
from mmattn.tokens import TokenBatch


class TextNgrams(Adapter):
    """Words and marks, each the mean of the embeddings of its hashed character n-grams (Bojanowski et al. 2017).

    Needs no file and no training of a tokeniser, and shares what words of related spelling have in common,
    which helps where texts are few. A word is a run of letters, marks and digits, cut into pieces of at most
    ``max_piece`` characters, since some scripts put no spaces; every other character but a space is a token.

    With ``word_ngrams`` a token has rows for words as wholes too: 1 adds a row for the word itself, 2 another one for
    the word with the word before it, and so on (Joulin et al. 2017). Their sum is added to the mean of the character
    n-grams. They begin at zero, so that what was never seen in training adds nothing. They want many
    texts: with 6,000 sentences a classifier learnt them by heart.

    Args:
        embed_dim: width D of the tokens.
        buckets: rows of the embedding table that n-grams are hashed to.
        max_ngram: longest n-gram in characters; ``<`` and ``>`` mark the ends of a word and count.
        max_piece: longest piece in characters.
        ngram_dim: width of the tables, projected to ``embed_dim`` then (Lan et al. 2020): a large table of few
            columns keeps n-grams apart and stays cheap to train. ``None`` takes embed_dim, without projection.
        dropout: on the embeddings.
        token_dropout: probability of leaving a whole token out in training; the others keep their places.
        min_ngram: shortest n-gram in characters.
        word_ngrams: longest run of words W that has a row of its own; 0 for none.
        word_buckets: rows of the table that these runs are hashed to.

    Raises:
        ValueError: a number does not fit.

    Example:
        >>> TextNgrams(embed_dim=8)(["attend to this!", "ok"])
        TokenBatch(2 sequences, 5 tokens, lengths 1..4, values [5, 8] float32, coords [5, 1], cpu)
    """

    def __init__(
        self,
        embed_dim: int,
        buckets: int = 16_384,
        max_ngram: int = 4,
        max_piece: int = 8,
        ngram_dim: int | None = None,
        dropout: float = 0.0,
        token_dropout: float = 0.0,
        min_ngram: int = 1,
        word_ngrams: int = 0,
        word_buckets: int = 32_768,
    ) -> None:
        super().__init__()
        sizes = {
            "buckets": buckets,
            "max_ngram": max_ngram,
            "max_piece": max_piece,
            "word_buckets": word_buckets,
        }
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1: got {value}")
        if not 1 <= min_ngram <= max_ngram:
            raise ValueError(f"min_ngram must lie in [1, max_ngram={max_ngram}]: got {min_ngram}")
        if word_ngrams < 0:
            raise ValueError(f"word_ngrams must not be negative: got {word_ngrams}")
        if not 0 <= token_dropout < 1:
            raise ValueError(f"token_dropout must lie in [0, 1): got {token_dropout}")
        self.embed_dim = embed_dim
        self.buckets, self.word_buckets = buckets, word_buckets
        self.min_ngram, self.max_ngram, self.word_ngrams = min_ngram, max_ngram, word_ngrams
        self.max_piece = max_piece
        self.token_dropout = token_dropout
        width = embed_dim if ngram_dim is None else ngram_dim
        if width < 1:
            raise ValueError(f"ngram_dim must be at least 1: got {width}")
        self.embedding = nn.EmbeddingBag(buckets + 1, width, mode="mean", padding_idx=0)
        nn.init.trunc_normal_(self.embedding.weight, std=0.02)
        with torch.no_grad():
            self.embedding.weight[0].zero_()
        self.words: nn.EmbeddingBag | None = None
        if word_ngrams:
            self.words = nn.EmbeddingBag(word_buckets + 1, width, mode="sum", padding_idx=0)
            nn.init.zeros_(self.words.weight)
        self.projection = nn.Identity() if ngram_dim is None else nn.Linear(width, embed_dim, bias=False)
        self.dropout = Dropout(dropout)

    def forward(self, items: Sequence[str]) -> TokenBatch:
        """Tokens of B strings; a string without any character but spaces has none.

        Raises:
            TypeError: an item is not a string.
        """
        return self.embed(self.encode(items))

    def encode(self, items: Sequence[str]) -> TokenBatch:
        """Rows of the tables ``[T, W + G]`` for B strings, packed.

        First W rows of runs of words, in the table ``words``, of 1 to W words that end with the token (0 where the
        text has no such run); then those of the character n-grams, 0 filling up words of fewer than G.
        """
        bags, lengths = [], []
        for item in items:
            if not isinstance(item, str):
                raise TypeError(f"TextNgrams takes strings: got {type(item).__name__}")
            words = [item[start:stop] for start, stop in pieces(item, self.max_piece)]
            bags += [self._rows(words, place) for place in range(len(words))]
            lengths.append(len(words))
        counts = torch.tensor([len(bag) for bag in bags], dtype=torch.long)
        widest = int(counts.max()) if bags else self.word_ngrams + 1
        table = torch.zeros(len(bags), widest, dtype=torch.long)
        table[torch.arange(widest) < counts[:, None]] = torch.tensor(
            [*chain.from_iterable(bags)], dtype=torch.long
        )
        return TokenBatch(table, lengths).to(self.embedding.weight.device)

    def _rows(self, words: Sequence[str], place: int) -> tuple[int, ...]:
        """Rows of one token among the words of its text."""
        characters = hashed(words[place], self.max_ngram, self.buckets, self.min_ngram)
        if not self.word_ngrams:
            return characters
        runs = (words[max(place + 1 - n, 0) : place + 1] for n in range(1, self.word_ngrams + 1))
        return (
            *(
                hashed_run(" ".join(run), self.word_buckets) if len(run) == n else 0
                for n, run in enumerate(runs, 1)
            ),
            *characters,
        )

    def vectors(self, rows: Tensor) -> Tensor:
        """Embeddings ``[T, D]`` of rows ``[T, W + G]``, without dropout."""
        values = _bags(self.embedding, rows[:, self.word_ngrams :])
        if self.words is not None:
            values = values + self.words(rows[:, : self.word_ngrams])
        projected: Tensor = self.projection(values)
        return projected

    def embed(self, bags: TokenBatch) -> TokenBatch:
        """Embeddings ``[T, D]`` of rows ``[T, W + G]``; in training, of the tokens that token dropout leaves."""
        if self.training and self.token_dropout:
            bags = thinned(bags, self.token_dropout)
        return bags.replace(self.dropout(self.vectors(bags.values)))

    def without(self, bags: TokenBatch, places: Tensor) -> TokenBatch:
        """Rows ``[T, W + G]`` that tell nothing of the tokens at ``places``, boolean ``[T]``: those have none,
        and runs that they are part of are left out of the tokens behind them."""
        rows = bags.values.masked_fill(places[:, None], 0)
        steps = torch.arange(len(places), device=places.device) - bags.coords[:, 0]  # where each text begins
        touched = places
        for n in range(2, self.word_ngrams + 1):
            before = places.roll(n - 1)
            inside = torch.arange(len(places), device=places.device) - (n - 1) >= steps
            touched = touched | (before & inside)
            rows[:, n - 1].masked_fill_(touched, 0)
        return bags.replace(rows)

    def regions(self, items: Sequence[str]) -> list[Tensor]:
        """For each string the characters ``[n, 2]`` that its tokens stand for: start, stop."""
        return [torch.tensor(pieces(item, self.max_piece), dtype=torch.long).reshape(-1, 2) for item in items]


def _bags(table: nn.EmbeddingBag, rows: Tensor) -> Tensor:
    """Bags ``[T, width]`` of rows ``[T, G]``, of which most are 0 and need not be looked up."""
    if torch.compiler.is_compiling():  # which cannot know how many there are
        return cast(Tensor, table(rows))
    filled = rows != 0
    counts = filled.sum(1)
    return cast(Tensor, table(rows[filled], counts.cumsum(0) - counts))


def pieces(text: str, max_piece: int) -> list[Span]:
    """Words, cut at ``max_piece`` characters, and single marks, as spans of characters.

    Example:
        >>> pieces("go on!", 8)
        [(0, 2), (3, 5), (5, 6)]
    """
    spans: list[Span] = []
    in_word = False
    for index, character in enumerate(text):
        is_word = _is_word(character)
        if is_word and in_word and index - spans[-1][0] < max_piece:
            spans[-1] = (spans[-1][0], index + 1)
        elif not character.isspace():
            spans.append((index, index + 1))
        in_word = is_word
    return spans


@lru_cache(maxsize=65_536)
def hashed(word: str, max_ngram: int, buckets: int, min_ngram: int = 1) -> tuple[int, ...]:
    """Rows 1 to ``buckets`` of a word's n-grams, ends marked; the same in every process, unlike ``hash``.

    A word shorter than ``min_ngram`` with its marks is one n-gram.
    """
    marked = f"<{word}>"
    shortest = min(min_ngram, len(marked))
    grams = (
        marked[start : start + n]
        for n in range(shortest, max_ngram + 1)
        for start in range(len(marked) - n + 1)
    )
    return tuple(hashed_run(gram, buckets) for gram in grams)


@lru_cache(maxsize=262_144)
def hashed_run(run: str, buckets: int) -> int:
    """Row 1 to ``buckets`` of a string as a whole."""
    return 1 + zlib.crc32(run.encode("utf-8", errors="replace")) % buckets


@lru_cache(maxsize=65_536)
def _is_word(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN"
