"""``python -m tasks.text.translation fit --config tasks/text/translation/configs/...``: the command line."""

from __future__ import annotations

import tasks.text.translation.data  # noqa: F401  # so that --data knows the data modules by their short names
from mmattn.training.cli import main
from tasks.text.translation.module import Translation

if __name__ == "__main__":
    main(Translation, "tasks.text.translation")
