"""What all tests share: a fixed seed, one thread, and the settings of hypothesis."""

from __future__ import annotations

import hypothesis
import pytest
import torch

torch.set_num_threads(1)
hypothesis.settings.register_profile(
    "mmattn", derandomize=True, deadline=None, max_examples=40, database=None
)
hypothesis.settings.load_profile("mmattn")


@pytest.fixture(autouse=True)
def seed() -> None:
    """Every test starts from the same random state."""
    torch.manual_seed(0)
