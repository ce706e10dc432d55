"""Strings as packed word tokens, each embedded by its character n-grams."""

from __future__ import annotations

import unicodedata
import zlib
from collections.abc import Sequence
from functools import lru_cache

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

    Args:
        embed_dim: width D of the tokens.
        buckets: rows of the embedding table that n-grams are hashed to.
        max_ngram: longest n-gram in characters; ``<`` and ``>`` mark the ends of a word and count.
        max_piece: longest piece in characters.
        ngram_dim: width of the table, projected to ``embed_dim`` then (Lan et al. 2020): a large table of few
            columns keeps n-grams apart and stays cheap to train. ``None`` takes embed_dim, without projection.
        dropout: on the embeddings.
        token_dropout: probability of leaving a whole token out in training; the others keep their places.

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
    ) -> None:
        super().__init__()
        for name, value in (("buckets", buckets), ("max_ngram", max_ngram), ("max_piece", max_piece)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1: got {value}")
        if not 0 <= token_dropout < 1:
            raise ValueError(f"token_dropout must lie in [0, 1): got {token_dropout}")
        self.embed_dim = embed_dim
        self.buckets = buckets
        self.max_ngram = max_ngram
        self.max_piece = max_piece
        self.token_dropout = token_dropout
        width = embed_dim if ngram_dim is None else ngram_dim
        if width < 1:
            raise ValueError(f"ngram_dim must be at least 1: got {width}")
        self.embedding = nn.EmbeddingBag(buckets + 1, width, mode="mean", padding_idx=0)
        nn.init.trunc_normal_(self.embedding.weight, std=0.02)
        with torch.no_grad():
            self.embedding.weight[0].zero_()
        self.projection = nn.Identity() if ngram_dim is None else nn.Linear(width, embed_dim, bias=False)
        self.dropout = Dropout(dropout)

    def forward(self, items: Sequence[str]) -> TokenBatch:
        """Tokens of B strings; a string without any character but spaces has none.

        Raises:
            TypeError: an item is not a string.
        """
        return self.embed(self.encode(items))

    def encode(self, items: Sequence[str]) -> TokenBatch:
        """Rows of the table ``[T, G]`` for B strings, packed; 0 fills up words of fewer n-grams than G."""
        bags, lengths = [], []
        for item in items:
            if not isinstance(item, str):
                raise TypeError(f"TextNgrams takes strings: got {type(item).__name__}")
            spans = pieces(item, self.max_piece)
            bags += [hashed(item[start:stop], self.max_ngram, self.buckets) for start, stop in spans]
            lengths.append(len(spans))
        widest = max(map(len, bags), default=1)
        rows = [bag + (0,) * (widest - len(bag)) for bag in bags]
        table = torch.tensor(rows, dtype=torch.long).reshape(len(rows), widest)
        return TokenBatch(table, lengths).to(self.embedding.weight.device)

    def embed(self, bags: TokenBatch) -> TokenBatch:
        """Embeddings ``[T, D]`` of rows ``[T, G]``; in training, of the tokens that token dropout leaves."""
        if self.training and self.token_dropout:
            bags = thinned(bags, self.token_dropout)
        return bags.replace(self.dropout(self.projection(self.embedding(bags.values))))

    def regions(self, items: Sequence[str]) -> list[Tensor]:
        """For each string the characters ``[n, 2]`` that its tokens stand for: start, stop."""
        return [torch.tensor(pieces(item, self.max_piece), dtype=torch.long).reshape(-1, 2) for item in items]


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
def hashed(word: str, max_ngram: int, buckets: int) -> tuple[int, ...]:
    """Rows 1 to ``buckets`` of a word's n-grams, ends marked; the same in every process, unlike ``hash``."""
    marked = f"<{word}>"
    grams = (
        marked[start : start + n] for n in range(1, max_ngram + 1) for start in range(len(marked) - n + 1)
    )
    return tuple(1 + zlib.crc32(gram.encode("utf-8", errors="replace")) % buckets for gram in grams)


@lru_cache(maxsize=65_536)
def _is_word(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN"
