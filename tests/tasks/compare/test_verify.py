"""Runs made again: what counts as reproduced."""

from __future__ import annotations

import io
import json

import pytest

from tasks.compare.executors import LocalExecutor
from tasks.compare.running import run_grid
from tasks.compare.verify import choose, compared, prediction_interval, table, verify, wilson
from tests.tasks.compare import standin


def test_the_same_code_reproduces_a_report_exactly(tmp_path, tiny):
    run_grid(tiny(), tmp_path, LocalExecutor(1), standin.WORK, io.StringIO())
    found = verify(tmp_path, sample=2, jobs=1, work=standin.WORK)
    assert found.holds
    assert not found.outdated
    assert len({check.run for check in found.checks}) == 2
    assert {check.number for check in found.checks} == {"accuracy/0", "accuracy/3", "focus/log_ratio"}
    assert {check.state for check in found.checks} == {"exactly"}
    assert table(found).endswith("6 numbers: 6 reproduced exactly, 0 within their interval, 0 outside")


def test_a_number_that_was_changed_by_hand_is_found(tmp_path, tiny):
    run_grid(tiny(), tmp_path, LocalExecutor(1), standin.WORK, io.StringIO())
    for path in tmp_path.glob("runs/*/measures.json"):
        plain = json.loads(path.read_text())
        path.write_text(json.dumps(plain | {"values": {"focus/log_ratio": 7.0}}))
        (path.parent / "done.txt").write_text("by other code")
    found = verify(tmp_path, sample=1, jobs=1, work=standin.WORK)
    assert not found.holds
    assert [check.state for check in found.checks] == ["exactly", "exactly", "outside"]
    assert "OUTSIDE its interval 7.0000 to 7.0000 (2 seeds)" in table(found)
    assert table(found).splitlines()[0] == f"{found.outdated[0]} (recorded by other code or versions)"


def test_a_run_that_cannot_be_made_again_is_named(tmp_path, tiny):
    run_grid(tiny(), tmp_path, LocalExecutor(1), standin.WORK, io.StringIO())
    found = verify(tmp_path, sample=1, jobs=1, work="tests.nowhere:work")
    assert not found.checks
    assert not found.holds
    assert "failed: vision-" in table(found)
    assert "ModuleNotFoundError: " in table(found)


def test_a_number_within_the_spread_of_the_seeds_is_reproduced_and_one_beyond_is_not():
    everything = {"a-b-0": {"x": 1.0}, "a-b-1": {"x": 2.0}, "a-b-2": {"x": 3.0}}
    for again, state in ((1.0, "exactly"), (3.5, "within"), (2.0 + 4.98, "outside"), (2.0 + 4.96, "within")):
        (check,) = compared("a-b-0", {}, everything, {"x": again}, list(everything))
        assert check.state == state
        assert check.basis == "3 seeds"


def test_a_single_seed_has_the_interval_of_its_examples_or_none():
    everything = {"a-b-0": {"accuracy/0": 0.9, "x": 1.0}}
    found = compared("a-b-0", {"accuracy/0": 100}, everything, {"accuracy/0": 0.86, "x": 1.01}, ["a-b-0"])
    assert [(check.state, check.basis) for check in found] == [
        ("within", "100 examples"),
        ("outside", "a single seed"),
    ]
    (missing, _) = compared("a-b-0", {"accuracy/0": 100}, everything, {}, ["a-b-0"])
    assert missing.state == "outside"


def test_intervals_are_those_of_the_textbook():
    low, high = prediction_interval([1.0, 2.0, 3.0])
    assert (low, high) == pytest.approx((2 - 4.3027 * (4 / 3) ** 0.5, 2 + 4.3027 * (4 / 3) ** 0.5), abs=1e-3)
    assert wilson(0.9, 100) == pytest.approx((0.8256, 0.9448), abs=1e-4)


def test_a_sample_goes_over_domains_and_arms():
    names = [
        f"{domain}-{arm}-{seed}" for domain in ("v", "s", "t") for arm in ("a", "u", "m") for seed in range(3)
    ]
    chosen = choose(names, 3, seed=0)
    assert {name[0] for name in chosen} == {"v", "s", "t"}
    assert {name[2] for name in chosen} == {"a", "u", "m"}
    assert choose(names, 3, seed=0) == chosen
    assert len(choose(names, 99, seed=0)) == len(names)
    assert any(choose(names, 3, seed=seed) != chosen for seed in range(1, 5))
