"""Other people's models compute the same with the core inside, and are seen through: a sample of the zoo.

The whole zoo is gone through by ``python -m benchmarks.plugins --only conformance``.
"""

from __future__ import annotations

import pytest

from benchmarks.plugins.zoo import cases
from benchmarks.plugins.zoo.case import Case
from benchmarks.plugins.zoo.checks import CHECKS
from benchmarks.plugins.zoo.subject import Subject

SAMPLE = [case for case in cases("timm", "torchvision", "torch") if case.quick]


@pytest.fixture(scope="module", params=SAMPLE, ids=lambda case: case.id)
def subject(request: pytest.FixtureRequest) -> Subject:
    return Subject(request.param)


@pytest.mark.parametrize("check", CHECKS)
def test_a_plugged_model(subject: Subject, check: str):
    CHECKS[check](subject)


def test_the_zoo_is_large_enough_and_names_no_model_twice():
    everything: list[Case] = cases("timm", "torchvision", "torch")
    names = [case.id for case in everything]
    assert len(set(names)) == len(names)
    by_library = {
        library: sum(n.startswith(f"{library}/") for n in names) for library in ("torch", "torchaudio")
    }
    assert sum(by_library.values()) >= 20
    assert len(names) - sum(by_library.values()) >= 110
