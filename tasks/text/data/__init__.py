"""Texts to learn from."""

from tasks.text.data.public import SST2, AGNews
from tasks.text.data.quoted import QuotedLanguage
from tasks.text.data.tables import TextTable

__all__ = ["SST2", "AGNews", "QuotedLanguage", "TextTable"]
