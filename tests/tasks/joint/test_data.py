"""Three data modules as one."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("lightning")
pytest.importorskip("sklearn")
pytest.importorskip("django")

from tasks.joint.data import JointData
from tasks.text.data import QuotedLanguage
from tasks.vision.data import Digits


def two(mode="max_size_cycle", **options) -> JointData:
    return JointData(
        vision=Digits(batch_size=61, train_levels="mixed"),
        text=QuotedLanguage(batch_size=997),
        mode=mode,
        **options,
    )


def test_sets_and_names_are_those_of_the_senses():
    data = two()
    assert list(data.sets) == [
        f"{name}_{sense}" for sense in ("vision", "text") for name in ("train", "val", "test", "test_plain")
    ]
    assert data.senses == ("vision", "text")
    assert data.tests[1] == ("vision", "test_plain_vision")
    assert data.test_names == ("test_vision", "test_plain_vision", "test_text", "test_plain_text")
    assert len(data.class_names["text"]) == 39
    assert data.class_names["vision"] == [str(digit) for digit in range(10)]
    assert data.fingerprint()["val_text"] == QuotedLanguage().fingerprint()["val"]
    assert not data.synthetic


@pytest.mark.parametrize(("mode", "steps"), [("max_size_cycle", 20), ("min_size", 11)])
def test_an_epoch_is_as_long_as_the_longest_or_the_shortest(mode, steps):
    data = two(mode)
    lengths = [len(part.train_dataloader()) for part in data.parts.values()]
    assert (max(lengths), min(lengths)) == (20, 11)
    batches = [batch for batch, *_ in iter_of(data)]
    assert len(batches) == steps
    assert sum(len(batch["vision"].labels) for batch in batches) >= min((steps - 1) * 61, 1197)


def iter_of(data):
    loader = data.train_dataloader()
    return iter(loader)


def test_a_step_holds_every_sense():
    data = two()
    raw, *_ = next(iter_of(data))
    batch = data.on_before_batch_transfer(raw, 0)
    assert len(batch.items) == 61 + len(batch.labels["text"])
    assert list(batch.items.by_sense) == ["vision", "text"]
    assert {type(item) for item in batch.items.by_sense["text"]} == {str}
    assert torch.equal(batch.labels["vision"], raw["vision"].labels)
    single = next(iter(data.val_dataloader()[1]))
    assert data.on_before_batch_transfer(single, 1) is single


def test_test_loaders_stand_in_the_order_of_their_names():
    data = two()
    for (sense, name), loader in zip(data.tests, data.test_dataloader(), strict=True):
        assert loader.dataset is data.sets[name]
        assert loader.batch_size == data.parts[sense].batch_size
    assert [loader.dataset for loader in data.predict_dataloader()] == [
        data.sets["test_vision"],
        data.sets["test_text"],
    ]


def test_bad_arguments_are_refused():
    with pytest.raises(
        ValueError, match=r"^joint data need at least one sense: got none of vision, speech and text$"
    ):
        JointData()
    with pytest.raises(ValueError, match=r"^mode must be 'max_size_cycle' or 'min_size': got 'all'$"):
        JointData(vision=Digits(), mode="all")
