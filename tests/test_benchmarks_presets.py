"""The presets' benchmark: which runs there are, which are done, and what they say together."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import get_type_hints

import pytest
import yaml

pytest.importorskip("lightning")

from benchmarks.presets import joint, results
from benchmarks.presets.__main__ import _slow, main
from benchmarks.presets.members import accuracy
from benchmarks.presets.presets import PRESETS, Goal, preset
from benchmarks.presets.results import Run
from benchmarks.presets.run import train
from benchmarks.presets.training import named


def finish(run: Run, folder, value: float, minutes: float = 1.0) -> None:
    place = results.place(run, folder)
    place.mkdir(parents=True)
    metrics = {goal.metric: value for goal in run.preset.goals}
    found = {"metrics": metrics, "minutes": minutes, "outside_share": 0.25}
    (place / "results.json").write_text(json.dumps(found))
    results.mark(run, folder)


def test_each_preset_names_what_exists():
    for each in PRESETS:
        assert each.path.is_file(), each.config
        assert each.before is None or (results.ROOT / each.before[1]).is_file()


def test_each_control_tells_one_share():
    for each in PRESETS:
        assert each.control is None or get_type_hints(named(each.control))["return"] is float, each.control


def test_every_variant_runs_with_every_seed_and_its_control():
    names = [run.name for run in results.runs_of(preset("fsdd-speakers"), [0, 4])]
    assert len(names) == len(set(names)) == 6 * 2 + 6
    assert "fsdd-speakers-theo-4" in names
    assert "fsdd-speakers-theo-control" in names


def test_a_run_is_done_until_code_or_configuration_change(tmp_path, monkeypatch):
    run = Run(preset("sst2"), "", 0)
    assert not results.done(run, tmp_path)
    finish(run, tmp_path, 0.5)
    assert results.done(run, tmp_path)
    other = replace(run.preset, config="tasks/vision/configs/digits.yaml")
    assert not results.done(Run(other, "", 0), tmp_path)


def test_mean_and_worst_of_the_variants(tmp_path):
    each, seeds = preset("fsdd-speakers"), [0, 1]
    for index, (name, _) in enumerate(each.variants):
        finish(Run(each, name, 0), tmp_path, 0.90 - index / 100, minutes=index)
        finish(Run(each, name, 1), tmp_path, 0.92 - index / 100)
    mean_bar, worst_bar, time_bar = results.bars([each], seeds, tmp_path)
    assert mean_bar.value == pytest.approx(91 - 2.5)
    assert worst_bar.value == pytest.approx(91 - 5)
    assert mean_bar.note == "12 of 12 runs"
    assert (time_bar.value, time_bar.limit) == (5, 5)
    assert time_bar.holds


def test_what_was_not_run_does_not_hold(tmp_path):
    for bar in results.bars(list(PRESETS), [0], tmp_path):
        assert math.isnan(bar.value)
        assert not bar.holds


def test_a_figure_holds_only_when_all_seeds_were_run(tmp_path):
    each = preset("sst2")
    finish(Run(each, "", 0), tmp_path, 0.9, minutes=2.0)
    accuracy, time = results.bars([each], [0, 1], tmp_path)
    assert math.isnan(accuracy.value)
    assert not accuracy.holds
    assert accuracy.note == "1 of 2 runs; so far 90"
    assert (time.holds, time.note) == (False, "1 of 2 runs; so far 2")
    assert all(bar.holds for bar in results.bars([each], [0], tmp_path))


def test_goals_that_must_stay_under_take_the_largest_as_the_worst():
    goal = Goal("test/wer", 1.3, at_least=False, of="worst")
    assert results.figure(goal, {"a": {0: 1.0, 1: 2.0}, "b": {0: 0.5}}) == 1.5
    assert math.isnan(results.figure(goal, {"a": {0: 1.0}, "b": {}}))


def test_every_goal_is_in_the_unit_of_its_results(tmp_path):
    """What a task measures as a share is held against a limit in percent or BLEU; seconds stay seconds."""
    for each in PRESETS:
        for goal in each.goals:
            seconds = goal.metric.endswith("seconds")
            assert goal.factor == (1 if seconds else 100), goal
    translation = preset("multi30k")
    finish(Run(translation, "", 0), tmp_path, 0.41)
    assert results.values(translation, translation.goals[0], [0], tmp_path) == {"": {0: pytest.approx(41)}}


def test_a_control_is_no_part_of_what_a_training_depends_on(tmp_path, monkeypatch):
    each = preset("dates")
    found = [results.key(run) for run in (Run(each, "", 0), Run(each, "", None))]
    place = results.ROOT / each.control.split(":")[0].replace(".", "/")
    read = Path.read_bytes

    def changed(path):
        return read(path) + (b"#" if path == place.with_suffix(".py") else b"")

    monkeypatch.setattr(Path, "read_bytes", changed)
    again = [results.key(run) for run in (Run(each, "", 0), Run(each, "", None))]
    assert again[0] == found[0]
    assert again[1] != found[1]


def test_the_table_tells_seeds_control_and_time(tmp_path, capsys):
    each = preset("sst2")
    finish(Run(each, "", 0), tmp_path, 0.8)
    finish(Run(each, "", 1), tmp_path, 0.9, minutes=2.5)
    finish(Run(each, "", None), tmp_path, 0.7)
    status = main(["--only", "sst2", "--seeds", "0", "1", "--runs", str(tmp_path), "--table"])
    shown = capsys.readouterr().out
    assert f"| {each.title} | 80.00, 90.00 % | 85.00 | 70.00 | 2.5 | 25% |" in shown
    assert shown.splitlines()[-1] == "bars: 2 of 2 hold"
    assert status == 0


def test_an_ensemble_is_trained_member_by_member_and_judged_as_one(tmp_path):
    rows = ["a fine warm film\t1", "a dull cold film\t0"]
    for name, count in (("train", 12), ("dev", 4), ("test", 5)):
        (tmp_path / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *rows * count, ""]))
    short = tmp_path / "short.yaml"
    recipe = yaml.safe_load((results.ROOT / preset("sst2").config).read_text())
    recipe["trainer"] |= {"max_epochs": 3, "accelerator": "cpu"}
    recipe["data"]["init_args"]["batch_size"] = 4
    averaging = next(part for part in recipe["trainer"]["callbacks"] if "Averaging" in part["class_path"])
    averaging["init_args"] = {"decay": 0.5, "update_every_n_steps": 1}
    recipe["model"]["optimizer"]["lr"] = 1e-2
    short.write_text(yaml.safe_dump(recipe))
    each = replace(preset("sst2"), config=str(short), members=((), ("--model.label_smoothing=0.2",)))
    found = train(each, "", 3, tmp_path, tmp_path)
    assert found["metrics"]["test/accuracy"] == 1.0
    assert len(found["members"]) == 2
    assert min(found["members"]) > 0.5
    assert len(found["curve"]) == 3
    assert not list(tmp_path.glob("*.ckpt"))


def test_the_accuracy_of_what_predicts_is_counted_over_all_batches():
    def predict(items, top):
        assert len(items) <= 64
        return [{"label": "yes" if item % 3 else "no"} for item in items]

    labels = [int(i % 2 == 1) for i in range(150)]
    examples = [SimpleNamespace(item=i, label=label) for i, label in enumerate(labels)]
    model = SimpleNamespace(predict=predict, outputs={"class_names": ["no", "yes"]})
    expected = sum((i % 3 > 0) == (i % 2 == 1) for i in range(150)) / 150
    assert accuracy(model, examples) == expected


def test_absent_data_are_named(tmp_path, capsys):
    args = ["--only", "sst2", "--seeds", "0", "--data", str(tmp_path / "none"), "--runs", str(tmp_path)]
    assert main(args) == 1
    output = capsys.readouterr()
    assert "none/sst2 does not exist" in output.err
    assert output.out.splitlines()[-1] == "bars: 0 of 2 hold"


def test_a_precision_that_this_cpu_is_slow_in_is_told_for_the_trainings_that_ask_for_it(monkeypatch):
    monkeypatch.setattr(
        "mmattn.training.precision._seconds", lambda dtype: 7.0 if dtype.itemsize == 2 else 1.0
    )
    runs = [Run(preset(name), "", seed) for name in ("cifar10", "sst2", "multi30k") for seed in (None, 0, 1)]
    (told,) = _slow(runs)
    assert told.startswith("cifar10, multi30k: precision should not be slower than 32-true: got 'bf16-mixed'")
    assert _slow([Run(preset("cifar10"), "", None)]) == []
    monkeypatch.setattr("mmattn.training.precision._seconds", lambda dtype: 1.0)
    assert _slow(runs) == []


def test_the_joint_trunk_is_judged_by_its_worst_sense(tmp_path):
    unknown, time = joint.bars([0], tmp_path)
    assert not unknown.holds
    assert not time.holds
    verdicts = {"vision": -0.4, "speech": -2.0, "text": 0.3}
    found = {
        "verdicts": {sense: {"joint_over_separate": value} for sense, value in verdicts.items()},
        "runs": [{"kind": "joint", "seed": 0, "minutes": {"data": 0.5, "training": 3.5}}],
    }
    (tmp_path / "joint").mkdir()
    (tmp_path / "joint" / "joint.json").write_text(json.dumps(found))
    behind, time = joint.bars([0], tmp_path)
    assert (behind.value, behind.limit, behind.holds) == (2.0, 1.5, False)
    assert behind.note == "1 of 1 runs; vision -0.4, speech -2.0, text +0.3"
    assert (time.value, time.holds) == (4.0, True)


def test_the_table_of_the_joint_trunk_is_shown(tmp_path, capsys):
    assert main(["--only", "joint", "--runs", str(tmp_path), "--table"]) == 1
    assert capsys.readouterr().out.lstrip().startswith("| figure |")
    (tmp_path / "joint").mkdir()
    (tmp_path / "joint" / "joint.md").write_text("| arm | minutes |\n")
    (tmp_path / "joint" / "joint.json").write_text(json.dumps({"verdicts": {}, "runs": []}))
    assert main(["--only", "joint", "--runs", str(tmp_path), "--table"]) == 1
    assert capsys.readouterr().out.startswith("| arm | minutes |\n\n| figure |")
