"""What a worker process of the comparison runs; it imports the heavy parts once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mmattn.training.memory import quick_memory
from tasks.compare.jobs import Job, run

_messages: Any = None


def start(messages: Any, threads: int) -> None:
    """Take the queue for progress, and as many threads as this worker may use."""
    global _messages  # a worker's state: the pool gives its initialiser no other place
    _messages = messages
    torch.set_num_threads(threads)
    quick_memory()


def work(job: Job, folder: Path, extra: list[str]) -> None:
    """Do one job and tell its progress."""
    run(job, folder, extra, lambda share: _messages.put((job.name, share)))
