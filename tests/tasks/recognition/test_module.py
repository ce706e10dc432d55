"""The recognition task: error rates, units, refusals, checkpoints, and that it learns."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning")

from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging

import tasks.speech.recognition
from mmattn import AudioFrames
from mmattn.conformer import build_conformer
from mmattn.recognition import BPEUnits, CharacterUnits
from mmattn.training.cli import main
from mmattn.training.data import PairBatch
from mmattn.training.optim import AdamWCosine
from tasks.speech.frames import VocalTractWarp
from tasks.speech.module import SpecAugment
from tasks.speech.recognition.data import ConnectedDigits
from tasks.speech.recognition.data.manifest import Manifest
from tasks.speech.recognition.module import SpeechRecognition

pytestmark = pytest.mark.usefixtures("aside")

QUICK = {"train_sequences": 48, "val_sequences": 7, "test_sequences": 9, "batch_size": 6, "max_gap": 0.1}


def task(units=None, width=24, rate=8000, **options):
    torch.manual_seed(0)
    adapter = AudioFrames(width, rate, n_mels=20, subsampling=4)
    encoder = build_conformer(width, depth=1, num_heads=2, kernel_size=5, mlp_ratio=2.0)
    return SpeechRecognition(adapter, encoder, CharacterUnits() if units is None else units, **options)


def trainer(epochs=1, callbacks=(), **options):
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    return Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, callbacks=list(callbacks), enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, gradient_clip_val=1.0, **options,
    )  # fmt: skip


def edits(a, b):
    """Levenshtein distance, by the textbook."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


def test_it_learns_and_its_error_rates_are_edits_over_length(fsdd):
    model = task(optimizer=AdamWCosine(lr=6e-3, warmup=0.1), width=32)
    data = ConnectedDigits(str(fsdd), **QUICK | {"train_sequences": 240})
    run = trainer(5)
    run.fit(model, datamodule=data)
    assert float(run.callback_metrics["val/wer"]) < 0.6
    (found,) = run.test(model, datamodule=data, verbose=False)
    said = [text for batch in run.predict(model, datamodule=data) for text in (row["text"] for row in batch)]
    wanted = [data.sets["test"][i].target for i in range(9)]
    words = sum(edits(a.split(), b.split()) for a, b in zip(said, wanted, strict=True))
    letters = sum(edits(a, b) for a, b in zip(said, wanted, strict=True))
    assert found["test/wer"] == pytest.approx(words / sum(len(text.split()) for text in wanted))
    assert found["test/cer"] == pytest.approx(letters / sum(map(len, wanted)))
    assert 0 < found["test/wer"] < 0.6


def test_a_result_does_not_depend_on_batch_mates():
    model = task(CharacterUnits("ab "), spec_augment=SpecAugment(time_share=1.0)).eval()
    waves = [torch.randn(n) * 0.1 for n in (4001, 1999, 7013)]
    together = model(waves).split()
    for wave, logits in zip(waves, together, strict=True):
        assert torch.allclose(model([wave]).values, logits.values, atol=1e-5)


def test_frames_are_changed_and_masked_in_training_alone():
    changes = {"spec_augment": SpecAugment(), "frame_augment": [VocalTractWarp(0.3)]}
    waves = [torch.randn(4001) * 0.1]
    for name, value in changes.items():
        model = task(CharacterUnits("ab "), **{name: value})
        plain = task(CharacterUnits("ab "))(waves).values
        assert not torch.allclose(model.train()(waves).values, plain, atol=1e-4)
        assert torch.equal(model.eval()(waves).values, plain)


def test_another_sample_rate_than_the_adapters_is_refused(fsdd):
    with pytest.raises(
        ValueError, match=r"^data and adapter must have the same sample_rate: got 8000 and 16000 "
    ):
        task(rate=16_000).check_data(ConnectedDigits(str(fsdd)))
    task().check_data(ConnectedDigits(str(fsdd)))


def test_transcripts_that_cannot_be_learnt_are_named_before_training(clips):
    lines = ["path,text,split"]
    lines += ["clips/1.wav,fits,train", "clips/2.wav,far too much text for its frames,train"]
    lines += [
        "clips/3.wav,mississippiss,train",
        "clips/4.wav,änd,val",
        "clips/5.wav,fits,val",
        "clips/0.wav,a,test",
    ]
    (clips / "list.csv").write_text("\n".join(lines), encoding="utf-8")
    data = Manifest(str(clips / "list.csv"), sample_rate=8000)
    # 5,600 samples are 71 frames, 18 tokens; 13 letters with four equal pairs need 17
    with pytest.raises(ValueError, match=r"^every transcript must be of known units, .* got 2 ") as caught:
        trainer().fit(task(), datamodule=data)
    # 32 letters, two of them equal neighbours
    assert "line 3: clips/2.wav (33 frames for its units, of 18)" in str(caught.value)
    assert "line 5: clips/4.wav (a text may hold the characters" in str(caught.value)
    assert "clips/3.wav" not in str(caught.value)


def test_changes_of_speed_count_when_room_is_checked(clips):
    (clips / "list.csv").write_text(
        "path,text,split\nclips/3.wav,mississippiss,train\nclips/5.wav,mi,val\nclips/0.wav,mi,test\n"
    )
    slow, fast = (Manifest(str(clips / "list.csv"), sample_rate=8000, speed=speed) for speed in (0.0, 0.5))
    model = task(CharacterUnits("misp"))
    model.check_transcripts(slow)
    with pytest.raises(ValueError, match=r"clips/3.wav \(17 frames for its units, of 14\)"):
        model.check_transcripts(fast)


@pytest.mark.parametrize(
    "units", [CharacterUnits, lambda: BPEUnits(vocab_size=300)], ids=["characters", "bpe"]
)
def test_a_checkpoint_has_units_that_were_learnt_also_with_averaged_weights(fsdd, tmp_path, units):
    data = ConnectedDigits(str(fsdd), **QUICK)
    for callbacks in ([], [EMAWeightAveraging(decay=0.5)]):
        model = task(units())
        assert not model.recognizer.units.ready
        run = trainer(callbacks=callbacks, limit_train_batches=2, limit_val_batches=1)
        run.fit(model, datamodule=data)
        run.save_checkpoint(tmp_path / "saved.ckpt")
        expected = run.predict(model, datamodule=data)
        fresh = task(units())
        again = trainer()
        assert again.predict(fresh, datamodule=data, ckpt_path=tmp_path / "saved.ckpt") == expected
        state = torch.load(tmp_path / "saved.ckpt", weights_only=True)["state_dict"]
        assert state["recognizer._extra_state"]["units"] == model.recognizer.units.state() != ""


def test_bfloat16_trains(fsdd):
    model = task(spec_augment=SpecAugment())
    run = trainer(precision="bf16-mixed", limit_train_batches=3, limit_val_batches=1)
    run.fit(model, datamodule=ConnectedDigits(str(fsdd), **QUICK))
    assert 0 < float(run.callback_metrics["train/loss"]) < 100
    assert all(p.isfinite().all() for p in model.parameters())
    assert model([torch.randn(4000)]).values.dtype == torch.float32


def test_beam_search_finds_what_the_best_path_misses():
    model = task(CharacterUnits("ab"), beam_size=4)
    # the best path is two blanks, 0.36; "a" is likelier over its three alignments, 0.64
    probabilities = torch.tensor([[0.6, 0.4, 1e-6], [0.6, 0.4, 1e-6]])
    logits = model([torch.randn(600)])
    logits = type(logits)(probabilities.log(), [2])
    assert model.texts(logits) == [""]
    assert model.texts(logits, beam_size=4) == ["a"]
    model.forward = lambda items: logits
    assert model.predict_step(PairBatch([None], ["a"]), 0) == [{"text": "a"}]
    with pytest.raises(ValueError, match=r"^beam_size must be at least 1: got 0$"):
        task(beam_size=0)


def test_a_normalisation_over_the_training_set_is_learnt_before_training(fsdd):
    torch.manual_seed(0)
    adapter = AudioFrames(16, 8000, n_mels=20, normalize="global")
    encoder = build_conformer(16, depth=1, num_heads=2, kernel_size=5)
    model = SpeechRecognition(adapter, encoder, CharacterUnits())
    run = trainer(limit_train_batches=1, limit_val_batches=1, num_sanity_val_steps=0)
    run.fit(model, datamodule=ConnectedDigits(str(fsdd), **QUICK))
    assert adapter.ready


def test_words_are_parted_by_single_spaces():
    model = task(CharacterUnits(" ab"))
    ids = torch.tensor([1, 2, 1, 0, 1, 3, 1])
    logits = model([torch.randn(600)])
    logits = type(logits)(torch.nn.functional.one_hot(ids, model.recognizer.units.vocab_size).float(), [7])
    assert model.texts(logits) == ["a b"]


class Heard(Callback):
    """The transcripts of each training batch, epoch by epoch."""

    def __init__(self):
        self.texts = {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.texts.setdefault(trainer.current_epoch, []).append(batch.targets)


def test_a_resumed_run_hears_what_it_would_have_heard(fsdd, tmp_path):
    def fit(epochs, path=None):
        heard = Heard()
        seed_everything(3, verbose=False)
        run = trainer(epochs, [heard], limit_train_batches=3, limit_val_batches=1)
        run.fit(task(), datamodule=ConnectedDigits(str(fsdd), **QUICK), ckpt_path=path)
        run.save_checkpoint(tmp_path / "last.ckpt")
        return heard.texts

    whole = fit(2)
    assert whole[0] != whole[1]
    assert fit(1) == {0: whole[0]}
    assert fit(2, tmp_path / "last.ckpt") == {1: whole[1]}


def test_the_command_line_trains_and_writes_what_it_hears(fsdd, monkeypatch, capsys):
    config = Path(tasks.speech.recognition.__file__).parent / "configs/connected_digits.yaml"
    quick = [f"--data.root={fsdd}", "--data.num_workers=0", "--data.batch_size=4", "--data.test_sequences=5"]
    quick += ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false", "--trainer.max_epochs=1"]
    quick += ["--trainer.enable_model_summary=false", "--trainer.limit_train_batches=2"]
    quick += ["--trainer.limit_val_batches=1", "--model.encoder.depth=1"]

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["tasks.speech.recognition", *args])
        main(SpeechRecognition, "tasks.speech.recognition")

    run("fit", f"--config={config}", *quick)
    checkpoint = "runs/connected_digits/checkpoints/last.ckpt"
    run("predict", f"--config={config}", *quick, f"--ckpt_path={checkpoint}", "--model.beam_size=3")
    (path,) = Path("runs").rglob("predictions.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["index"] for row in rows] == list(range(5))
    assert all(set(row["text"]) <= set("0123456789 ") for row in rows)
    with pytest.raises((SystemExit, FileNotFoundError), match=r"recordings/.*: got nowhere$"):
        run("fit", f"--config={config}", *quick, "--data.root=nowhere")
