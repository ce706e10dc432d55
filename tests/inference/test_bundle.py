"""What an exported folder may hold, and that loading it needs no pickle and runs nothing but mmattn's parts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("safetensors")

from safetensors import torch as safetensors

from mmattn import TextTokens, build_classifier, build_encoder, observe
from mmattn.inference import Bundle, Classification, Pictures, Texts, load
from mmattn.inference.bundle import split_state

MODEL: dict[str, Any] = {
    "class_path": "mmattn.inference.Classification",
    "init_args": {
        "adapter": {"class_path": "mmattn.TextTokens", "init_args": {"embed_dim": 8}},
        "encoder": {
            "class_path": "mmattn.builders.build_encoder",
            "init_args": {"embed_dim": 8, "depth": 1, "num_heads": 2},
        },
        "head": {"class_path": "mmattn.build_classifier", "init_args": {"embed_dim": 8, "num_classes": 3}},
    },
}


def model() -> Classification:
    parts = TextTokens(8), build_encoder(8, 1, 2), build_classifier(8, 3)
    return Classification(*parts).eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tensors, state = split_state(model().state_dict())
    outputs = {"class_names": ["a", "b", "ç"]}
    Bundle("classification", MODEL, Texts(), outputs, tensors, state).save(tmp_path / "model")
    return tmp_path / "model"


def change(folder: Path, *path: str, value: Any) -> None:
    """Set a value deep in the configuration."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    place = config
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def test_a_folder_gives_back_the_model(folder: Path) -> None:
    torch.manual_seed(0)
    own = model()
    texts = ["one", "two words", ""]
    predictor = load(folder)
    predictor.model.load_state_dict(own.state_dict())
    with torch.inference_mode():
        assert torch.equal(predictor.model(texts), own(texts))
    assert predictor.predict(texts)[1].keys() == {"label", "probabilities"}
    assert predictor.outputs["class_names"] == ["a", "b", "ç"]
    modes = {path.name: path.stat().st_mode for path in folder.iterdir()}
    assert modes["model.safetensors"] == modes["config.json"]  # whoever may read one may read the other


PROGRAM = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("lightning", "pytorch_lightning", "jsonargparse", "tasks", "torchmetrics"):
            raise ImportError(name)

sys.meta_path.insert(0, Refuse())
import pickle, torch
from mmattn.inference import load

def refuse(*args, **kwargs):
    raise AssertionError("unpickled")

pickle.load = pickle.loads = torch.load = refuse
pickle.Unpickler = refuse
print(load(sys.argv[1]).predict(["some text"])[0]["label"] in "abç")
print(sorted(name for name in sys.modules if name.startswith(("mmattn.training", "matplotlib", "mmattn.report"))))
"""


def test_loading_needs_no_pickle_no_lightning_no_parser(folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["True", "[]"]


@pytest.mark.parametrize(
    "class_path",
    [
        "os.system",
        "builtins.eval",
        "torch.load",
        "torch.hub.load",
        "torch.nn.Module",
        "subprocess.Popen",
        "mmattn.tokens.torch.hub.load",
        "mmattn.inference.parts.import_module",
        "mmattn.inference.predictor.export",
        "mmattn.training.record.subprocess.run",
        "os.ImagePatches",
        "ImagePatches",
        "mmattn.adapters.image.ImagePatches.__init__",
        "mmattn.text.TextTokens",
        "tasks.vision.module.ImageClassification",
        "",
        None,
        3,
    ],
)
@pytest.mark.parametrize("place", ["top", "inside", "in a list"])
def test_a_configuration_imports_and_calls_nothing_else(folder: Path, class_path: Any, place: str) -> None:
    evil = {"class_path": class_path, "init_args": {"command": "touch reached"}}
    where = {
        "top": (("model",), evil),
        "inside": (("model", "init_args", "adapter", "init_args", "tokenizer"), evil),
        "in a list": (("model", "init_args", "encoder"), {
            "class_path": "mmattn.Encoder", "init_args": {"blocks": [[evil]], "norm": None},
        }),
    }  # fmt: skip
    path, value = where[place]
    change(folder, *path, value=value)
    before = set(sys.modules)
    with pytest.raises(ValueError, match=r"^a part must be one of mmattn's: got ") as refused:
        load(folder)
    assert "\n" not in str(refused.value)
    assert {name for name in set(sys.modules) - before if not name.startswith("mmattn")} == set()


def test_a_near_miss_is_answered_with_the_part(folder: Path) -> None:
    change(folder, "model", "init_args", "adapter", "class_path", value="mmattn.TextToken")
    with pytest.raises(ValueError, match=r"did you mean 'mmattn.adapters.text.TextTokens'"):
        load(folder)


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (("kind",), "dance", "a kind must be one of classification, .*: got 'dance'"),
        (("kind",), 3, "config.json must have a kind of type str: got 3"),
        (("format",), 99, "config.json must be of format 1 or older: got 99; update mmattn"),
        (("format",), "1", "config.json must be that of an exported model"),
        (
            ("inputs",),
            {"kind": "smells"},
            "a kind of inputs must be one of pictures, sounds, texts: got 'smells'",
        ),
        (
            ("inputs",),
            {"kind": "sounds", "rate": 1},
            "sounds must have the fields that they take: got .*rate",
        ),
        (
            ("model", "init_args", "encoder", "init_args", "depht"),
            3,
            "build_encoder must get arguments that it takes: got .*depht",
        ),
        (
            ("model", "init_args", "encoder", "init_args", "depth"),
            2,
            "the weights must fit the configuration: got",
        ),
        (("model", "init_args", "encoder", "init_args", "num_heads"), 3, "num_heads must divide embed_dim"),
        (("model", "init_args", "encoder", "init_args"), [1], "init_args must be a mapping: got"),
        (("state",), {"adapter._extra_state": {"nothing": 1}}, "the weights must fit the configuration: got"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    folder: Path, path: tuple[str, ...], value: Any, sentence: str
) -> None:
    change(folder, *path, value=value)
    with pytest.raises(ValueError, match=sentence) as refused:
        load(folder)
    assert "\n" not in str(refused.value)


def test_absent_and_damaged_files_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"must hold config.json and model.safetensors: got .*nowhere"
    ):
        load(tmp_path / "nowhere")
    (folder / "model.safetensors").write_bytes(b"\x80\x04 no safetensors")
    with pytest.raises(ValueError, match=r"model.safetensors must be a safetensors file"):
        load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json must be JSON"):
        load(folder)


def test_a_state_that_json_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must be tensors and plain data: got 'a._extra_state'"):
        split_state({"a._extra_state": {1: 2}})
    with pytest.raises(ValueError, match=r"got 'a.other'"):
        split_state({"a.other": "text"})


def test_a_tokenizer_that_was_saved_before_it_learnt_is_refused(folder: Path) -> None:
    pytest.importorskip("tokenizers")
    tokenizer = {"class_path": "mmattn.adapters.text.BPETokenizer", "init_args": {"vocab_size": 300}}
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["model"]["init_args"]["adapter"]["init_args"]["tokenizer"] = tokenizer
    weights = safetensors.load_file(folder / "model.safetensors")
    weights["adapter.embedding.weight"] = torch.zeros(300, 8)
    safetensors.save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(
        ValueError, match="a model must hold what it learnt from data: got BPETokenizer without, in 'adapt"
    ):
        load(folder)


def test_tied_and_strided_weights_are_written(tmp_path: Path) -> None:
    tensors, state = split_state(model().state_dict())
    first = next(iter(tensors))
    tensors[first] = tensors[first].T.contiguous().T
    tensors["copy"] = tensors[first]
    Bundle("classification", MODEL, Texts(), {}, tensors, state).save(tmp_path)
    found = safetensors.load_file(tmp_path / "model.safetensors")
    assert torch.equal(found["copy"], tensors[first])
    assert torch.equal(found[first], tensors[first])


@pytest.mark.parametrize(
    ("preset", "pool"), [("vit_pico_conv4_32", "attention"), ("vit_tiny_patch4_32", "token")]
)
def test_a_vision_transformer_of_ones_own(preset: str, pool: str, tmp_path: Path) -> None:
    from mmattn.inference.kinds import kind_of
    from mmattn.vit import build_vit

    arguments = {"preset": preset, "num_classes": 3, "embed_dim": 24, "depth": 2, "num_heads": 2}
    own = build_vit(**arguments).eval()
    inputs = Pictures((0.5,) * 3, (0.25,) * 3, size=(32, 32))
    spec = {"class_path": "mmattn.vit.build_vit", "init_args": arguments}
    Bundle("classification", spec, inputs, {"class_names": ["a", "b", "c"]}, own.state_dict()).save(tmp_path)
    predictor = load(tmp_path)
    pictures = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = own(list(pictures))
        torch.testing.assert_close(predictor.model(list(pictures)), expected)
        program = kind_of("classification").program(predictor.model, inputs, predictor.outputs)
        torch.testing.assert_close(program.exported.module()(pictures), expected, rtol=1e-5, atol=1e-5)
    look = predictor.look(pictures[0])
    assert len(look.weights) == len(look.regions) == 64  # without the class token
    with torch.no_grad(), observe(own, weights=True) as record:
        own(list(pictures[:1]))
    name = "head.attention.attention" if pool == "attention" else "encoder.blocks.1.attention"
    torch.testing.assert_close(
        look.weights, record[name].weights[0][:, 0, -64:].mean(0), rtol=1e-4, atol=1e-6
    )
