"""The comparison: its arms, what is done again, and what it concludes."""

from __future__ import annotations

import json
import math

import pytest
import torch
import yaml

pytest.importorskip("lightning")
pytest.importorskip("sklearn")
pytest.importorskip("django")
pytest.importorskip("espeakng_loader")

from tasks.joint import arms as arms_module
from tasks.joint.arms import CONFIG, Arm, Settings, arms, build, load, run, steps_of
from tasks.joint.compare import main
from tasks.joint.findings import bar, difference, table, verdicts
from tasks.joint.module import trunk_of

pytestmark = pytest.mark.usefixtures("aside")


def parameters(model):
    return sum(p.numel() for p in model.encoder.parameters())


def test_arms_are_built_from_the_joint_configuration(tmp_path):
    settings = Settings(steps=7)
    joint = build(Arm("joint"), settings, tmp_path)
    assert list(joint.model.senses) == ["vision", "speech", "text"]
    assert joint.trainer.max_steps == 7
    separate = build(Arm("separate", "speech"), settings, tmp_path)
    assert list(separate.model.senses) == list(separate.datamodule.parts) == ["speech"]
    assert parameters(separate.model) == parameters(joint.model)
    third = build(Arm("third", "speech"), settings, tmp_path)
    assert math.isclose(parameters(third.model), parameters(joint.model) / 3, rel_tol=0.01)
    others = build(Arm("others", "speech"), settings, tmp_path)
    assert list(others.model.senses) == ["vision", "text"]
    random = build(Arm("random", "vision", 3), settings, tmp_path)
    assert not any(p.requires_grad for p in random.model.encoder.parameters())
    assert all(p.requires_grad for p in random.model.adapters.parameters())


def test_a_moved_trunk_is_that_of_the_other_senses(tmp_path):
    settings = Settings(steps=2, extra=("--trainer.limit_test_batches=1",))
    small = ("--data.init_args.speech=null", "--model.speech=null")
    first, moved = Arm("others", "vision", 1), Arm("moved", "vision", 1)
    # without speech, whose synthesis takes its time
    run(first, Settings(steps=2, extra=(*settings.extra, *small)), tmp_path)
    cli = build(moved, settings, tmp_path)
    trunk = trunk_of(str(tmp_path / first.name / "trunk.ckpt"))
    assert all(torch.equal(value, trunk[name]) for name, value in cli.model.encoder.state_dict().items())
    assert not any(p.requires_grad for p in cli.model.encoder.parameters())
    assert list(cli.model.senses) == ["vision"]
    found = json.loads((tmp_path / first.name / "results.json").read_text())
    assert found["steps"] == 2
    assert set(found["accuracy"]) == {"test_text", "test_plain_text"}


def test_no_arm_stands_before_the_one_it_builds_upon():
    found = arms(2)
    assert len(found) == len(set(found)) == 19
    assert {arm.seed for arm in found} == {2}
    for arm in found:
        assert arm.trunk is None or found.index(arm.trunk) < found.index(arm)
    assert Arm("moved", "text", 2).trunk.senses == ("vision", "speech")


def test_a_third_needs_a_depth_that_three_divides(tmp_path):
    settings = Settings(steps=1, extra=("--model.encoder.init_args.depth=4",))
    with pytest.raises(
        ValueError, match=r"^a third of the trunk needs a depth that 3 divides: got 4 blocks$"
    ):
        build(Arm("third", "vision"), settings, tmp_path)


def test_steps_are_those_of_the_joint_run(tmp_path):
    epochs = yaml.safe_load(CONFIG.read_text())["trainer"]["max_epochs"]
    longest = max(
        len(part.train_dataloader())
        for part in build(Arm("joint"), Settings(), tmp_path).datamodule.parts.values()
    )
    assert steps_of(Settings(), tmp_path) == epochs * longest
    assert steps_of(Settings(extra=("--trainer.max_steps=11",)), tmp_path) == 11


def test_results_are_reused_only_by_the_very_same_code_and_arguments(tmp_path, monkeypatch):
    arm, settings = Arm("separate", "vision"), Settings(steps=5)
    folder = tmp_path / "out" / arm.name
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps({"key": arms_module.key(arm, settings)}))
    assert load(arm, settings, tmp_path / "out")
    assert load(arm, Settings(steps=6), tmp_path / "out") is None
    assert load(arm, Settings(steps=5, extra=("--data.mode=min_size",)), tmp_path / "out") is None
    assert load(Arm("separate", "text"), settings, tmp_path / "out") is None
    changed = tmp_path / "other.yaml"
    changed.write_text(CONFIG.read_text() + "# more\n")
    assert load(arm, Settings(changed, 5), tmp_path / "out") is None
    with monkeypatch.context() as patch:
        patch.setattr(arms_module, "versions", lambda: {"torch": "0"})
        assert load(arm, settings, tmp_path / "out") is None


def results(**accuracy):
    counts = {f"test_{sense}": 1000 for sense in ("vision", "speech", "text")}
    found = []
    for kind, values in accuracy.items():
        for seed, of_seed in enumerate(values):
            for sense, value in of_seed.items():
                found.append(
                    {"kind": kind, "sense": sense, "seed": seed, "accuracy": {f"test_{sense}": value},
                     "count": counts, "minutes": {"all": 1.5}, "trunk_parameters": 100}
                )  # fmt: skip
    return found


def test_a_difference_counts_beyond_two_standard_errors():
    runs = results(moved=[{"text": 0.8}, {"text": 0.7}], random=[{"text": 0.6}, {"text": 0.6}])
    found = difference(runs, "moved", "random", "test_text")
    assert found is not None
    assert math.isclose(found.points, 15)
    by_hand = 100 * math.sqrt((0.8 * 0.2 + 0.7 * 0.3 + 2 * 0.6 * 0.4) / 1000) / 2
    assert math.isclose(found.error, by_hand)
    assert found.sign == 1
    close = results(moved=[{"text": 0.62}], random=[{"text": 0.6}])
    assert difference(close, "moved", "random", "test_text").sign == 0
    assert difference(close, "random", "moved", "test_vision") is None
    worse = results(moved=[{"text": 0.4}], random=[{"text": 0.6}])
    assert verdicts(worse)["text"]["verdict"] == "harms"
    assert verdicts(close)["text"]["verdict"] == "does not"
    assert verdicts(runs)["text"]["verdict"] == "transfers"
    assert verdicts(runs)["vision"]["verdict"] is None


def test_the_bar_asks_for_every_sense():
    own = {"vision": 0.9, "speech": 0.8, "text": 0.9}
    near, far = {**own, "speech": 0.786}, {**own, "speech": 0.784}
    assert bar(results(separate=[own], joint=[near]))
    assert not bar(results(separate=[own], joint=[far]))
    assert bar(results(separate=[own, own], joint=[far, {**own, "speech": 0.9}]))  # the mean over seeds
    assert not bar(results(separate=[own], joint=[{"vision": 0.9, "text": 0.9}]))


def test_the_table_shows_what_was_run_and_what_was_not():
    shown = table(results(separate=[{"vision": 0.9}], joint=[{"vision": 0.885}], moved=[{"vision": 0.5}],
                          random=[{"vision": 0.3}]))  # fmt: skip
    assert "| separate: three trunks of P each | 100 | 90.0 | not run | not run | 1.5 |" in shown
    assert "| vision | -1.5 | not run | +20.0 ± 2.1 | -40.0 | transfers |" in shown
    assert "| text | not run | not run | not run | not run | not run |" in shown


def test_it_runs_what_is_missing_and_no_more(tmp_path, capsys, monkeypatch):
    calls = []

    def fake(missing, settings, folder, workers):
        for arm in missing:
            calls.append(arm.name)
            place = folder / arm.name
            place.mkdir(parents=True)
            rows = {f"test_{sense}": 0.5 for sense in arm.senses}
            found = {"kind": arm.kind, "sense": arm.sense, "seed": arm.seed, "accuracy": rows,
                     "count": dict.fromkeys(rows, 100), "minutes": {"all": 1.0},
                     "trunk_parameters": 3, "key": arms_module.key(arm, settings)}  # fmt: skip
            (place / "results.json").write_text(json.dumps(found))

    monkeypatch.setattr("tasks.joint.compare.run_all", fake)
    ask = ["--out", str(tmp_path / "out"), "--steps", "3", "--kinds", "separate"]
    assert main(ask) == 0
    assert sorted(calls) == ["joint-0", "separate-speech-0", "separate-text-0", "separate-vision-0"]
    assert main([*ask[:-1], "separate", "moved"]) == 0
    assert sorted(calls[4:]) == [
        f"{kind}-{sense}-0" for kind in ("moved", "others") for sense in ("speech", "text", "vision")
    ]
    written = json.loads((tmp_path / "out" / "joint.json").read_text())
    assert written["bar"] is True
    assert len(written["runs"]) == 10
    assert (tmp_path / "out" / "joint.md").read_text().startswith("| arm |")
    assert "4 of 10 runs are there, 3 steps each" in capsys.readouterr().out


def test_workers_must_be_positive(capsys):
    with pytest.raises(SystemExit):
        main(["--workers", "0"])
    assert "--workers must be at least 1: got 0" in capsys.readouterr().err
