"""The examples run, and show what they say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
#: What each example needs besides the library.
NEEDS = {
    "audio_into_torch_nn": "torchaudio",
    "patches_into_timm": "timm",
    "text_into_bert": "transformers",
    "plain_pytorch": "torchaudio",
    "look_inside": "timm",
}


def load(name: str) -> ModuleType:
    pytest.importorskip(NEEDS[name], reason=f"the example {name} uses {NEEDS[name]}")
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_is_run_here():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(NEEDS)


@pytest.mark.parametrize("name", ["audio_into_torch_nn", "patches_into_timm"])
def test_batch_mates_do_not_matter(name):
    assert load(name).main().abs().max() < 1e-5


def test_bert_with_the_core_plugged_in_gives_what_it_gave(capsys):
    assert load("text_into_bert").main().abs().max() < 1e-5
    assert "encoder.layer.0.attention.self  core" in capsys.readouterr().out


def test_every_sense_learns_in_plain_pytorch():
    found = load("plain_pytorch").main()
    assert set(found) == {"pictures", "sounds", "texts"}
    assert min(found.values()) > 0.9


def test_a_look_inside_prunes_one_head(capsys):
    (heads,) = load("look_inside").main().values()
    assert len(heads) == 1
    said = capsys.readouterr().out
    assert "outputs and gradients agree with the host's" in said
    # queries, keys and values of 64 features with their biases, and as many columns of the output projection
    assert f"{3 * 64 * (192 + 1) + 64 * 192:,} of" in said
