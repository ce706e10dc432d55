"""``python -m tasks.speech.recognition fit --config tasks/speech/recognition/configs/...``: its command line."""

from __future__ import annotations

import tasks.speech.recognition.data  # noqa: F401  # so that --data knows the data modules by their short names
from mmattn.training.cli import main
from tasks.speech.recognition.module import SpeechRecognition

if __name__ == "__main__":
    main(SpeechRecognition, "tasks.speech.recognition")
