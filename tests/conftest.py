"""What all tests share: a fixed seed, one thread, and the settings of hypothesis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

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


@pytest.fixture
def aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in an empty folder, and put back what Lightning sets for the whole process."""
    monkeypatch.chdir(tmp_path)
    for variable in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS", "CUBLAS_WORKSPACE_CONFIG"):
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)
    yield
    torch.use_deterministic_algorithms(False)
