"""The comparison: what counts as relevant, what is done again, and the line of result."""

from __future__ import annotations

import argparse

import pytest
import torch

pytest.importorskip("lightning")

from mmattn.report import ATTENTION, LINEAR, MAJORITY, UNIFORM, DomainReport, ResultRow
from tasks.compare import jobs
from tasks.compare.__main__ import command_line, domain_report, main, result_line
from tasks.compare.examples import attention_examples, pooling_mass, relevant_tokens
from tasks.compare.jobs import Job
from tasks.compare.suite import ARMS, SUITE


def test_a_token_matters_when_half_of_it_lies_inside():
    spans = torch.tensor([[0, 10], [10, 20], [20, 30], [30, 40]])
    assert relevant_tokens(spans, (15, 34)).tolist() == [False, True, True, False]
    boxes = torch.tensor([[0, 0, 4, 4], [0, 4, 4, 8], [4, 0, 8, 4], [4, 4, 8, 8]])
    assert relevant_tokens(boxes, (0, 0, 4, 6)).tolist() == [True, True, False, False]
    assert relevant_tokens(boxes, (2, 2, 8, 8)).tolist() == [False, True, True, True]


def test_results_are_reused_only_by_the_very_same_code_and_arguments(tmp_path, monkeypatch):
    job = Job("vision", "controls")
    folder = tmp_path / job.name
    folder.mkdir()
    (folder / "done.txt").write_text(jobs.key(job, []))
    assert jobs.done(job, tmp_path, [])
    assert not jobs.done(job, tmp_path, ["--trainer.max_epochs=1"])
    assert not jobs.done(Job("vision", "controls", 1), tmp_path, [])
    with monkeypatch.context() as patch:
        patch.setattr(jobs, "versions", lambda: {"torch": "0"})
        assert not jobs.done(job, tmp_path, [])


def test_a_changed_source_is_another_result_wherever_the_clone_lies(tmp_path, monkeypatch):
    root = tmp_path / "report" / "clone"
    (root / "mmattn").mkdir(parents=True)
    (root / "tasks").mkdir()
    monkeypatch.setattr(jobs, "ROOT", root)
    keys = []
    for text in ("a = 1", "a = 2"):
        (root / "mmattn" / "x.py").write_text(text)
        keys.append(jobs.key(Job("vision", "attention"), []))
    assert keys[0] != keys[1]


def test_a_failed_job_leaves_no_mark(tmp_path):
    with pytest.raises(SystemExit):
        jobs.run(Job("vision", "attention"), tmp_path, ["--no.such=1"], lambda share: None)
    assert not (tmp_path / "vision-attention-0" / "done.txt").exists()


def test_each_domain_builds_every_arm_with_equal_parameters(tmp_path):
    pytest.importorskip("espeakng_loader")
    for part in SUITE:
        models = [jobs.build(Job(part.domain, arm), tmp_path, []).model for arm in ARMS]
        assert len({sum(p.numel() for p in model.parameters()) for model in models}) == 1
        scales = [{m.scale for m in model.modules() if hasattr(m, "num_kv_heads")} for model in models]
        assert scales == [{None}, {0.0}]


def test_examples_come_from_the_model_and_the_scene(tmp_path):
    cli = jobs.build(Job("vision", "attention"), tmp_path, ["--model.encoder.init_args.depth=2"])
    scenes = cli.datamodule.sets["test"]
    found = attention_examples(cli.model, scenes)
    assert {example.predicted_label == example.true_label for example in found} == {True, False}
    for example in found:
        assert [len(layer.heads) for layer in example.layers] == [4, 4, 4]
        assert len(example.picture.tokens) == len(example.layers[0].heads[0]) == 64
        assert example.relevant_share == pytest.approx(16 / 64, abs=0.15)
    cli.model.eval()
    mass, share = pooling_mass(cli.model, scenes, most=7)
    assert 0 < mass < 1
    assert 0.1 < share < 0.4


def test_what_stands_between_words_is_shown(tmp_path):
    cli = jobs.build(Job("text", "attention"), tmp_path, ["--model.encoder.init_args.depth=1"])
    scenes = cli.datamodule.sets["test"]
    for example in attention_examples(cli.model, scenes):
        texts = {scenes[index].item for index in range(len(scenes))}
        assert "".join(example.picture.tokens) in texts
        quoted = [
            token
            for token, flag in zip(example.picture.tokens, example.picture.relevant, strict=True)
            if flag
        ]
        assert "«" in quoted[0]
        assert quoted[-1] == "»"


def test_a_domain_runs_from_training_to_its_part_of_the_report(tmp_path):
    quick = ["--trainer.max_epochs=2", "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1"]
    shares = []
    for arm in (*ARMS, "controls"):
        job = Job("vision", arm, 1)
        jobs.run(job, tmp_path, quick, shares.append)
        assert jobs.done(job, tmp_path, quick)
    assert shares[-1] == 1.0
    report = domain_report(SUITE[0], tmp_path, 1)
    assert [row.name for row in report.rows] == [ATTENTION, UNIFORM, LINEAR, MAJORITY]
    assert [(run.arm, run.seed, len(run.epochs)) for run in report.runs] == [
        ("attention", 1, 2),
        ("uniform", 1, 2),
    ]
    assert report.standard_level == "3 fragments"
    linear = report.rows[2]
    assert linear.plain is not None
    assert linear.standard is not None
    assert linear.plain > 0.85 > 0.4 > linear.standard  # the controls are real whatever the trainings are
    assert len(report.examples) == 2
    assert "of their attention on the tokens" in report.description


def test_a_comparison_without_distractors_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^a comparison needs distractors, level at least 1: got 0$"):
        jobs.build(Job("vision", "attention"), tmp_path, ["--data.level=0"])


def test_the_command_names_what_was_asked_for():
    asked = argparse.Namespace(seed=2, extra=["--data.level=5"])
    assert command_line(asked) == "make report ARGS='--seed 2 -- --data.level=5'"
    assert command_line(argparse.Namespace(seed=0, extra=[])) == "make report"


def test_a_line_of_result_names_the_controls():
    rows = [
        ResultRow(ATTENTION, "model", 0.98, 0.914, 500),
        ResultRow(UNIFORM, "control", 0.9, 0.5, 500),
        ResultRow(LINEAR, "control", 0.91, 0.168, 500),
        ResultRow(MAJORITY, "control", 0.1, 0.1, 500),
    ]
    report = DomainReport("vision", "t", "d", False, "accuracy", "three fragments", rows)
    assert result_line(report) == (
        "vision  plain / among distractors: attention 98.0 / 91.4 %, uniform 90.0 / 50.0 %, linear 91.0 / 16.8 %"
    )


def test_workers_must_be_positive(capsys):
    with pytest.raises(SystemExit):
        main(["--workers", "0"])
    assert "--workers must be at least 1: got 0" in capsys.readouterr().err
