"""fit -> export -> load -> predict, once for each domain: what comes out is what the task itself gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

pytest.importorskip("lightning")
pytest.importorskip("safetensors")

from mmattn.inference import Pictures, Sounds, Texts, export, load, open_model
from tests.inference.made import MEAN, STD, Made

PREPARED = {"vision": {"mean": MEAN, "std": STD, "size": [16, 16]}, "speech": {}, "text": {}}


@pytest.fixture(scope="module", params=["vision", "speech", "text"])
def domain(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def made(request: pytest.FixtureRequest, domain: str) -> Made:
    return request.getfixturevalue(domain)


@pytest.fixture(scope="module")
def folder(made: Made, domain: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported")
    export(made.checkpoint, out, prepared=PREPARED[domain])
    return out


def raw(made: Made, domain: str) -> list[Path] | list[str]:
    """The test items as a user has them."""
    data = made.data.sets["test"]
    if domain == "vision":
        return [path for path, _ in data.files]
    if domain == "speech":
        return sorted((made.root / "test" / "noise").iterdir()) + sorted(
            (made.root / "test" / "tone").iterdir()
        )
    return list(data.texts)


def test_predictions_from_raw_inputs_are_those_of_the_test(made: Made, domain: str, folder: Path) -> None:
    expected = made.logits()
    predictor = load(folder)
    sources = raw(made, domain)
    items = sources if domain == "text" else [predictor.read(path) for path in sources]
    for item, own in zip(items, made.items, strict=True):
        if isinstance(item, Tensor):
            torch.testing.assert_close(item, own, rtol=1e-6, atol=1e-6)
        else:
            assert item == own
    with torch.inference_mode():
        torch.testing.assert_close(predictor.model(items), expected, rtol=1e-5, atol=1e-5)
    names = made.task.class_names
    rows = predictor.predict(items, top=len(names))
    for row, logits in zip(rows, expected, strict=True):
        assert row["label"] == names[int(logits.argmax())]
        shares = dict(zip(names, logits.softmax(-1).tolist(), strict=True))
        assert row["probabilities"] == pytest.approx(shares, abs=1e-5)
        assert list(row["probabilities"]) == sorted(names, key=lambda name: -shares[name])


def test_a_row_does_not_depend_on_the_other_items(made: Made, folder: Path) -> None:
    predictor = load(folder)
    together = predictor.predict(made.items)
    for item, row in zip(made.items, together, strict=True):
        (alone,) = predictor.predict([item])
        assert alone["label"] == row["label"]
        assert alone["probabilities"] == pytest.approx(row["probabilities"], abs=2e-6)


def test_what_is_written(made: Made, domain: str, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["kind"] == "classification"
    assert config["outputs"]["class_names"] == made.task.class_names
    kinds = {
        "vision": Pictures(tuple(MEAN), tuple(STD), (16, 16)),
        "speech": Sounds(4000),
        "text": Texts(),
    }
    assert load(folder).inputs == kinds[domain]
    from safetensors.torch import load_file

    weights = load_file(folder / "model.safetensors")
    own = made.task.state_dict()
    assert set(weights) == {
        name for name in own
        if name.startswith(("adapter.", "encoder.", "head.")) and not name.endswith("_extra_state")
    }  # fmt: skip
    assert all(torch.equal(weights[name], own[name]) for name in weights)
    assert set(config["state"]) == ({"adapter._extra_state"} if domain == "text" else set())


def test_a_checkpoint_gives_what_its_export_gives(made: Made, domain: str, folder: Path) -> None:
    direct = open_model(made.checkpoint, prepared=PREPARED[domain])
    assert direct.predict(made.items) == load(folder).predict(made.items)


@pytest.mark.filterwarnings("ignore:The given buffer is not writable")
def test_the_program_computes_what_the_model_does(made: Made, domain: str, folder: Path) -> None:
    program = torch.export.load(folder / "model.pt2").module()
    model = load(folder).model
    items = made.items
    if domain == "vision":
        batches = [torch.stack(items[:1]), torch.stack(items)]
    elif domain == "speech":
        batches = [item[None] for item in items] + [torch.stack([items[0], items[0].flip(0)])]
    else:
        batches = [model.adapter.encode([item]).values[None] for item in items]
    for index, batch in enumerate(batches):
        with torch.no_grad():
            given = [items[index]] if domain == "text" else batch
            torch.testing.assert_close(program(batch), model(given), rtol=1e-5, atol=1e-5)


def test_what_was_normalised_must_be_known(vision: Made, tmp_path: Path) -> None:
    checkpoint = torch.load(vision.checkpoint, weights_only=True)
    checkpoint["recipe"].pop("inputs", None)
    torch.save(checkpoint, tmp_path / "silent.ckpt")
    with pytest.raises(
        ValueError, match=r"it must be known how pictures were normalised: .* give --mean and --std"
    ):
        export(tmp_path / "silent.ckpt", tmp_path / "model")
    assert not (tmp_path / "model").exists()
    with pytest.raises(ValueError, match="mean and std must be of the 3 channels of the adapter: got 1"):
        export(tmp_path / "silent.ckpt", tmp_path / "model", prepared={"mean": [0.5], "std": [0.5]})


def test_a_checkpoint_says_how_its_pictures_were_prepared(vision: Made) -> None:
    assert open_model(vision.checkpoint).inputs == Pictures(tuple(MEAN), tuple(STD), (16, 16))


def test_a_recipe_that_says_how_pictures_were_prepared(vision: Made, tmp_path: Path) -> None:
    checkpoint = torch.load(vision.checkpoint, weights_only=True)
    checkpoint["recipe"]["inputs"] = {"mean": MEAN, "std": STD, "longer_side": 20}
    torch.save(checkpoint, tmp_path / "said.ckpt")
    assert open_model(tmp_path / "said.ckpt").inputs == Pictures(tuple(MEAN), tuple(STD), longer_side=20)
    changed = open_model(tmp_path / "said.ckpt", prepared={"mean": [0.5] * 3})
    assert changed.inputs == Pictures((0.5,) * 3, tuple(STD), longer_side=20)
    sized = open_model(tmp_path / "said.ckpt", prepared={"size": [8, 9]})
    assert sized.inputs == Pictures(tuple(MEAN), tuple(STD), size=(8, 9))


def test_loading_draws_nothing_from_the_global_generator(vision: Made, tmp_path: Path) -> None:
    export(vision.checkpoint, tmp_path / "model", program=False, prepared=PREPARED["vision"])
    before = torch.get_rng_state()
    load(tmp_path / "model")
    assert torch.equal(torch.get_rng_state(), before)
    assert not (tmp_path / "model" / "model.pt2").exists()
