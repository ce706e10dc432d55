"""``python -m tasks.text.pretraining fit --config tasks/text/pretraining/configs/...``: its command line."""

from __future__ import annotations

import tasks.text.pretraining.data  # noqa: F401  # so that --data knows the data modules by their short names
from mmattn.training.cli import main
from tasks.text.pretraining.module import MaskedLanguageModelling

if __name__ == "__main__":
    main(MaskedLanguageModelling, "tasks.text.pretraining")
