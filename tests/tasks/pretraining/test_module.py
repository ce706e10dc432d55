"""Pre-training from the command line, and fine-tuning from its checkpoint."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import yaml

pytest.importorskip("lightning")
pytest.importorskip("tokenizers")

import tasks.text.data
import tasks.text.pretraining.data  # so that --data knows the short names
from mmattn import TextNgrams, TextTokens, build_encoder
from mmattn.adapters.text import BPETokenizer
from mmattn.language import WordVocabulary
from mmattn.training.cli import TaskCLI
from tasks.text.module import TextClassification
from tasks.text.pretraining.module import MaskedLanguageModelling
from tasks.text.pretraining.weights import load_pretrained

pytestmark = pytest.mark.usefixtures("aside")

ROOT = Path(__file__).parents[3]
PAIRS = [("red", "apple"), ("green", "leaf"), ("blue", "sky")]
QUIET = [
    "--trainer.accelerator=cpu",
    "--trainer.logger=false",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
]


@pytest.fixture
def texts(aside) -> Path:
    lines = [f"the {colour} {thing} number {i}" for i in range(20) for colour, thing in PAIRS]
    Path("lines.txt").write_text("\n".join(lines), encoding="utf-8")
    rows = [f"{line}\t{line.split()[1]}" for line in lines]
    Path("table.tsv").write_text("\n".join(["text\tlabel", *rows]), encoding="utf-8")
    return Path("lines.txt")


def adapter_of(kind: str) -> list[str]:
    if kind == "words":
        return [
            "--model.adapter=mmattn.TextNgrams",
            "--model.adapter.buckets=211",
            "--model.adapter.word_ngrams=2",
        ]
    tokenizer = "--model.adapter.tokenizer=mmattn.adapters.text.BPETokenizer"
    return [
        "--model.adapter=mmattn.TextTokens",
        tokenizer,
        "--model.adapter.tokenizer.init_args.vocab_size=300",
    ]


def arguments(kind: str, **changes: object) -> list[str]:
    encoder = {"embed_dim": 12, "depth": 1, "num_heads": 3} | changes
    return [
        *adapter_of(kind),
        "--model.adapter.embed_dim=12",
        "--model.encoder=mmattn.build_encoder",
        *(f"--model.encoder.{name}={value}" for name, value in encoder.items()),
        *QUIET,
    ]


def pretrain(kind: str, epochs: int = 1, lr: float = 0.01) -> TaskCLI:
    data = ["--data=TextLines", "--data.train_file=lines.txt", "--data.batch_size=20"]
    args = ["fit", *data, *arguments(kind), f"--trainer.max_epochs={epochs}", f"--model.optimizer.lr={lr}"]
    if kind == "words":
        args += ["--model.vocabulary=mmattn.language.WordVocabulary", "--model.vocabulary.size=40"]
    cli = TaskCLI(MaskedLanguageModelling, args)
    cli.trainer.save_checkpoint("pretrained.ckpt")
    return cli


def fine_tune(kind: str, *more: str, **changes: object) -> TaskCLI:
    data = ["--data=TextTable", "--data.train_file=table.tsv"]
    args = [*data, *arguments(kind, **changes), "--model.pretrained=pretrained.ckpt", *more]
    return TaskCLI(TextClassification, args, run=False)


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_it_learns_and_its_figures_agree(texts):
    cli = pretrain("words", epochs=8, lr=0.03)
    found = {k: float(v) for k, v in cli.trainer.callback_metrics.items()}
    assert found["train/loss"] < math.log(40) - 0.5
    assert found["val/perplexity"] == pytest.approx(math.exp(found["val/loss"]), rel=1e-3)
    assert 0 < found["val/accuracy"] < 1
    first = cli.trainer.validate(cli.model, cli.datamodule, verbose=False)
    assert first == cli.trainer.validate(
        cli.model, cli.datamodule, verbose=False
    )  # the same tokens are hidden
    (tested,) = cli.trainer.test(cli.model, cli.datamodule, verbose=False)
    assert {"test/loss", "test/accuracy", "test/perplexity"} <= set(tested)
    record = json.loads(Path("record.json").read_text())
    assert record["metrics"]["val/accuracy"] == pytest.approx(first[0]["val/accuracy"])
    assert record["domain"] == "text"


@pytest.mark.parametrize("kind", ["words", "bpe"])
def test_a_classifier_begins_with_what_was_pretrained(texts, kind):
    language = pretrain(kind).model.model
    cli = fine_tune(kind, "--model.adapter.token_dropout=0.3", "--model.adapter.dropout=0.1", dropout=0.2)
    before = [p.clone() for p in cli.model.head.parameters()]
    assert not same(cli.model.encoder, language.encoder)
    cli.trainer.fit_loop.max_epochs = 0
    cli.trainer.fit(cli.model, cli.datamodule)
    assert same(cli.model.encoder, language.encoder)
    assert same(cli.model.adapter, language.adapter)
    assert all(torch.equal(a, b) for a, b in zip(before, cli.model.head.parameters(), strict=True))
    if kind == "bpe":
        assert cli.model.adapter.tokenizer.state() == language.adapter.tokenizer.state() != ""


def test_resuming_and_testing_need_no_pretrained_file(texts):
    pretrain("words")
    cli = fine_tune("words")
    Path("pretrained.ckpt").unlink()
    (tested,) = cli.trainer.test(cli.model, cli.datamodule, verbose=False)
    assert "test/accuracy" in tested


@pytest.mark.parametrize(
    ("more", "changes", "sentence"),
    [
        ([], {"num_heads": 2}, r"^the encoder must be that of the pre-trained model: got num_heads=2 for 3$"),
        ([], {"depth": 2}, r"^the encoder must be that of the pre-trained model: got depth=2 for 1$"),
        (["--model.adapter.max_ngram=3"], {}, r"^the adapter must be that .*: got max_ngram=3 for 4$"),
    ],
)
def test_another_model_is_refused(texts, more, changes, sentence):
    pretrain("words")
    cli = fine_tune("words", *more, **changes)
    with pytest.raises(ValueError, match=sentence):
        cli.trainer.fit(cli.model, cli.datamodule)


def test_without_recipes_the_shapes_are_compared(texts):
    pretrain("words")
    adapter = TextNgrams(12, buckets=211, word_ngrams=2)
    said = load_pretrained("pretrained.ckpt", adapter, build_encoder(12, 1, 3))
    assert said.startswith(
        f"loaded adapter ({sum(p.numel() for p in adapter.parameters()):,} weights) and encoder ("
    )
    with pytest.raises(
        ValueError,
        match=r"^the adapter must have the shapes of the pre-trained one: "
        r"got embedding.weight \[98, 12\] for \[212, 12\]$",
    ):
        load_pretrained("pretrained.ckpt", TextNgrams(12, buckets=97, word_ngrams=2), build_encoder(12, 1, 3))
    with pytest.raises(
        ValueError, match=r"^the encoder must have the weights .*: got 12 that one of them lacks"
    ):
        load_pretrained("pretrained.ckpt", adapter, build_encoder(12, 2, 3))


def test_a_refused_checkpoint_leaves_the_model_as_it_was(texts):
    pretrain("words")
    adapter = TextNgrams(12, buckets=211, word_ngrams=2)
    before = adapter.embedding.weight.clone()
    with pytest.raises(ValueError, match="the encoder"):
        load_pretrained("pretrained.ckpt", adapter, build_encoder(12, 2, 3))
    assert torch.equal(adapter.embedding.weight, before)


def test_what_is_no_pretrained_checkpoint_is_refused():
    parts = TextTokens(12, BPETokenizer(300)), build_encoder(12, 1, 3)
    with pytest.raises(
        FileNotFoundError, match=r"^pretrained must be a file: got none.ckpt, which does not exist$"
    ):
        load_pretrained("none.ckpt", *parts)
    Path("text.ckpt").write_text("no checkpoint")
    with pytest.raises(
        ValueError, match=r"^pretrained must be a checkpoint: got text.ckpt, which cannot be read$"
    ):
        load_pretrained("text.ckpt", *parts)
    torch.save({"weights": {}}, "other.ckpt")
    with pytest.raises(ValueError, match=r"got other.ckpt, which holds no state_dict$"):
        load_pretrained("other.ckpt", *parts)
    torch.save({"state_dict": {"adapter.embedding.weight": torch.zeros(3)}}, "other.ckpt")
    with pytest.raises(
        ValueError, match=r"^pretrained must be a checkpoint of tasks.text.pretraining: got other"
    ):
        load_pretrained("other.ckpt", *parts)


def test_predictions_fill_what_is_hidden(texts):
    task = MaskedLanguageModelling(TextNgrams(12), build_encoder(12, 1, 3), WordVocabulary(9, 1))
    task.model.learn(["a b c d e f"])
    batch = tasks.text.pretraining.data.TextBatch(["a [MASK] c", "plain"])
    first, second = task.predict_step(batch, 0)
    assert [len(guesses) for guesses in first["fills"]] == [5]
    assert set(first["fills"][0][0]) == {"text", "probability"}
    assert second == {"text": "plain", "fills": []}
    json.dumps(first)


CONFIGS = sorted((ROOT / "tasks/text/pretraining/configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_each_config_builds_and_says_how_to_run_it(path):
    text = path.read_text(encoding="utf-8")
    name = path.relative_to(ROOT).as_posix()
    assert f"python -m tasks.text.pretraining fit --config {name}" in text.split("seed_everything")[0]
    cli = TaskCLI(MaskedLanguageModelling, ["--config", str(path), "--trainer.accelerator=cpu"], run=False)
    settings = yaml.safe_load(text)
    assert type(cli.datamodule).__name__ == settings["data"]["class_path"].rsplit(".", 1)[-1]
    cli.model.model.learn(["a short text", "another short text , a longer one"] * 3)
    logits = cli.model(["a short text", "a"])
    assert logits.shape == (
        len(cli.model.model.adapter(["a short text", "a"]).values),
        cli.model.model.vocabulary.size,
    )


def test_fine_tuning_fits_what_is_pretrained():
    """The two configs for SST-2 describe the same adapter and encoder."""
    pretraining = TaskCLI(
        MaskedLanguageModelling,
        ["--config", str(ROOT / "tasks/text/pretraining/configs/sst2.yaml")],
        run=False,
    )
    settings = yaml.safe_load((ROOT / "tasks/text/configs/sst2_finetune.yaml").read_text(encoding="utf-8"))
    callbacks = yaml.safe_load((ROOT / "tasks/text/pretraining/configs/sst2.yaml").read_text())["trainer"][
        "callbacks"
    ]
    kept = next(c["init_args"] for c in callbacks if c["class_path"].endswith("ModelCheckpoint"))
    assert Path(settings["model"]["pretrained"]).parent == Path(kept["dirpath"])
    pretraining.model.model.learn(["a short text"] * 3)
    checkpoint = {"state_dict": pretraining.model.state_dict(), "recipe": pretraining.model.recipe}
    torch.save(checkpoint, "made.ckpt")
    Path("t.tsv").write_text("\n".join(["text\tlabel", *(f"text {i}\t{i % 2}" for i in range(20))]))
    config = dict(settings, data={"class_path": "TextTable", "init_args": {"train_file": "t.tsv"}})
    Path("fine.yaml").write_text(yaml.safe_dump(config))
    cli = TaskCLI(TextClassification, ["--config", "fine.yaml", "--trainer.accelerator=cpu"], run=False)
    load_pretrained("made.ckpt", cli.model.adapter, cli.model.encoder, cli.model.recipe)
    assert same(cli.model.encoder, pretraining.model.model.encoder)
