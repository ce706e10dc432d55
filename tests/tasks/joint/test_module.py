"""One trunk between several senses: what they share, what is frozen, and how losses are weighted."""

from __future__ import annotations

import math

import pytest
import torch
from lightning import Trainer
from torch import nn
from torch.nn import functional as F

pytest.importorskip("lightning")
pytest.importorskip("torchaudio")
pytest.importorskip("sklearn")

from mmattn import AudioFrames, ImagePatches, TextTokens, build_encoder
from mmattn.adapters.text import BPETokenizer
from mmattn.training.optim import AdamWCosine
from tasks.joint.data import Items, JointBatch, JointData
from tasks.joint.module import JointClassification, Sense, trunk_of
from tasks.joint.weighting import FixedWeights, UncertaintyWeights
from tasks.speech.data import SpokenCommands
from tasks.speech.module import SpecAugment
from tasks.vision.data import Digits

D = 12
CLASSES = {"vision": ["0", "1", "2"], "speech": ["yes", "no"], "text": ["de", "fr", "it", "es", "pt"]}


def make(**options) -> JointClassification:
    torch.manual_seed(1)
    senses = {
        "vision": Sense(ImagePatches(D, 4), label_smoothing=0.1),
        "speech": Sense(AudioFrames(D, 8000, 20), SpecAugment(time_share=1.0), pool="mean"),
        "text": Sense(TextTokens(D)),
    }
    given = {name: sense for name, sense in senses.items() if name in options.get("class_names", CLASSES)}
    encoder = options.pop("encoder", None) or build_encoder(D, 3, 2, dropout=0.2)
    return JointClassification(encoder, options.pop("class_names", CLASSES), **given, **options)


def batch() -> JointBatch:
    torch.manual_seed(2)
    items = {
        "vision": torch.rand(4, 3, 8, 8),
        "speech": [torch.randn(2001), torch.randn(1503), torch.randn(1800)],
        "text": ["eins", "deux", "ein langer Satz", "tre", "cuatro, cinco"],
    }
    return JointBatch(
        Items(items),
        {sense: torch.arange(len(of)) % len(CLASSES[sense]) for sense, of in items.items()},
    )


def test_each_sense_goes_through_its_own_ends_and_one_trunk():
    model, items = make().eval(), batch().items
    logits = model(items)
    assert {sense: tuple(of.shape) for sense, of in logits.items()} == {
        "vision": (4, 3), "speech": (3, 2), "text": (5, 5)
    }  # fmt: skip
    for sense, of in items.by_sense.items():
        adapter, head = model.adapters[sense], model.heads[sense]
        torch.testing.assert_close(logits[sense], head(model.encoder(adapter(of))))
    model.encoder.blocks[1].feed_forward[0].weight.data.mul_(torch.rand(D))
    changed = model(items)
    assert all((changed[sense] - logits[sense]).abs().max() > 1e-4 for sense in logits)


def test_no_result_depends_on_the_rest_of_the_batch():
    model, items = make().eval(), batch().items.by_sense
    whole = model(Items(items))
    for sense, of in items.items():
        for index in range(len(of)):
            alone = model(Items({sense: of[index : index + 1]}))[sense]
            torch.testing.assert_close(alone[0], whole[sense][index], atol=1e-5, rtol=1e-5)


def test_the_loss_is_the_weighted_sum_of_the_smoothed_losses(monkeypatch):
    model, given = make(weighting=FixedWeights(vision=0.5, text=3.0)).eval(), batch()
    monkeypatch.setattr(model, "log", lambda *args, **options: None)
    monkeypatch.setattr(model, "log_dict", lambda *args, **options: None)
    logits = model(given.items)
    each = {
        sense: F.cross_entropy(logits[sense], given.labels[sense], label_smoothing=smoothing)
        for sense, smoothing in (("vision", 0.1), ("speech", 0.0), ("text", 0.0))
    }
    expected = 0.5 * each["vision"] + each["speech"] + 3 * each["text"]
    torch.testing.assert_close(model.training_step(given, 0), expected)


def test_uncertainty_weights_settle_where_variance_is_the_loss():
    weighting, losses = UncertaintyWeights(), {"vision": torch.tensor(0.3), "text": torch.tensor(4.0)}
    optimizer = torch.optim.SGD(weighting.parameters(), lr=0.5)
    for _ in range(300):
        optimizer.zero_grad()
        weighting(losses).backward()
        optimizer.step()
    # exp(-s) loss + s / 2 is least where exp(s) = 2 loss
    assert math.isclose(weighting.log_variances["vision"].exp().item(), 0.6, rel_tol=1e-3)
    assert math.isclose(weighting.log_variances["text"].exp().item(), 8.0, rel_tol=1e-2)
    assert weighting.log_variances["speech"] == 0


def test_frozen_parts_neither_learn_nor_drop():
    model, given = make(frozen=["encoder", "adapters.text"]), batch()
    model.train()
    assert not any(part.training for part in model.encoder.modules())
    assert model.adapters["vision"].training
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimizer, _ = model.optimizer.configure(model, 10)
    sum(F.cross_entropy(of, given.labels[sense]) for sense, of in model(given.items).items()).backward()
    optimizer.step()
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert changed
    assert not any(name.startswith(("encoder.", "adapters.text.")) for name in changed)
    assert {name.rsplit(".", 1)[0].split(".")[0] for name in changed} == {"adapters", "heads"}


def test_the_trunk_of_a_checkpoint_is_taken_up(tmp_path):
    first, path = make(), tmp_path / "first.ckpt"
    torch.save({"state_dict": first.state_dict()}, path)
    torch.manual_seed(7)
    moved = make(
        class_names={"text": CLASSES["text"]},
        encoder=build_encoder(D, 3, 2),
        trunk=str(path),
        frozen=["encoder"],
    )
    for name, value in moved.encoder.state_dict().items():
        assert torch.equal(value, first.encoder.state_dict()[name])
    moved.recipe = {"class_path": "x", "init_args": {"trunk": str(path), "frozen": ["encoder"]}}
    checkpoint = {"state_dict": {}}
    moved.on_save_checkpoint(checkpoint)
    assert checkpoint["recipe"]["init_args"] == {"trunk": None, "frozen": ["encoder"]}
    torch.save({"state_dict": {"other": torch.zeros(2)}}, path)
    with pytest.raises(
        ValueError, match=r"^trunk must be a checkpoint of a model with an encoder: got .*first.ckpt$"
    ):
        trunk_of(str(path))


def test_log_mel_frames_are_augmented_in_training_alone():
    model, waves = make(), batch().items.by_sense["speech"]
    plain = model.adapters["speech"](waves).values
    assert torch.equal(model.eval().tokens("speech", waves).values, plain)
    assert not torch.equal(model.train().tokens("speech", waves).values, plain)


def test_what_does_not_fit_is_refused():
    with pytest.raises(
        ValueError, match=r"^model and data must have the same senses: got vision and vision, text$"
    ):
        JointClassification(
            build_encoder(D, 1, 2),
            {"vision": ["a", "b"], "text": ["c", "d"]},
            vision=Sense(ImagePatches(D, 4)),
        )
    message = r"^adapter and encoder must have the same embed_dim: got 8 for text and 12$"
    with pytest.raises(ValueError, match=message):
        JointClassification(build_encoder(D, 1, 2), {"text": ["c", "d"]}, text=Sense(TextTokens(8)))
    with pytest.raises(
        ValueError, match=r"^frozen must name parts such as encoder, adapters.vision, .*: got 'trunk'$"
    ):
        make(frozen=["trunk"])
    with pytest.raises(ValueError, match=r"^label_smoothing must lie in \[0, 1\): got 1.0 for text$"):
        JointClassification(
            build_encoder(D, 1, 2), {"text": ["c", "d"]}, text=Sense(TextTokens(D), label_smoothing=1.0)
        )
    with pytest.raises(ValueError, match=r"^augment needs the adapter AudioFrames: got TextTokens$"):
        JointClassification(
            build_encoder(D, 1, 2), {"text": ["c", "d"]}, text=Sense(TextTokens(D), SpecAugment())
        )
    with pytest.raises(ValueError, match=r"^weights must not be negative: got .*-1"):
        FixedWeights(speech=-1)
    other_rate = JointClassification(
        build_encoder(D, 1, 2), {"speech": ["c", "d"]}, speech=Sense(AudioFrames(D, 16_000, 20))
    )
    message = "^data and adapter must have the same sample_rate: got 8000 and 16000 samples a second$"
    with pytest.raises(ValueError, match=message):
        other_rate.check_data(JointData(speech=SpokenCommands()))


@pytest.mark.usefixtures("aside")
def test_it_learns_two_senses_at_once_and_tells_them_apart(tmp_path):
    pytest.importorskip("django")
    from tasks.text.data import QuotedLanguage

    data = JointData(vision=Digits(0, batch_size=64), text=QuotedLanguage(0, batch_size=97))
    names = data.class_names
    senses = {
        "vision": Sense(ImagePatches(24, 4, 1)),
        "text": Sense(TextTokens(24, BPETokenizer(400), max_length=40)),
    }
    model = JointClassification(
        build_encoder(24, 2, 2),
        names,
        weighting=UncertaintyWeights(),
        optimizer=AdamWCosine(lr=4e-3),
        **senses,
    )
    trainer = Trainer(
        default_root_dir=tmp_path, max_steps=80, val_check_interval=80, limit_test_batches=3, limit_val_batches=2,
        logger=False, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False,
    )  # fmt: skip
    trainer.fit(model, data)
    metrics = trainer.callback_metrics
    trainer.test(model, data, verbose=False)
    found = {**metrics, **trainer.callback_metrics}
    assert set(found) >= {"train/loss", "train/text_loss", "test_vision/accuracy", "test_text/loss"}
    assert found["test_vision/accuracy"] > 0.3  # chance is 0.1
    assert found["train/text_loss"] < math.log(39)
    assert model.adapters["text"].tokenizer.ready
    rows = [
        row for of_loader in trainer.predict(model, data.predict_dataloader()) for row in of_loader[0][:1]
    ]
    assert [row["sense"] for row in rows] == ["vision", "text"]
    assert [len(row["probabilities"]) for row in rows] == [10, 39]
    mean = (found["val/vision_accuracy"] + found["val/text_accuracy"]) / 2
    torch.testing.assert_close(found["val/accuracy"], mean)


def test_modules_are_found_by_their_names():
    names = {name for name, _ in make().named_children()}
    assert {"encoder", "adapters", "heads", "augments", "weighting"} <= names
    assert isinstance(make().augments["speech"], nn.Module)
