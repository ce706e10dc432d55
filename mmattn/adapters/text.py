"""Strings as packed token embeddings, from bytes or byte-pair encoding."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmattn.adapters.base import Adapter, require
from mmattn.dropout import Dropout
from mmattn.tokens import TokenBatch

Span = tuple[int, int]


class Tokenizer(ABC):
    """Strings to integer ids below ``vocab_size``, with the characters that each id stands for."""

    vocab_size: int
    #: False until a tokenizer that learns from data has seen some.
    ready: bool = True

    def train(self, texts: Iterable[str]) -> None:
        """Learn from texts; nothing to do for a tokenizer that needs no data."""

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text."""

    @abstractmethod
    def spans(self, text: str) -> list[Span]:
        """For each id of a text the characters it stands for: start, stop."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, for models that give text; bytes that are no whole character become U+FFFD.

        Raises:
            TypeError: the tokenizer has no way back to text.
        """
        raise TypeError(f"a tokenizer must have a way back to text to decode: got {type(self).__name__}")

    def state(self) -> str:
        """All that was learnt, as text; empty when there is nothing."""
        return ""

    def load_state(self, state: str) -> None:
        """Take up what :meth:`state` gave."""


class ByteTokenizer(Tokenizer):
    """UTF-8 bytes: 256 ids, any language, no file.

    Example:
        >>> ByteTokenizer().encode(["hé"])
        [[104, 195, 169]]
        >>> ByteTokenizer().decode([104, 195, 169])
        'hé'
    """

    vocab_size = 256

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(text.encode("utf-8", errors="replace")) for text in texts]

    def spans(self, text: str) -> list[Span]:
        places = []
        for index, character in enumerate(text):
            places += [(index, index + 1)] * len(character.encode("utf-8", errors="replace"))
        return places

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode("utf-8", errors="replace")


class BPETokenizer(Tokenizer):
    """Byte-level byte-pair encoding by Hugging Face ``tokenizers``, trained on the data.

    Punctuation marks are tokens of their own; no text is unknown, and decoding gives the text back as it was, in
    Unicode's composed form (NFC).

    Args:
        vocab_size: most ids that training may make; at least 257.
        lowercase: fold case first.

    Raises:
        ImportError: the package ``tokenizers`` is missing.
        ValueError: vocab_size is below 257.
    """

    def __init__(self, vocab_size: int = 8000, lowercase: bool = False) -> None:
        require(importlib.util.find_spec("tokenizers") is not None, "tokenizers", "text", "BPETokenizer")
        if vocab_size < 257:
            raise ValueError(f"vocab_size must be at least 257, one more than the bytes: got {vocab_size}")
        self.vocab_size = vocab_size
        self.lowercase = lowercase
        self._backend: Any = None

    @property
    def ready(self) -> bool:  # type: ignore[override]  # a constant for those that need no data
        """Whether it was trained or loaded."""
        return self._backend is not None

    def train(self, texts: Iterable[str]) -> None:
        from tokenizers import Tokenizer as Backend
        from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

        backend = Backend(models.BPE())
        steps = [normalizers.NFC()] + ([normalizers.Lowercase()] if self.lowercase else [])
        backend.normalizer = normalizers.Sequence(steps)
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Punctuation(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        backend.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size, initial_alphabet=alphabet, show_progress=False
        )
        backend.train_from_iterator(texts, trainer)
        self._backend = backend

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._trained().encode_batch_fast(list(texts))]

    def spans(self, text: str) -> list[Span]:
        return [(int(start), int(stop)) for start, stop in self._trained().encode(text).offsets]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._trained().decode(list(ids), skip_special_tokens=False))

    def state(self) -> str:
        return str(self._backend.to_str()) if self.ready else ""

    def load_state(self, state: str) -> None:
        from tokenizers import Tokenizer as Backend

        self._backend = Backend.from_str(state) if state else None

    def _trained(self) -> Any:
        if self._backend is None:
            raise ValueError("a BPE tokenizer must be trained or loaded before use: call train(texts)")
        return self._backend


class TextTokens(Adapter):
    """Strings -> ids -> embeddings, packed. The tokenizer's state is saved in the module's ``state_dict``.

    Args:
        embed_dim: width D of the tokens.
        tokenizer: ``None`` takes bytes.
        max_length: longest text in tokens; what is longer is cut off. ``None`` keeps all.
        dropout: on the embeddings.
        token_dropout: probability of leaving a whole token out in training; the others keep their places.

    Raises:
        ValueError: max_length is below 1, or a probability outside [0, 1).

    Example:
        >>> TextTokens(embed_dim=8)(["attend", "to this"])
        TokenBatch(2 sequences, 13 tokens, lengths 6..7, values [13, 8] float32, coords [13, 1], cpu)
    """

    def __init__(
        self,
        embed_dim: int,
        tokenizer: Tokenizer | None = None,
        max_length: int | None = None,
        dropout: float = 0.0,
        token_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= token_dropout < 1:
            raise ValueError(f"token_dropout must lie in [0, 1): got {token_dropout}")
        if max_length is not None and max_length < 1:
            raise ValueError(f"max_length must be at least 1: got {max_length}")
        self.embed_dim = embed_dim
        self.tokenizer = ByteTokenizer() if tokenizer is None else tokenizer
        self.max_length = max_length
        self.embedding = nn.Embedding(self.tokenizer.vocab_size, embed_dim)
        nn.init.trunc_normal_(self.embedding.weight, std=0.02)
        self.dropout = Dropout(dropout)
        self.token_dropout = token_dropout

    def forward(self, items: Sequence[str]) -> TokenBatch:
        """Tokens of B strings; an empty string has none.

        Raises:
            TypeError: an item is not a string.
        """
        return self.embed(self.encode(items))

    def encode(self, items: Sequence[str]) -> TokenBatch:
        """Ids ``[T]`` of B strings, packed."""
        for item in items:
            if not isinstance(item, str):
                raise TypeError(f"TextTokens takes strings: got {type(item).__name__}")
        ids = [sequence[: self.max_length] for sequence in self.tokenizer.encode(items)]
        flat = torch.tensor([i for sequence in ids for i in sequence], dtype=torch.long)
        return TokenBatch(flat, [len(sequence) for sequence in ids]).to(self.embedding.weight.device)

    def embed(self, ids: TokenBatch) -> TokenBatch:
        """Embeddings ``[T, D]`` of ids ``[T]``; in training, of those that token dropout leaves."""
        if self.training and self.token_dropout:
            ids = thinned(ids, self.token_dropout)
        return ids.replace(self.dropout(self.embedding(ids.values)))

    def regions(self, items: Sequence[str]) -> list[Tensor]:
        """For each string the characters ``[n, 2]`` that its tokens stand for: start, stop."""
        spans = [self.tokenizer.spans(item)[: self.max_length] for item in items]
        return [torch.tensor(of_item, dtype=torch.long).reshape(-1, 2) for of_item in spans]

    def get_extra_state(self) -> dict[str, str]:
        """The tokenizer, so that a checkpoint can be used without the training data."""
        return {"tokenizer": self.tokenizer.state()}

    def set_extra_state(self, state: dict[str, str]) -> None:
        """Take up the tokenizer of a checkpoint."""
        self.tokenizer.load_state(state["tokenizer"])


def thinned(tokens: TokenBatch, share: float) -> TokenBatch:
    """The tokens without a random ``share`` of them; the others keep their coordinates."""
    kept = torch.rand(len(tokens.values)) >= share
    lengths = torch.stack([part.sum() for part in kept.split(tokens.sizes)])
    kept = kept.to(tokens.device)
    return TokenBatch(tokens.values[kept], lengths, tokens.coords[kept])
