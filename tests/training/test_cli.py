"""The command line: one sentence for each error, and runs that record, repeat, resume and predict."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning")
pytest.importorskip("sklearn")

import tasks.vision.data  # noqa: F401  # so that --data knows the short names
from mmattn.report import RunRecord
from mmattn.training.cli import main
from mmattn.training.sentences import one_sentence
from tasks.vision.module import ImageClassification

pytestmark = pytest.mark.usefixtures("aside")

CONFIG = str(Path(__file__).parents[2] / "tasks/vision/configs/digits.yaml")
QUICK = [
    "--model.encoder.init_args.depth=1",
    "--trainer.limit_train_batches=3",
    "--trainer.limit_val_batches=2",
    "--trainer.limit_test_batches=2",
    "--trainer.limit_predict_batches=2",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
]


def run(monkeypatch, *args: str) -> None:
    monkeypatch.setattr(sys, "argv", ["tasks.vision", *args])
    main(ImageClassification, "tasks.vision")


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--data.batchsize=3"], "there is no field 'batchsize': did you mean 'batch_size'?"),
        (["--model.encoder.depht=3"], "there is no field 'depht': did you mean 'depth'?"),
        (["--trainer.max_epoch=3"], "there is no field 'trainer.max_epoch': did you mean 'max_epochs'?"),
        (["--data.init_args.batch_size=abc"], "batch_size must be of type int: got abc"),
        (["--model.optimizer.lr=abc"], "model.optimizer.lr must be of type float: got abc"),
        (["--data.level=-1"], "level must be at least 0: got -1"),
        (["--model.encoder.num_heads=5"], "num_heads must divide embed_dim: got embed_dim=96, num_heads=5"),
        (
            ["--model.adapter.init_args.embed_dim=64"],
            "adapter and encoder must have the same embed_dim: got 64 and 96",
        ),
        (["--data=NoSuch"], "data must name a known class, or one by its import path: got NoSuch"),
        (["--ckpt_path=none.ckpt"], "ckpt_path must be a file: got none.ckpt, which does not exist"),
    ],
)
def test_one_sentence_for_each_error(monkeypatch, capsys, args, sentence):
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "fit", "--config", CONFIG, *args)
    said = stopped.value.code if isinstance(stopped.value.code, str) else capsys.readouterr().err
    assert said.strip().splitlines()[-1] == f"error: {sentence}"
    assert stopped.value.code != 0
    assert not Path("runs").exists()  # nothing was begun


def test_missing_files_and_folders_are_named(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, "fit", "--config", "none.yaml")
    assert "none.yaml, which does not exist" in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r"error: .*nowhere") as stopped:
        run(monkeypatch, "fit", "--config", CONFIG, "--data=CIFAR10", "--data.root=nowhere")
    assert "\n" not in str(stopped.value.code)


def test_what_a_task_refuses_when_it_prepares_is_one_sentence(monkeypatch):
    from tasks.text.module import TextClassification

    folder = Path("sst2")
    folder.mkdir()
    for name in ("train", "dev", "test"):
        (folder / f"{name}.tsv").write_text("sentence\tlabel\na gem\t1\ndull\t0\n")
    config = Path(__file__).parents[2] / "tasks/text/configs/sst2.yaml"
    words = ["fit", f"--config={config}", "--data.root=sst2", "--model.pretrained=none.ckpt"]
    monkeypatch.setattr(sys, "argv", ["tasks.text", *words])
    with pytest.raises(SystemExit) as stopped:
        main(TextClassification, "tasks.text")
    assert stopped.value.code == "error: pretrained must be a file: got none.ckpt, which does not exist"
    assert not Path("runs").exists()


def test_a_download_that_fails_is_one_sentence(monkeypatch):
    from tasks.vision.data import cifar

    def fail(*args, **kwargs):
        raise RuntimeError("the archive could not be fetched: got no answer")

    monkeypatch.setattr(cifar.datasets, "CIFAR10", fail)
    with pytest.raises(SystemExit) as stopped:
        run(
            monkeypatch,
            "fit",
            "--config",
            CONFIG,
            "--data=CIFAR10",
            "--data.root=new",
            "--data.download=true",
        )
    assert str(stopped.value.code).startswith("error: ")
    assert "\n" not in str(stopped.value.code)


def test_config_before_the_subcommand_is_answered_with_a_hint(monkeypatch):
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "--config", "a.yaml", "test")
    assert stopped.value.code == (
        "error: the subcommand comes before --config: python -m tasks.vision test --config a.yaml"
    )


def test_a_message_that_is_not_known_is_kept_in_one_line():
    assert one_sentence("something\n  else  happened") == "something else happened"


def record() -> RunRecord:
    paths = sorted(Path("runs").rglob("record.json"), key=lambda path: path.stat().st_mtime)
    return RunRecord.load(paths[-1])


def numbers(run_record: RunRecord) -> tuple[object, ...]:
    return run_record.epochs, run_record.metrics, run_record.data.fingerprint


def test_the_same_seed_gives_the_same_numbers_and_another_does_not(monkeypatch):
    found = []
    for seed in (3, 3, 4):
        run(
            monkeypatch,
            "fit",
            "--config",
            CONFIG,
            *QUICK,
            f"--seed_everything={seed}",
            "--trainer.max_epochs=1",
        )
        found.append(record())
    assert numbers(found[0]) == numbers(found[1])
    assert found[0].epochs != found[2].epochs
    first = found[0]
    assert (first.domain, first.arm, first.seed) == ("vision", "attention", 3)
    assert first.config["model"]["encoder"]["init_args"]["depth"] == 1
    assert first.parameters > 50_000
    assert first.flops_per_example is not None
    assert first.flops_per_example > 1e6
    assert first.samples_per_second > 0
    assert first.peak_memory_bytes > 1e8
    assert first.data.counts["test"] == 500
    assert set(first.epochs[0]) == {"epoch", "train_loss", "val_loss", "val_accuracy"}


def test_a_run_resumes_with_its_epochs_and_its_weights_test_and_predict(monkeypatch):
    args = ["--config", CONFIG, *QUICK]
    run(monkeypatch, "fit", *args, "--trainer.max_epochs=1")
    before = record().epochs
    last = "runs/digits/checkpoints/last.ckpt"
    run(monkeypatch, "fit", *args, "--trainer.max_epochs=2", f"--ckpt_path={last}")
    resumed = record()
    assert [row["epoch"] for row in resumed.epochs] == [0, 1]
    assert resumed.epochs[0] == before[0]
    assert resumed.started <= RunRecord.load(sorted(Path("runs").rglob("record.json"))[0]).started
    run(monkeypatch, "test", *args, f"--ckpt_path={last}")
    tested = record().metrics
    assert {"test/accuracy", "test_plain/accuracy"} <= set(tested)
    run(monkeypatch, "predict", *args, f"--ckpt_path={last}")
    files = list(Path("runs").rglob("predictions.jsonl"))
    rows = [json.loads(line) for line in files[0].read_text().splitlines()]
    assert [row["index"] for row in rows] == list(range(64))
    assert all(abs(sum(row["probabilities"].values()) - 1) < 1e-4 for row in rows)
    assert all(row["label"] == max(row["probabilities"], key=row["probabilities"].get) for row in rows)


def test_the_last_epoch_is_kept_where_nothing_improves(monkeypatch):
    # without a step that changes anything, the first epoch stays the best
    still = ["--model.optimizer.lr=1e-12", "--trainer.max_epochs=3"]
    run(monkeypatch, "fit", "--config", CONFIG, *QUICK, *still)
    folder = Path("runs/digits/checkpoints")
    epochs = {path.stem: torch.load(path, weights_only=True)["epoch"] for path in folder.glob("*.ckpt")}
    assert epochs == {"best": 0, "last": 2}


def test_the_uniform_arm_is_recorded_as_such(monkeypatch):
    uniform = ["--model.encoder.init_args.attention=uniform", "--model.pool_attention=uniform"]
    run(monkeypatch, "fit", "--config", CONFIG, *QUICK, *uniform, "--trainer.max_epochs=1")
    assert record().arm == "uniform"
