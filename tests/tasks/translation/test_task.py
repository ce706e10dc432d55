"""The task: training, averaging, scores, and the configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

pytest.importorskip("lightning")
pytest.importorskip("sacrebleu")
pytest.importorskip("tokenizers")

from lightning import Trainer, seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint

from mmattn import TextTokens, build_decoder, build_encoder
from mmattn.adapters.text import BPETokenizer
from mmattn.training.cli import TaskCLI
from mmattn.training.data import Pair, PairBatch
from mmattn.training.optim import AdamWCosine
from mmattn.training.record import RecordRun, arm
from tasks.text.translation.data import ParallelData, ParallelSet, ParallelText
from tasks.text.translation.module import Translation, scores

pytestmark = pytest.mark.usefixtures("aside")

D = 24
CONFIGS = Path(__file__).parents[3] / "tasks/text/translation/configs"
WORDS = {"eins": "one", "zwei": "two", "drei": "three", "vier": "four", "rot": "red", "blau": "blue"}


class Numbers(ParallelData):
    """Three German words to English ones, in turned order."""

    def build(self) -> dict[str, ParallelSet]:
        generator = torch.Generator().manual_seed(0)
        draws = torch.randint(0, len(WORDS), (1100, 3), generator=generator).unique(dim=0).tolist()
        german = list(WORDS)
        texts = [[german[i] for i in draw] for draw in draws]
        pairs = [Pair(" ".join(text), " ".join(WORDS[word] for word in text[::-1])) for text in texts]
        order = torch.randperm(len(pairs), generator=generator).tolist()
        pairs = [pairs[i] for i in order]
        return {
            "train": ParallelSet(pairs[40:]),
            "val": ParallelSet(pairs[:20]),
            "test": ParallelSet(pairs[20:40]),
        }


def make(shared: bool = True, **options: Any) -> Translation:
    seed_everything(0, verbose=False)
    options = {"optimizer": AdamWCosine(lr=4e-3), "beam_size": 3, **options}
    return Translation(
        TextTokens(D, BPETokenizer(vocab_size=300)),
        build_encoder(D, 1, 2, positions="sinusoidal"),
        build_decoder(D, 1, 2, context=True, positions="sinusoidal"),
        None if shared else TextTokens(D, BPETokenizer(vocab_size=280)),
        **options,
    )


def trainer(epochs: int, *callbacks: Any, **options: Any) -> Trainer:
    return Trainer(
        accelerator="cpu", max_epochs=epochs, logger=False, enable_progress_bar=False, callbacks=list(callbacks),
        enable_model_summary=False, **options,
    )  # fmt: skip


def test_it_learns_and_its_checkpoint_is_whole() -> None:
    task, data = make(), Numbers(batch_size=16)
    saving = ModelCheckpoint(dirpath="saved", filename="last", monitor="val/loss")
    record = RecordRun()
    fitting = trainer(24, EMAWeightAveraging(decay=0.9), saving, record, gradient_clip_val=1.0)
    fitting.fit(task, data)
    assert float(fitting.callback_metrics["val/exact"]) > 0.9
    assert record.record is not None
    assert record.record.metrics["val/chrf"] > 0.9
    fresh = make()
    assert not fresh.translator.source.tokenizer.ready
    (found,) = trainer(1).test(fresh, data, ckpt_path=saving.best_model_path, verbose=False)
    assert found["test/exact"] > 0.9
    assert found["test/chrf"] > 0.9
    assert found["test/loss"] < 0.5
    texts = [pair.item for pair in data.sets["test"].pairs]
    rows = [row for rows in trainer(1).predict(fresh, data) or [] for row in rows]
    assert [row["text"] for row in rows] == texts
    assert [row["translation"] for row in rows] == fresh.translator.translate(texts, 3)


def test_validation_translates_when_it_is_time() -> None:
    class Count(Translation):
        def translate(self, texts):
            counted.append(self.trainer.current_epoch)
            return list(texts)

    counted: list[int] = []
    task = make()
    task.__class__ = Count
    task.translate_every = 2
    trainer(5, limit_train_batches=1).fit(task, Numbers(batch_size=64))
    assert counted == [1, 3, 4]
    trainer(5).validate(task, Numbers(batch_size=64), verbose=False)
    assert len(counted) == 4


def test_tokenizers_learn_from_their_own_side() -> None:
    for shared in (True, False):
        task, data = make(shared), Numbers()
        trainer(1, limit_train_batches=1, limit_val_batches=0).fit(task, data)
        source, target = task.translator.source.tokenizer, task.translator.target.tokenizer
        assert (source is target) == shared
        assert len(target.encode(["three"])[0]) == 1
        assert (len(source.encode(["three"])[0]) == 1) == shared
        assert len(source.encode(["drei"])[0]) == 1


def test_val_loss_is_that_of_each_token() -> None:
    task, data = make(), Numbers(batch_size=7)
    fitting = trainer(1)
    (found,) = fitting.validate(task, data, verbose=False)
    pairs = data.sets["val"].pairs
    wanted = task.translator.loss([pair.item for pair in pairs], [pair.target for pair in pairs])
    assert found["val/loss"] == pytest.approx(wanted.item(), rel=1e-5)


def test_the_uniform_control_is_the_same_model_with_blind_cross_attention() -> None:
    plain, uniform = make(), make(attention="uniform")
    data = Numbers()
    plain.translator.source.tokenizer.train(data.training_texts() + data.training_targets())
    uniform.load_state_dict(plain.state_dict())
    cross = [block.cross_attention for block in uniform.translator.decoder.blocks]
    context = uniform.translator.encode(["eins zwei drei"])
    shuffled = context.select([0])
    shuffled.values = shuffled.values.flip(0) * torch.linspace(0.5, 1.5, len(context.values))[:, None]
    assert {part.scale for part in cross} == {0.0}
    query = torch.randn(1, 4, D)
    out = cross[0](query, context.values[None])
    mean = cross[0].out_proj(cross[0].kv_proj(context.values)[:, D:].mean(0))
    torch.testing.assert_close(out, mean.expand_as(out))
    assert arm(plain) == "attention"
    assert plain.translator.decoder.blocks[0].cross_attention.scale is None


def test_items_alone_give_what_the_decoder_attends_to() -> None:
    task = make()
    task.translator.source.tokenizer.train(["eins zwei"] * 9)
    with torch.no_grad():
        assert task(["eins", "zwei eins"]).values.shape[1] == D
        logits = task(["eins", "zwei eins"], ["a", "bc"])
    assert logits.values.shape == (5, 301)


def test_scores_are_fractions() -> None:
    found = scores(["a dog runs on green grass", "A cat"], ["a dog runs on green grass", "a cat"])
    assert found["exact"] == 0.5
    assert 0.5 < found["bleu"] < 1
    assert 0.5 < found["chrf"] < 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_smoothing": 1.0}, r"label_smoothing must lie in \[0, 1\): got 1.0"),
        ({"beam_size": 0}, "beam_size must be at least 1: got 0"),
        ({"length_penalty": -1.0}, "length_penalty must not be negative: got -1.0"),
        ({"translate_every": -1}, "translate_every must not be negative: got -1"),
        ({"attention": "none"}, "attention must be 'softmax' or 'uniform': got 'none'"),
    ],
)
def test_numbers_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        make(**options)


@pytest.mark.parametrize("name", ["multi30k.yaml", "two_columns.yaml"])
def test_a_configuration_builds_without_its_files(name: str) -> None:
    path = CONFIGS / name
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    command = f"python -m tasks.text.translation fit --config tasks/text/translation/configs/{name}"
    assert command in path.read_text(encoding="utf-8").split("seed_everything")[0]
    cli = TaskCLI(Translation, ["--config", str(path), "--trainer.accelerator", "cpu"], run=False)
    assert type(cli.datamodule).__name__ == settings["data"]["class_path"].rsplit(".", 1)[-1]
    assert cli.datamodule._sets is None, "the data were read"
    assert cli.trainer.max_epochs == settings["trainer"]["max_epochs"]
    assert cli.model.recipe is not None
    assert cli.model.recipe["class_path"] == "tasks.text.translation.module.Translation"
    for side in (cli.model.translator.source, cli.model.translator.target):
        if not side.tokenizer.ready:
            side.tokenizer.train(["ein Hund läuft", "a dog runs"] * 9)
    batch = PairBatch(["ein Hund", "Hund läuft"], ["a dog", "dog runs"])
    loss = cli.model.translator.loss(batch.items, batch.targets, cli.model.label_smoothing)
    loss.backward()
    assert loss.isfinite()
    assert len(cli.model.translate(batch.items)) == 2


def test_the_configuration_of_two_columns_reads_a_table(tmp_path: Path) -> None:
    file = tmp_path / "pairs.tsv"
    file.write_text("source\ttarget\n" + "".join(f"eins {i}\tone {i}\n" for i in range(30)), encoding="utf-8")
    args = ["--config", str(CONFIGS / "two_columns.yaml"), "--data.train_file", str(file)]
    cli = TaskCLI(Translation, [*args, "--trainer.accelerator", "cpu"], run=False)
    assert isinstance(cli.datamodule, ParallelText)
    assert len(cli.datamodule.sets["train"]) == 24
