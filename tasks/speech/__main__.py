"""``python -m tasks.speech fit --config tasks/speech/configs/...``: the command line of the speech tasks."""

from __future__ import annotations

import tasks.speech.data  # noqa: F401  # so that --data knows the data modules by their short names
from mmattn.training.cli import main
from tasks.speech.module import KeywordSpotting

if __name__ == "__main__":
    main(KeywordSpotting, "tasks.speech")
