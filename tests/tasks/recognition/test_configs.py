"""Every YAML of speech recognition builds what it names, without any file of data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

pytest.importorskip("lightning")
pytest.importorskip("jsonargparse")

import tasks.speech.recognition
import tasks.speech.recognition.data  # so that --data knows the short names
from mmattn.training.cli import TaskCLI
from tasks.speech.recognition.control import LinearEncoder
from tasks.speech.recognition.module import SpeechRecognition

pytestmark = pytest.mark.usefixtures("aside")

FOLDER = Path(tasks.speech.recognition.__file__).parent / "configs"
CONTROL = FOLDER / "linear_control.yaml"
CONFIGS = [path for path in sorted(FOLDER.glob("*.yaml")) if path != CONTROL]


def read(path: Path) -> dict[str, Any]:
    settings: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return settings


def build(*arguments: str) -> TaskCLI:
    return TaskCLI(SpeechRecognition, [*arguments, "--trainer.accelerator", "cpu"], run=False)


def test_there_is_one_for_each_kind_of_data():
    named = {read(path)["data"]["class_path"].rsplit(".", 1)[-1] for path in CONFIGS}
    assert named == {"ConnectedDigits", "LibriSpeech", "Manifest", "SpokenSentences"}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_it_builds_without_its_files(path):
    settings = read(path)
    text = path.read_text(encoding="utf-8").split("seed_everything")[0]
    assert (
        f"python -m tasks.speech.recognition fit --config tasks/speech/recognition/configs/{path.name}"
        in text
    )
    cli = build("--config", str(path))
    assert cli.datamodule._sets is None, "the data were read"
    assert type(cli.datamodule).__name__ == settings["data"]["class_path"].rsplit(".", 1)[-1]
    assert cli.trainer.max_epochs == settings["trainer"]["max_epochs"]
    units = cli.model.recognizer.units
    if not units.ready:
        units.train(["some words of a transcript"] * 3)
    cli.model.eval()
    with torch.no_grad():
        logits = cli.model([torch.rand(4001) - 0.5, torch.rand(8009) - 0.5])
    assert logits.values.shape[1] == units.vocab_size
    assert logits.values.isfinite().all()
    assert cli.model.recipe["class_path"] == "tasks.speech.recognition.module.SpeechRecognition"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_early_stopping_watches_what_the_checkpoint_watches(path):
    trainer = read(path)["trainer"]
    watching = [part for part in trainer["callbacks"] if "monitor" in part["init_args"]]
    parts = {part["class_path"].rsplit(".", 1)[-1]: part["init_args"] for part in watching}
    assert (parts["ModelCheckpoint"]["monitor"], parts["ModelCheckpoint"]["mode"]) == ("val/wer", "min")
    if "EarlyStopping" in parts:
        stopping = parts["EarlyStopping"]
        assert (stopping["monitor"], stopping["mode"]) == ("val/wer", "min")
        assert stopping["patience"] < trainer["max_epochs"] - 1


@pytest.mark.parametrize("name", ["connected_digits", "spoken_sentences"])
def test_the_linear_control_lies_over_another_configuration(name):
    path = FOLDER / f"{name}.yaml"
    cli = build("--config", str(path), "--config", str(CONTROL))
    assert isinstance(cli.model.recognizer.encoder, LinearEncoder)
    assert type(cli.model.adapter.stem).__name__ == "FramePatches"
    assert cli.model.adapter.sample_rate == read(path)["model"]["adapter"]["init_args"]["sample_rate"]
    assert type(cli.datamodule).__name__ == read(path)["data"]["class_path"].rsplit(".", 1)[-1]
