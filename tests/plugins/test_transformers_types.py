"""The table over model types of transformers."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn

pytest.importorskip("transformers")
from benchmarks.plugins.transformers_types import Row, bars, row, table
from benchmarks.plugins.zoo.zoo_transformers import CASES

NAMED = {case.id.partition("/")[2]: case for case in CASES}


@pytest.mark.parametrize(
    ("name", "route", "calls"),
    [("t5", "interface", 6), ("wavlm", "function mode", 2), ("gpt_oss", "interface", 2)],
)
def test_a_type_that_the_core_computes(name, route, calls):
    found = row(NAMED[name])
    assert not found.error
    assert (found.route, found.calls, found.core) == (route, calls, calls)
    assert found.equal
    assert found.observable


def test_a_type_that_the_host_computes_is_looked_at():
    found = row(NAMED["xlnet"])
    assert found.route == "looked at, computed by the host"
    assert (found.calls, found.core, found.seen, found.seen_unplugged) == (2, 0, 2, 2)
    assert found.observable


def test_a_type_that_is_left_alone_says_why():
    assert row(NAMED["longformer"]).route.startswith("left alone: it keeps weights of its own form")


def test_a_model_that_fails_is_a_row_that_does_not_hold():
    def broken() -> nn.Module:
        raise RuntimeError("no such model")

    found = row(dataclasses.replace(NAMED["bert"], build=broken))
    assert found.error == "RuntimeError: no such model"
    assert not found.equal
    assert not found.observable
    assert "no such model" in table([found])


def test_results_that_are_no_numbers_do_not_count_as_equal():
    class Broken(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * torch.nan

    case = dataclasses.replace(
        NAMED["bert"],
        build=lambda: Broken(4, 4),
        inputs=lambda: NAMED["bert"].inputs()._replace(args=(torch.ones(2, 4),), kwargs={}),
    )
    found = row(case)
    assert found.outputs == math.inf
    assert not found.equal


def test_bars_count_all_types():
    good = Row("a", "interface", calls=2, core=2, seen=2, seen_unplugged=2, restored=True)
    bad = dataclasses.replace(good, outputs=1e-4, seen=1)
    assert [bar.value for bar in bars([good] * 39 + [bad])] == [40, 39, 39]
    assert [bar.holds for bar in bars([good] * 39 + [bad])] == [True, False, False]
