"""What a recognizer writes: characters or pieces of words, as ids from 1 on; 0 is the blank of CTC."""

from __future__ import annotations

import json
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

from mmattn.adapters.text import BPETokenizer

#: The id that CTC puts between units: nothing is written.
BLANK = 0


class Units(ABC):
    """Texts to ids from 1 to ``vocab_size - 1`` and back.

    ``vocab_size`` counts the blank and is fixed when the object is made, since layers are built by it before any
    text has been seen; training may find fewer units than it has room for.
    """

    vocab_size: int

    @property
    @abstractmethod
    def ready(self) -> bool:
        """Whether the units are known: given, trained or loaded."""

    @abstractmethod
    def train(self, texts: Iterable[str]) -> None:
        """Learn the units from texts."""

    @abstractmethod
    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, without blanks."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; a blank is nothing."""

    @abstractmethod
    def state(self) -> str:
        """All that was learnt, as text; empty when there is nothing."""

    @abstractmethod
    def load_state(self, state: str) -> None:
        """Take up what :meth:`state` gave.

        Raises:
            ValueError: it has more units than there is room for.
        """


class CharacterUnits(Units):
    """One unit for each character (Unicode code point, composed: NFC).

    Args:
        alphabet: all characters; ``None`` learns them from the training texts.
        vocab_size: most ids, with the blank; ``None`` is what the alphabet needs, or 64 without one.
        lowercase: fold case first.

    Raises:
        ValueError: vocab_size is less than the alphabet needs, or below 2.

    Example:
        >>> units = CharacterUnits("ab ")
        >>> units.encode(["ab ba"]), units.vocab_size
        ([[2, 3, 1, 3, 2]], 4)
        >>> units.decode([2, 3, 0, 1])
        'ab '
    """

    def __init__(
        self, alphabet: str | None = None, vocab_size: int | None = None, lowercase: bool = False
    ) -> None:
        self.lowercase = lowercase
        found = None if alphabet is None else sorted(set(self._folded(alphabet)))
        most = (64 if found is None else len(found) + 1) if vocab_size is None else vocab_size
        if most < 2:
            raise ValueError(f"vocab_size must be at least 2, the blank and a character: got {most}")
        self.vocab_size = most
        self._characters: list[str] = []
        self._ids: dict[str, int] = {}
        if found is not None:
            self._take(found)

    @property
    def ready(self) -> bool:
        return bool(self._characters)

    @property
    def characters(self) -> str:
        """All characters, in the order of their ids from 1 on."""
        return "".join(self._characters)

    def train(self, texts: Iterable[str]) -> None:
        """Take up the characters of the texts, in the order of their code points.

        Raises:
            ValueError: they have no character, or more than there is room for.
        """
        found = sorted({character for text in texts for character in self._folded(text)})
        if not found:
            raise ValueError("characters are learnt from texts: got none with a character")
        self._take(found)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text.

        Raises:
            ValueError: nothing was learnt yet, or a character is unknown.
        """
        if not self.ready:
            raise ValueError("characters must be given, learnt or loaded before use: call train(texts)")
        folded = [self._folded(text) for text in texts]
        unknown = sorted({character for text in folded for character in text if character not in self._ids})
        if unknown:
            named = ", ".join(map(repr, unknown))
            raise ValueError(f"a text may hold the characters {self.characters!r}: got {named}")
        return [[self._ids[character] for character in text] for text in folded]

    def decode(self, ids: Sequence[int]) -> str:
        known = len(self._characters)
        return "".join(self._characters[index - 1] for index in ids if 0 < index <= known)

    def state(self) -> str:
        return json.dumps(self._characters, ensure_ascii=False) if self.ready else ""

    def load_state(self, state: str) -> None:
        if state:
            self._take(json.loads(state))
        else:
            self._characters, self._ids = [], {}

    def _folded(self, text: str) -> str:
        composed = unicodedata.normalize("NFC", text)
        return composed.lower() if self.lowercase else composed

    def _take(self, characters: list[str]) -> None:
        if len(characters) >= self.vocab_size:
            raise ValueError(
                f"vocab_size must be at least {len(characters) + 1}, one more than the characters: "
                f"got {self.vocab_size} for {''.join(characters)!r}"
            )
        self._characters = list(characters)
        self._ids = {character: index for index, character in enumerate(characters, start=1)}


class BPEUnits(Units):
    """Pieces of words by byte-level byte-pair encoding (Hugging Face ``tokenizers``); no text is unknown.

    Args:
        vocab_size: most ids, with the blank; at least 258.
        lowercase: fold case first.

    Raises:
        ImportError: the package ``tokenizers`` is missing.
        ValueError: vocab_size is below 258.
    """

    def __init__(self, vocab_size: int = 512, lowercase: bool = False) -> None:
        if vocab_size < 258:
            raise ValueError(f"vocab_size must be at least 258, two more than the bytes: got {vocab_size}")
        self.vocab_size = vocab_size
        self._tokenizer = BPETokenizer(vocab_size - 1, lowercase)

    @property
    def ready(self) -> bool:
        return self._tokenizer.ready

    def train(self, texts: Iterable[str]) -> None:
        self._tokenizer.train(texts)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [[index + 1 for index in ids] for ids in self._tokenizer.encode(texts)]

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode([index - 1 for index in ids if index != BLANK])

    def state(self) -> str:
        return self._tokenizer.state()

    def load_state(self, state: str) -> None:
        if state:
            from tokenizers import Tokenizer

            size = Tokenizer.from_str(state).get_vocab_size()
            if size >= self.vocab_size:
                raise ValueError(
                    f"vocab_size must be at least {size + 1}, one more than the pieces: got {self.vocab_size}"
                )
        self._tokenizer.load_state(state)
