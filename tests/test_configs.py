"""Every YAML in a folder ``configs`` of ``tasks`` builds what it names, without any file of data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

pytest.importorskip("lightning")
pytest.importorskip("jsonargparse")

from mmattn.training.cli import TaskCLI
from mmattn.training.data import ClassificationData
from mmattn.training.module import ClassificationTask
from mmattn.training.task import Task
from tasks.joint.module import JointClassification
from tasks.speech.module import KeywordSpotting
from tasks.speech.recognition.module import SpeechRecognition
from tasks.text.module import TextClassification
from tasks.text.pretraining.module import MaskedLanguageModelling
from tasks.text.translation.module import Translation
from tasks.vision.module import ImageClassification

pytestmark = pytest.mark.usefixtures("aside")

ROOT = Path(__file__).parents[1]
CLASSIFICATION: dict[str, type[ClassificationTask]] = {
    "speech": KeywordSpotting,
    "text": TextClassification,
    "vision": ImageClassification,
}
#: By the folder below ``tasks``, which is the program.
TASKS: dict[str, type[Task]] = {
    **CLASSIFICATION,
    "joint": JointClassification,
    "speech.recognition": SpeechRecognition,
    "text.pretraining": MaskedLanguageModelling,
    "text.translation": Translation,
}
#: A file without data changes another one, and is tested with it.
ALL = [path for path in sorted(ROOT.glob("tasks/**/configs/*.y*ml")) if "\ndata:" in path.read_text()]
#: Data that come with an installed package or are computed.
EMBEDDED = {"Digits", "SpokenCommands", "QuotedLanguage"}
CLASSES = ("first", "second", "third")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def program(path: Path) -> str:
    return ".".join(path.parents[1].relative_to(ROOT / "tasks").parts)


def domain(path: Path) -> str:
    return path.relative_to(ROOT / "tasks").parts[0]


CONFIGS = [path for path in ALL if program(path) in CLASSIFICATION]


def read(path: Path) -> dict[str, Any]:
    settings: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return settings


def is_embedded(path: Path) -> bool:
    return read(path)["data"]["class_path"].rsplit(".", 1)[-1] in EMBEDDED


def build(path: Path) -> TaskCLI:
    return TaskCLI(TASKS[program(path)], ["--config", str(path), "--trainer.accelerator", "cpu"], run=False)


def check(cli: TaskCLI, path: Path, items: Any) -> None:
    """The parts are those that the file names, and the model takes items of its domain."""
    settings = read(path)
    assert type(cli.model) is TASKS[program(path)]
    assert type(cli.datamodule).__name__ == settings["data"]["class_path"].rsplit(".", 1)[-1]
    assert type(cli.model.adapter).__name__ == settings["model"]["adapter"]["class_path"].rsplit(".", 1)[-1]
    assert cli.trainer.max_epochs == settings["trainer"]["max_epochs"]
    assert cli.model.class_names == list(cli.datamodule.class_names)
    cli.model.eval()
    with torch.no_grad():
        logits = cli.model(items)
    assert logits.shape == (len(items), len(cli.datamodule.class_names))
    assert logits.isfinite().all()


def made_up_items(cli: TaskCLI, kind: str) -> Any:
    if kind == "vision":
        return torch.rand(2, read_channels(cli), 32, 32)
    if kind == "speech":
        return [torch.rand(4001) - 0.5, torch.rand(8009) - 0.5]
    return ["a short text", "another text, somewhat longer"]


def read_channels(cli: TaskCLI) -> int:
    return int(next(p for p in cli.model.adapter.modules() if isinstance(p, torch.nn.Conv2d)).in_channels)


def train_tokenizer(cli: TaskCLI, texts: Any) -> None:
    tokenizer = getattr(cli.model.adapter, "tokenizer", None)
    if tokenizer is not None and not tokenizer.ready:
        tokenizer.train(texts)


def test_there_are_configs_for_each_domain() -> None:
    assert {program(path) for path in ALL} == set(TASKS)
    assert {read(p)["data"]["class_path"].rsplit(".", 1)[-1] for p in CONFIGS if is_embedded(p)} == EMBEDDED


@pytest.mark.parametrize("path", ALL, ids=name)
def test_its_first_lines_say_how_to_run_it(path: Path) -> None:
    command = f"python -m tasks.{program(path)} fit --config {name(path)}"
    assert command in path.read_text(encoding="utf-8").split("seed_everything")[0]


@pytest.mark.parametrize("path", [path for path in CONFIGS if is_embedded(path)], ids=name)
def test_it_builds_with_its_data(path: Path) -> None:
    cli = build(path)
    examples = cli.datamodule.sets["val"]
    if domain(path) == "text":
        train_tokenizer(cli, cli.datamodule.training_texts()[:500])
    check(cli, path, [examples[index].item for index in range(3)])


@pytest.mark.parametrize("path", [path for path in CONFIGS if not is_embedded(path)], ids=name)
def test_it_builds_without_its_files(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ClassificationData, "class_names", property(lambda self: CLASSES))
    cli = build(path)
    assert cli.datamodule._sets is None, "the data were read"
    train_tokenizer(cli, ["a short text", "another text, somewhat longer"] * 20)
    check(cli, path, made_up_items(cli, domain(path)))


@pytest.mark.parametrize("path", [p for p in ALL if p not in CONFIGS and program(p) != "joint"], ids=name)
def test_other_tasks_build_without_their_files(path: Path) -> None:
    cli = build(path)
    assert type(cli.model) is TASKS[program(path)]
    assert type(cli.datamodule).__name__ == read(path)["data"]["class_path"].rsplit(".", 1)[-1]
    assert cli.datamodule._sets is None, "the data were read"
    assert cli.model.recipe["class_path"].endswith(type(cli.model).__name__)


@pytest.mark.parametrize("path", ALL, ids=name)
@pytest.mark.parametrize("part", ["model", "data", "trainer"])
def test_a_field_that_does_not_exist_is_refused(
    path: Path, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = read(path)
    (settings[part]["init_args"] if part == "data" else settings[part])["no_such_field"] = 1
    changed = Path("changed.yaml")
    changed.write_text(yaml.safe_dump(settings), encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        TaskCLI(TASKS[program(path)], ["--config", str(changed)], run=False)
    assert ended.value.code == 2
    assert "no_such_field" in capsys.readouterr().err


@pytest.mark.parametrize("path", [p for p in ALL if "EarlyStopping" in p.read_text()], ids=name)
def test_early_stopping_can_fire_and_watches_what_the_checkpoint_watches(path):
    trainer = read(path)["trainer"]
    parts = {
        part["class_path"].rsplit(".", 1)[-1]: part["init_args"]
        for part in trainer["callbacks"]
        if "monitor" in part["init_args"]
    }
    stopping, checkpoint = parts["EarlyStopping"], parts["ModelCheckpoint"]
    assert stopping["patience"] < trainer["max_epochs"] - 1
    assert (stopping["monitor"], stopping["mode"]) == (checkpoint["monitor"], checkpoint["mode"])


@pytest.mark.parametrize("path", ALL, ids=name)
def test_a_killed_run_can_go_on_from_its_last_epoch(path):
    """``save_last`` would not do: Lightning writes it only where the best improves."""
    places = {
        part["init_args"]["filename"]: part["init_args"]
        for part in read(path)["trainer"]["callbacks"]
        if part["class_path"].endswith("ModelCheckpoint")
    }
    assert "monitor" not in places["last"]
    assert places["last"]["save_on_train_epoch_end"], "only where it is validated"
    assert {place["dirpath"] for place in places.values()} == {places["last"]["dirpath"]}
