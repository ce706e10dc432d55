"""Records read back as they were written, and say in one sentence what does not fit."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mmattn.report import HeadMeasure, Measures, RunRecord


def test_run_record_round_trip(made_up_run: Callable[..., RunRecord], tmp_path: Path) -> None:
    record = made_up_run("vision", "attention", 0.9)
    assert RunRecord.load(record.save(tmp_path / "run" / "record.json")) == record


def test_measures_round_trip(tmp_path: Path) -> None:
    made = Measures(
        "text", "attention", 0, "abc", {"0": "11", "4": "01"}, "4",
        {"focus/mass": 0.4, "heads/js": math.inf}, {"deletion/random": [[0.0, 1.0]]},
        [HeadMeasure("blocks.0", 1, removed=0.5)], {"heads/js/blocks.0": [[0.0]]}, {"lstm/train/64": [0.1]},
    )  # fmt: skip
    assert made.values["heads/js"] is None
    assert Measures.load(made.save(tmp_path / "measures.json")) == made


def test_diverged_loss_is_kept_as_a_gap(made_up_run: Callable[..., RunRecord], tmp_path: Path) -> None:
    record = replace(made_up_run("text", "attention", 0.9), epochs=[{"epoch": 1, "val_loss": math.nan}])
    assert record.epochs == [{"epoch": 1, "val_loss": None}]
    assert RunRecord.load(record.save(tmp_path / "record.json")) == record


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"seed": "seven"}, "RunRecord.seed must be a whole number: got 'seven'"),
    ({"seed": True}, "RunRecord.seed must be a whole number: got True"),
    ({"domain": "smell"}, "RunRecord.domain must be one of 'vision', 'speech', 'text', 'joint': got 'smell'"),
    ({"schema_version": 9}, "RunRecord.schema_version must be 1: got 9"),
    ({"started": "yesterday"}, "RunRecord.started must be an ISO 8601 time: got 'yesterday'"),
    ({"wall_seconds": -1}, "RunRecord.wall_seconds must not be negative: got -1"),
    (
        {"epochs": [{"val_loss": 1.0}]},
        "RunRecord.epochs must name the epoch in each entry: got {'val_loss': 1.0}",
    ),
    ({"data": []}, "RunRecord.data must be an object: got []"),
    ({"colour": "blue"}, "started, outside_share, schema_version: got 'colour'"),
]


@pytest.mark.parametrize(("change", "sentence"), CHANGES)
def test_errors_of_a_record(
    change: dict[str, Any], sentence: str, made_up_run: Callable[..., RunRecord], tmp_path: Path
) -> None:
    path = made_up_run("vision", "attention", 0.9).save(tmp_path / "record.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match="RunRecord") as caught:
        RunRecord.load(path)
    assert str(caught.value).startswith(f"{path} must hold a valid RunRecord: ")
    assert str(caught.value).endswith(sentence)


def test_missing_field_is_named_by_rule(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text("{}")
    with pytest.raises(ValueError, match=r"RunRecord must have every field without a default: got \[\]"):
        RunRecord.load(tmp_path / "record.json")


def test_what_could_not_be_read_back_is_not_written(
    made_up_run: Callable[..., RunRecord], tmp_path: Path
) -> None:
    record = replace(made_up_run("vision", "attention", 0.9), config={"path": Path("x")})
    with pytest.raises(ValueError, match="RunRecord must hold plain JSON data: "):
        record.save(tmp_path / "record.json")
    assert not (tmp_path / "record.json").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"correct": {"0": "1x"}, "standard": "0"}, "Measures.correct must hold 0 and 1: got '0: 1x'"),
        ({"correct": {"0": "11"}, "standard": "4"}, "Measures.standard must be a level of correct: got '4'"),
        ({"schema_version": 2}, "Measures.schema_version must be 1: got 2"),
    ],
)
def test_errors_of_measures(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match="Measures") as caught:
        Measures("text", "attention", 0, **changes)
    assert str(caught.value) == sentence


def test_records_need_nothing_that_pages_need() -> None:
    code = (
        "import sys, mmattn; before = set(sys.modules); import mmattn.report;"
        " assert not {'jinja2', 'scipy', 'mmattn.explore'} & (set(sys.modules) - before)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
