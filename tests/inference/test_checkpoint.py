"""What a checkpoint may be: tensors, plain data and a recipe."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from mmattn.inference.checkpoint import read_checkpoint
from mmattn.inference.recipes import recipe_of


class Harm:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    reached = tmp_path / "reached"
    torch.save({"recipe": {}, "state_dict": {}, "extra": Harm(reached)}, tmp_path / "bad.ckpt")
    with pytest.raises(
        ValueError, match=r"a checkpoint must hold tensors and plain data: got .*bad.ckpt"
    ) as refused:
        read_checkpoint(tmp_path / "bad.ckpt")
    assert "\n" not in str(refused.value)
    assert not reached.exists()
    pickle.loads(pickle.dumps(Harm(reached)))
    assert reached.exists()  # it would have been


@pytest.mark.parametrize(
    ("saved", "sentence"),
    [
        ([1], "a checkpoint must be a mapping: got list"),
        ({"state_dict": {}}, "a checkpoint must hold a recipe, which the command lines .* put in"),
        ({"state_dict": {}, "recipe": None}, "a checkpoint must hold a recipe"),
        (
            {"state_dict": {}, "recipe": {"class_path": "my.Task", "init_args": {"x": 1}}},
            "a checkpoint must be of a known kind, classification, .*: got one of my.Task",
        ),
    ],
)
def test_what_is_no_checkpoint_of_ours_is_one_sentence(saved: Any, sentence: str, tmp_path: Path) -> None:
    torch.save(saved, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=sentence):
        read_checkpoint(tmp_path / "a.ckpt")


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "cut.ckpt").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(ValueError, match="a checkpoint must"):
        read_checkpoint(tmp_path / "cut.ckpt")
    (tmp_path / "empty.ckpt").touch()
    with pytest.raises(ValueError, match="a checkpoint must be a whole file of torch"):
        read_checkpoint(tmp_path / "empty.ckpt")
    with pytest.raises(
        FileNotFoundError, match=r"a model must be a checkpoint or an exported folder: got .*none.ckpt"
    ):
        read_checkpoint(tmp_path / "none.ckpt")


def test_one_sense_of_a_joint_model() -> None:
    adapter = {"class_path": "mmattn.TextNgrams", "init_args": {"embed_dim": 8}}
    arguments = {
        "encoder": {"class_path": "mmattn.build_encoder", "init_args": {"embed_dim": 8}},
        "class_names": {"text": ["x", "y", "z"], "speech": ["0", "1"]},
        "text": {"adapter": adapter, "pool": "mean", "augment": None},
        "speech": {"adapter": {"class_path": "mmattn.AudioFrames"}},
        "vision": None,
    }
    found = recipe_of(arguments, "text")
    assert found is not None
    assert found.prefixes == {"adapters.text.": "adapter.", "encoder.": "encoder.", "heads.text.": "head."}
    assert found.outputs == {"class_names": ["x", "y", "z"]}
    assert found.model["init_args"]["head"]["init_args"]["pool"] == "mean"
    with pytest.raises(ValueError, match="needs one to be chosen, text, speech: got none"):
        recipe_of(arguments)
    with pytest.raises(ValueError, match="needs one to be chosen, text, speech: got vision"):
        recipe_of(arguments, "vision")
    with pytest.raises(
        ValueError, match="a sense is chosen of a checkpoint with several: got 'text' for one"
    ):
        recipe_of({"adapter": adapter}, "text")


def test_the_uniform_control_of_translation_is_refused() -> None:
    parts = {name: {} for name in ("source", "encoder", "decoder")}
    with pytest.raises(ValueError, match="with the attention of its parts, softmax: got 'uniform'"):
        recipe_of({**parts, "attention": "uniform"})
