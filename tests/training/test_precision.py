"""A precision that the processor cannot compute in is told before hours are lost."""

from __future__ import annotations

import warnings

import pytest
import torch

pytest.importorskip("lightning")

from lightning import Trainer

from mmattn import TextTokens, build_encoder
from mmattn.training import precision
from tasks.text.data import TextTable
from tasks.text.module import TextClassification


def seconds(bfloat16: float):
    return lambda dtype: {torch.bfloat16: bfloat16, torch.float32: 1.0}[dtype]


def test_what_is_slower_is_told_with_how_much_and_what_to_do(monkeypatch):
    monkeypatch.setattr(precision, "_seconds", seconds(61.0))
    told = precision.slow_precision("bf16-mixed")
    assert "got 'bf16-mixed', whose matrix products take 61 times as long" in told
    assert told.endswith("train with --trainer.precision 32-true")
    assert precision.slow_precision("bf16-true") is not None
    assert precision.slow_precision("32-true") is None


def test_what_is_faster_is_not_told(monkeypatch):
    monkeypatch.setattr(precision, "_seconds", seconds(0.2))
    assert precision.slow_precision("bf16-mixed") is None


def test_the_shortest_of_three_products_counts(monkeypatch):
    clock = iter([0.0, 5.0, 10.0, 12.0, 20.0, 29.0, 30.0, 33.0, 40.0, 44.0, 50.0, 51.0])
    monkeypatch.setattr(precision.time, "perf_counter", lambda: next(clock))
    assert precision.times_slower(torch.bfloat16) == 2.0  # the shortest of 5, 2, 9 over that of 3, 4, 1


@pytest.mark.parametrize("slow", [True, False])
def test_training_says_it_and_trains_as_asked(tmp_path, monkeypatch, slow):
    monkeypatch.setattr(precision, "_seconds", seconds(9.0 if slow else 0.5))
    table = tmp_path / "texts.csv"
    table.write_text("text,label\n" + "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(40)))
    data = TextTable(str(table), batch_size=8)
    task = TextClassification(TextTokens(8), build_encoder(8, 1, 2), num_classes=2)
    trainer = Trainer(
        max_steps=1, precision="bf16-mixed", accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path, limit_val_batches=0,
    )  # fmt: skip
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        trainer.fit(task, data)
    assert any("take 9 times as long" in str(each.message) for each in found) == slow
    assert trainer.global_step == 1
    assert trainer.precision == "bf16-mixed"
