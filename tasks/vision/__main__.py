"""``python -m tasks.vision fit --config tasks/vision/configs/...``: the command line of the vision tasks."""

from __future__ import annotations

import tasks.vision.data  # noqa: F401  # so that --data knows the data modules by their short names
from mmattn.training.cli import main
from tasks.vision.module import ImageClassification

if __name__ == "__main__":
    main(ImageClassification, "tasks.vision")
