"""Texts and their translations to learn from."""

from tasks.text.translation.data.dates import DateStrings
from tasks.text.translation.data.parallel import Multi30k, ParallelData, ParallelSet, ParallelText

__all__ = ["DateStrings", "Multi30k", "ParallelData", "ParallelSet", "ParallelText"]
