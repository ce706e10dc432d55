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

from mmattn.report import (
    AttentionExample,
    AttentionLayer,
    ExampleFile,
    Picture,
    ReportInput,
    ResultRow,
    RunRecord,
    Sentence,
    Spectrogram,
    gather,
)


def test_run_record_round_trip(made_up_run: Callable[..., RunRecord], tmp_path: Path) -> None:
    record = made_up_run("vision", "attention", 0.9)
    assert RunRecord.load(record.save(tmp_path / "run" / "record.json")) == record


def test_report_input_round_trip(made_up: ReportInput, tmp_path: Path) -> None:
    assert ReportInput.load(made_up.save(tmp_path / "report.json")) == made_up


def test_token_with_brackets_and_line_ends_survives_the_layout_of_the_file(tmp_path: Path) -> None:
    layer = AttentionLayer("pooling", [[0.25] * 4])
    words = Sentence(["[\n  1,\n  2\n]", "[ a ]", "\udcc3", '"'], joiner="")
    file = ExampleFile([AttentionExample("text", "a", "b", 0.5, words, [layer])])
    assert ExampleFile.load(file.save(tmp_path / "examples.json")) == file


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
    ("make", "sentence"),
    [
        (
            lambda: ResultRow("a", "model", 91.2, None, 10),
            r"ResultRow.plain must be a fraction in \[0, 1\]: got 91.2",
        ),
        (lambda: ResultRow("a", "model", None, None, 0), "ResultRow.n_test must be positive: got 0"),
        (lambda: Picture([[0.0, 2.0]], []), r"Picture.pixels must lie in \[0, 1\]: got \[2.0\]"),
        (lambda: Picture([[0.0], [0.0, 1.0]], []), r"Picture.pixels must be \[H\]\[W\] or \[H\]\[W\]\[3\]"),
        (
            lambda: Spectrogram([[1.0], []], 1.0, []),
            r"Spectrogram.log_mel must be \[n_mels\]\[frames\]: got \[0, 1\]",
        ),
        (
            lambda: Sentence(["a"], [True, False]),
            "Sentence.relevant must have one flag for each token: got '2 for 1'",
        ),
        (lambda: AttentionLayer("a", [[0.8, 0.8]]), "AttentionLayer.heads must sum to 1 at most: got 1.6"),
        (lambda: AttentionLayer("a", [[-0.1]]), "must hold weights that are finite and not negative"),
        (
            lambda: AttentionExample(
                "text", "a", "a", 1, Sentence(["b", "c"]), [AttentionLayer("p", [[1.0]])]
            ),
            "must have one weight for each of the 2 tokens: got \"1 in 'p'\"",
        ),
    ],
)
def test_errors_of_parts(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make()


def test_domain_takes_only_its_own_runs(made_up: ReportInput) -> None:
    with pytest.raises(ValueError, match="must be of the domain 'vision': got 'text'"):
        replace(made_up.domains[0], runs=made_up.domains[2].runs)


def test_gather_reads_a_folder_of_runs(
    made_up: ReportInput, made_up_run: Callable[..., RunRecord], tmp_path: Path
) -> None:
    for arm, top in (("uniform", 0.4), ("attention", 0.9)):
        made_up_run("vision", arm, top).save(tmp_path / arm / "record.json")
    examples = made_up.domains[0].examples
    ExampleFile(examples).save(tmp_path / "attention" / "examples.json")
    (part,) = gather(tmp_path).domains
    assert [(row.name, row.kind, row.standard, row.n_test) for row in part.rows] == [
        ("multi-head attention", "model", 0.9, 1000),
        ("uniform attention (control)", "control", 0.4, 1000),
    ]
    assert part.examples == examples
    assert part.synthetic


def test_gather_without_records(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must hold at least one record.json: got "):
        gather(tmp_path)


def test_records_need_no_plotting_library() -> None:
    code = (
        "import sys, mmattn; before = set(sys.modules); import mmattn.report;"
        " assert not {'matplotlib', 'jinja2'} & (set(sys.modules) - before)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
