"""Figures say what the measures say, and name the runs that they come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmattn.report import Measures, figures
from mmattn.report.accuracy import accuracies, trunks
from mmattn.report.figures.lines import merge
from mmattn.report.focus import focus
from mmattn.report.runs import StoredRun, load_runs


@pytest.fixture(scope="module")
def runs(made_up_runs: Path) -> list[StoredRun]:
    return load_runs(made_up_runs)


def run(arm: str, seed: int, **measured: object) -> StoredRun:
    return StoredRun(f"text-{arm}-{seed}", None, Measures("text", arm, seed, **measured))  # type: ignore[arg-type]


def test_curves_merge_to_mean_lowest_and_highest() -> None:
    assert merge([[[0, 0.2], [1, 0.4]], [[0, 0.4], [1, 0.4]]]) == [[0, 0.3, 0.2, 0.4], [1, 0.4, 0.4, 0.4]]


def test_curves_on_other_grids_are_read_off_at_the_first_ones() -> None:
    assert merge([[[0, 1.0], [1, 0.0]], [[0, 0.0], [0.5, 1.0], [1, 0.0]]])[1] == [1, 0, 0, 0]
    assert merge([[[0, 0.0], [0.5, 0.0], [1, 0.0]], [[0, 1.0], [1, 0.0]]])[1] == [0.5, 0.25, 0, 0.5]


def test_accuracy_has_a_line_for_each_way_of_mixing(runs: list[StoredRun]) -> None:
    figure = figures.accuracy(runs)
    assert figure is not None
    assert [panel.domain for panel in figure.panels] == ["vision", "speech", "text"]
    names = [line.name for line in figure.panels[0].lines]
    assert names == ["attention", "uniform mixing", "convolution", "no mixing (MLP)", "linear model"]
    line = figure.panels[0].lines[0]
    assert line.runs == [f"vision-attention-{seed}" for seed in range(3)]
    assert all(low <= y <= high for _, y, low, high in line.points)


def test_number_of_heads_goes_with_its_accuracy() -> None:
    answers = {"heads_1": "1000", "heads_2": "1100", "attention": "1110", "heads_8": "1111"}
    made = [run(arm, 0, correct={"3": found}, standard="3") for arm, found in answers.items()]
    figure = figures.head_counts(made)
    assert figure is not None
    assert [point[:2] for point in figure.panels[0].lines[0].points] == [
        [1, 0.25],
        [2, 0.5],
        [4, 0.75],
        [8, 1.0],
    ]


def test_without_other_head_counts_there_is_no_such_figure() -> None:
    assert figures.head_counts([run("attention", 0, correct={"0": "1"}, standard="0")]) is None


def test_empty_grids_have_no_figures() -> None:
    makers = [getattr(figures, name) for name in ("accuracy", "deletion", "pruning", "learning", "loop")]
    makers += [getattr(figures, name) for name in ("recurrent", "threads", "dots", "redundancy")]
    assert [make([]) for make in makers] == [None] * len(makers)


def test_times_are_medians_between_quartiles() -> None:
    repeats = {"fused/train/64": [0.1, 0.2, 0.3, 0.4, 9.0], "loop/train/64": [1.0], "fused/train/128": [2.0]}
    made = StoredRun("speed-speed-0", None, Measures("speed", "speed", 0, repeats=repeats))
    figure = figures.loop([made])
    assert figure is not None
    (panel,) = figure.panels
    assert [line.name for line in panel.lines] == ["all heads at once", "heads one after another"]
    assert panel.lines[0].points == [[64, 0.3, 0.2, 0.4], [128, 2.0, 2.0, 2.0]]


def test_heads_are_those_of_the_lowest_seed(runs: list[StoredRun]) -> None:
    dots, table = figures.dots(runs), figures.redundancy(runs)
    assert dots is not None
    assert table is not None
    assert dots.panels[0].dots is not None
    assert dots.panels[0].dots.runs == ["vision-attention-0"]
    assert dots.panels[0].dots.heads[5] == "block 2, head 2"
    assert table.panels[2].table is not None
    assert list(table.panels[2].table.layers) == ["block 1", "block 2", "block 3"]


def test_accuracies_count_answers() -> None:
    made = [
        run("attention", 0, correct={"0": "11", "4": "10"}, standard="4"),
        run("attention", 1, correct={"0": "11", "4": "11"}, standard="4"),
        run("majority", 0, correct={"4": "00"}, standard="4"),
    ]
    first, second = accuracies(made)
    assert (first.standard.mean, first.standard.low, first.standard.high) == (0.75, 0.5, 1.0)
    assert first.plain is not None
    assert (first.plain.mean, first.seeds, first.examples) == (1.0, 2, 2)
    assert second.plain is None


def test_trunks_have_a_row_in_each_sense(runs: list[StoredRun]) -> None:
    assert all(row.domain != "joint" for row in accuracies(runs))
    found = {(row.domain, row.arm): row for row in trunks(runs)}
    assert set(found) == {
        (sense, kind) for sense in ("vision", "speech", "text") for kind in ("joint", "separate", "third")
    }
    row = found["speech", "separate"]
    assert row.runs == [f"joint-separate_speech-{seed}" for seed in range(3)]
    assert row.standard.low <= row.standard.mean <= row.standard.high
    assert (row.level, row.examples, row.seeds, row.parameters) == ("", 400, 3, 90_000.0)


def test_focus_is_a_mean_over_seeds() -> None:
    made = [
        run("attention", seed, values={"focus/mass": mass, "focus/share": 0.1})
        for seed, mass in enumerate((0.3, 0.5))
    ]
    (found,) = focus([*made, run("uniform", 0, values={"focus/mass": 0.9, "focus/share": 0.1})])
    assert (found.mass, found.share, len(found.runs)) == (0.4, 0.1, 2)
