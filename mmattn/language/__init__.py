"""Masked language modelling: what stands at a hidden place of a text."""

from mmattn.language.head import LanguageHead
from mmattn.language.masking import DynamicMasking, MaskedTokens
from mmattn.language.model import Guess, MaskedLanguageModel
from mmattn.language.vocabulary import TokenVocabulary, Vocabulary, WordVocabulary

__all__ = [
    "DynamicMasking",
    "Guess",
    "LanguageHead",
    "MaskedLanguageModel",
    "MaskedTokens",
    "TokenVocabulary",
    "Vocabulary",
    "WordVocabulary",
]
