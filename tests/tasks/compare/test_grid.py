"""Grids as files: what they ask for, and what is refused."""

from __future__ import annotations

import json

import pytest

from tasks.compare.arms import ARMS
from tasks.compare.grid import CONFIGS, DOMAINS, Grid, flat
from tasks.compare.jobs import Job, config_path, identity, sources
from tasks.compare.suite import ROOT


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_each_configuration_is_read(path):
    jobs = Grid.load(path).jobs()
    assert len({job.name for job in jobs}) == len(jobs)
    assert {job.domain for job in jobs} - {"speed", "joint"} == set(DOMAINS)
    assert Grid.load(path.stem).jobs() == jobs


def test_the_configurations_are_as_large_as_promised():
    quick, standard, full = (Grid.load(name) for name in ("quick", "standard", "full"))
    assert len(quick.seeds) == 3
    assert {"attention", "uniform", "convolution", "heads_1", "linear"} <= set(quick.arms)
    assert len(standard.seeds) == 5
    assert len(full.seeds) == 10
    assert set(standard.arms) == set(full.arms) == {*ARMS, "linear", "majority"}
    assert set(full.overrides) == {"joint"}
    assert standard.joint == full.joint == ("joint", "separate", "third")
    assert all(grid.speed is not None and grid.explore_seed == 0 for grid in (quick, standard, full))


def test_jobs_come_from_domains_arms_and_seeds():
    plain = {
        "name": "some", "domains": ["vision", "text"], "arms": ["attention", "mlp", "linear"], "seeds": 2,
        "explore_seed": 1, "explore_scenes": 3, "levels": {"text": [1]}, "measuring": {"examples": 50},
        "overrides": {"vision": {"trainer": {"max_epochs": 2}}}, "speed": {"rounds": 2}, "extra": ["--a=b"],
    }  # fmt: skip
    jobs = Grid.read(plain).jobs()
    names = [job.name for job in jobs]
    trained = {
        f"{domain}-{arm}-{seed}"
        for domain in ("vision", "text")
        for arm in ("attention", "mlp")
        for seed in (0, 1)
    }
    assert set(names[:-3]) == trained
    assert names[-3:] == ["vision-linear-0", "text-linear-0", "speed-speed-0"]
    by_name = {job.name: job for job in jobs}
    assert by_name["vision-mlp-1"].overrides == ("--trainer.max_epochs=2", "--a=b")
    assert by_name["text-mlp-1"].overrides == ("--a=b",)
    assert by_name["text-linear-0"].measuring == {"examples": 50, "levels": [1]}
    assert by_name["speed-speed-0"].measuring == {"rounds": 2}
    assert by_name["speed-speed-0"].alone
    assert {job.name for job in jobs if job.explore} == {"vision-attention-1", "text-attention-1"}
    assert by_name["text-attention-1"].explore == 3
    for job in jobs:
        assert Job.read(json.loads(json.dumps(job.plain()))) == job


def test_joint_runs_stand_beside_one_trunk_for_each_sense():
    plain = {
        "name": "some", "seeds": 2, "joint": ["joint", "third"], "measuring": {"examples": 50, "focus_scenes": 9},
        "overrides": {"joint": {"trainer": {"max_epochs": 2}}}, "extra": ["--a=b"],
    }  # fmt: skip
    jobs = [job for job in Grid.read(plain).jobs() if job.domain == "joint"]
    arms = ["joint", "third_vision", "third_speech", "third_text"]
    assert [job.name for job in jobs] == [f"joint-{arm}-{seed}" for seed in (0, 1) for arm in arms]
    assert all(job.overrides == ("--trainer.max_epochs=2", "--a=b") for job in jobs)
    assert all(job.measuring == {"examples": 50} for job in jobs)


def test_what_a_joint_run_depends_on():
    names = {path.relative_to(ROOT).as_posix() for path in sources("joint")}
    assert {
        "tasks/joint/module.py", "tasks/vision/module.py", "tasks/speech/module.py", "tasks/text/module.py",
        "tasks/compare/joint.py", "tasks/compare/training.py", "mmattn/attention.py",
    } <= names  # fmt: skip
    assert "tasks/compare/joint.py" not in {path.relative_to(ROOT).as_posix() for path in sources("vision")}
    first, second = Job("joint", "joint"), Job("joint", "separate_text")
    assert len({identity(first), identity(second), identity(Job("vision", "attention"))}) == 3
    assert config_path("joint").name == "trio.yaml"


def test_nested_settings_become_arguments():
    nested = {
        "model": {"encoder": {"init_args": {"depth": 2}}, "pool": "mean"},
        "data": {"shares": [1, 2], "on": True},
    }
    assert flat(nested) == [
        "--model.encoder.init_args.depth=2", "--model.pool=mean", "--data.shares=[1, 2]", "--data.on=true",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("arms: [atention]", "arms must be among attention, .*: got 'atention'"),
        ("domains: [smell]", "domains must be among vision, speech, text: got 'smell'"),
        ("joint: [moved]", "joint must be among joint, separate, third: got 'moved'"),
        ("seeds: []", r"seeds must name something, each once: got \[\]"),
        ("seeds: [1, 1]", r"seeds must name something, each once: got \[1, 1\]"),
        ("seeds: [-1]", r"seeds must be whole numbers of at least 0: got \[-1\]"),
        ("seeds: many", "seeds must be a list: got 'many'"),
        ("explore_seed: 4", "explore_seed must be one of the seeds: got 4"),
        ("sedes: 4", "settings must be among name, .*: got 'sedes'"),
        ("overrides: {touch: {}}", "overrides must be among vision, speech, text, joint: got 'touch'"),
        ("- 1", "must hold settings by name: got list"),
        ("a: [", "must be YAML: "),
    ],
)
def test_what_does_not_fit_is_said_in_a_sentence(tmp_path, settings, said):
    path = tmp_path / "some.yaml"
    path.write_text(settings)
    with pytest.raises(ValueError, match=said) as refused:
        Grid.load(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_configuration_names_those_that_are_there():
    with pytest.raises(ValueError, match=r"must be a file, or one of .*quick.*: got nothing"):
        Grid.load("nothing")
