"""Made-up runs for all tests of the report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mmattn.report import RunRecord
from tests.report.synthetic import record, write_runs


@pytest.fixture(scope="session")
def made_up_run() -> Callable[..., RunRecord]:
    """``(domain, arm, accuracy, seed=0)`` to a made-up run record."""
    return lambda domain, arm, accuracy, seed=0: record(domain, arm, seed, accuracy)


@pytest.fixture(scope="session")
def made_up_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of made-up runs: three domains, ten arms, three seeds, and timings. To be read only."""
    return write_runs(tmp_path_factory.mktemp("made-up") / "runs")
