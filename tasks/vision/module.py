"""Image classification."""

from __future__ import annotations

from mmattn.training.module import ClassificationTask


class ImageClassification(ClassificationTask):
    """Classify pictures; the arguments are those of :class:`~mmattn.training.module.ClassificationTask`."""

    domain = "vision"
