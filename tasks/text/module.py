"""Text classification."""

from __future__ import annotations

from mmattn.training.module import ClassificationTask


class TextClassification(ClassificationTask):
    """Classify texts; the arguments are those of :class:`~mmattn.training.module.ClassificationTask`."""

    domain = "text"
