"""The recipes for CIFAR-10 run from their files, on a made-up tree of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

pytest.importorskip("lightning")
pytest.importorskip("timm")

from mmattn.training.cli import TaskCLI
from tasks.vision.data.cifar import CLASSES
from tasks.vision.module import ImageClassification

pytestmark = pytest.mark.usefixtures("aside")

CONFIGS = Path(__file__).parents[3] / "tasks" / "vision" / "configs"
RNG = np.random.default_rng(7)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for split, count in (("train", 10), ("test", 2)):
        for name in CLASSES:
            folder = tmp_path / "cifar" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "cifar"


def cli(name: str, tree: Path, *options: str) -> TaskCLI:
    arguments = [
        "--config", str(CONFIGS / name), "--data.root", str(tree), "--data.batch_size", "16",
        "--trainer.max_epochs", "2", "--trainer.accelerator", "cpu", "--trainer.logger", "false",
        "--trainer.enable_progress_bar", "false", "--trainer.limit_train_batches", "3",
        "--trainer.limit_val_batches", "1", "--trainer.limit_test_batches", "1", "--data.num_workers", "0", *options,
    ]  # fmt: skip
    return TaskCLI(ImageClassification, arguments, run=False)


@pytest.mark.parametrize("name", ["cifar10.yaml", "cifar10_gpu.yaml"])
def test_a_recipe_trains_and_its_checkpoint_holds_the_average(tree: Path, name: str) -> None:
    made = cli(name, tree)
    for part in made.trainer.callbacks:
        if type(part).__name__ == "EMAWeightAveraging":
            part.update_starting_at_step, part.update_every_n_steps = 0, 1
    made.trainer.fit(made.model, made.datamodule)
    (path,) = Path().rglob("best.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    average, current = checkpoint["state_dict"], checkpoint["current_model_state"]
    assert not torch.equal(average["head.linear.weight"], current["head.linear.weight"])
    (scores,) = made.trainer.test(made.model, made.datamodule, verbose=False)
    assert 0 <= scores["test/accuracy"] <= 1


@pytest.mark.parametrize("name", ["cifar10.yaml", "cifar10_gpu.yaml"])
def test_a_recipe_is_within_the_sizes_that_are_promised(tree: Path, name: str) -> None:
    made = cli(name, tree)
    parameters = sum(p.numel() for p in made.model.parameters())
    assert 300_000 <= parameters <= 4_000_000
    settings = yaml.safe_load((CONFIGS / name).read_text())
    assert settings["trainer"]["precision"] == "bf16-mixed"
