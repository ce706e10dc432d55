"""``python -m tasks.text fit --config tasks/text/configs/...``: the command line of the text tasks."""

from __future__ import annotations

import tasks.text.data  # noqa: F401  # so that --data knows the data modules by their short names
from mmattn.training.cli import main
from tasks.text.module import TextClassification

if __name__ == "__main__":
    main(TextClassification, "tasks.text")
