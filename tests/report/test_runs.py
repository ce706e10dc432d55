"""Runs from several folders merge; what is odd about them is said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mmattn.report.measures import Measures
from mmattn.report.records import DataRecord, RunRecord
from mmattn.report.runs import StoredRun, first_runs, load_runs, oddities, unmeasured


def record(domain: str = "vision", arm: str = "attention", seed: int = 0, **changes) -> RunRecord:
    return replace(
        RunRecord(
            name="made up", domain=domain, arm=arm, seed=seed, config={}, versions={"torch": "2.11.0"},
            environment={"cpu": "a"}, data=DataRecord("d", True, {}, "", {}), epochs=[], metrics={}, parameters=9,
            flops_per_example=None, samples_per_second=1.0, peak_memory_bytes=1, wall_seconds=1.0,
            git_commit="0123456789", started="2026-01-01T00:00:00",
        ),
        **changes,
    )  # fmt: skip


def stored(domain="vision", arm="attention", seed=0, path="", test="t", **changes) -> StoredRun:
    measures = Measures(domain, arm, seed, test=test, correct={"0": "01"}, standard="0")
    return StoredRun(path or f"{domain}-{arm}-{seed}", record(domain, arm, seed, **changes), measures)


def test_runs_are_found_in_all_depths_and_sorted(tmp_path):
    for place in ("runs/b", "runs/far/a", "more/b"):
        Measures("vision", place[-1], 0).save(tmp_path / place / "measures.json")
    record(arm="b").save(tmp_path / "runs/b/record.json")
    runs = load_runs(tmp_path / "runs")
    assert [run.path for run in runs] == ["b", "far/a"]
    assert runs[0].record.arm == "b"
    assert runs[1].record is None
    assert runs[1].key == ("vision", "a", 0)
    both = [run.path for run in load_runs(tmp_path / "runs", tmp_path / "more")]
    assert both == sorted((tmp_path / name).as_posix() for name in ("runs/b", "runs/far/a", "more/b"))


def test_runs_without_measures_are_named(tmp_path):
    record().save(tmp_path / "x" / "record.json")
    assert unmeasured(tmp_path) == ["x"]
    with pytest.raises(ValueError, match=r"at least one measures\.json: got"):
        load_runs(tmp_path)


def test_a_record_of_another_run_is_refused(tmp_path):
    Measures("vision", "attention", 1).save(tmp_path / "measures.json")
    record(seed=2).save(tmp_path / "record.json")
    with pytest.raises(ValueError, match="same domain and seed: got"):
        load_runs(tmp_path)


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "measures.json").write_text("{")
    with pytest.raises(ValueError, match=r"measures\.json must hold a valid Measures"):
        load_runs(tmp_path)


def test_nothing_is_odd_about_runs_alike():
    runs = [stored(arm=arm, seed=seed) for arm in ("attention", "uniform") for seed in range(3)]
    linear = replace(stored(arm="linear"), record=None)
    assert oddities([*runs, linear, stored("text", test="u")]) == []


@pytest.mark.parametrize(
    ("odd", "sentence"),
    [
        (stored(path="z"), "vision-attention-0 is there 2 times: only it counts for verdicts, not z."),
        (stored(arm="uniform", versions={"torch": "3.0"}), "different versions of torch: 2.11.0 and 3.0."),
        (stored(arm="uniform", git_commit="fedcba9876543"), "012345678 (1 runs) and fedcba987 (1 runs)."),
        (stored(arm="uniform", git_commit=None), "012345678 (1 runs) and none (1 runs)."),
        (stored(arm="uniform", environment={"cpu": "b"}), "different processors"),
        (stored(arm="uniform", test="other"), "The runs in vision answered different tests"),
        (stored(seed=1, parameters=12345), "different numbers of parameters: 9 and 12,345."),
        (stored(arm="uniform", seed=1), "attention in vision lacks the seeds 1."),
    ],
)
def test_what_is_odd_is_said(odd, sentence):
    assert any(sentence in said for said in oddities([stored(), odd])), oddities([stored(), odd])


def test_joint_runs_of_different_tests_are_said():
    one = Measures("joint", "joint", 0, "vision=a text=b", {"vision": "1", "text": "0"}, "vision")
    same, other = (Measures("joint", f"separate_{sense}", 0, f"{sense}={digest}", {sense: "1"}, sense)
                   for sense, digest in (("vision", "a"), ("text", "c")))  # fmt: skip
    runs = [StoredRun(each.arm, None, each) for each in (one, same, other)]
    assert oddities(runs[:2]) == []
    assert oddities(runs) == [
        "The runs in joint answered different tests in text: joint and 0 more and separate_text and 0 more."
    ]


def test_a_record_inside_a_measured_run_is_part_of_it(tmp_path):
    one = stored()
    one.record.save(tmp_path / "a" / "record.json")
    assert unmeasured(tmp_path) == ["a"]
    one.measures.save(tmp_path / "a" / "measures.json")
    one.record.save(tmp_path / "a" / "joint-0" / "record.json")
    assert unmeasured(tmp_path) == []


def test_the_first_of_doubles_by_path():
    first, second = stored(path="a"), stored(path="b")
    assert first_runs([second, first]) == [first]
