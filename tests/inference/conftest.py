"""Tiny checkpoints, one for each kind, made by the tasks' own command lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("lightning")

from mmattn.training.cli import TaskCLI
from mmattn.training.task import Task
from tests.inference.made import D, Made, Make

QUICK = [
    "--trainer.logger=false",
    "--trainer.max_steps=2",
    "--trainer.limit_val_batches=1",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.enable_checkpointing=false",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.accelerator=cpu",
]


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    """Fit a task for two steps and save it; puts back what Lightning sets for the whole process."""
    patch = pytest.MonkeyPatch()
    for variable in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS", "CUBLAS_WORKSPACE_CONFIG"):
        patch.setenv(variable, "")
        patch.delenv(variable)

    def made(task: type[Task], root: Path, *args: str, batch_size: int | None = 5) -> Made:
        folder = tmp_path_factory.mktemp("made")
        sized = [] if batch_size is None else [f"--data.init_args.batch_size={batch_size}"]
        where = f"--trainer.default_root_dir={folder}"
        cli = TaskCLI(task, [*args, *QUICK, *sized, where], run=False)
        try:
            cli.trainer.fit(cli.model, cli.datamodule)
        finally:
            torch.use_deterministic_algorithms(False)
        cli.trainer.save_checkpoint(folder / "tiny.ckpt")
        return Made(folder / "tiny.ckpt", cli.model, cli.datamodule, root)

    yield made
    patch.undo()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of several sizes and forms in one folder a class."""
    from PIL import Image

    root = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for name, tint in (("red", 0), ("blue", 2)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(4):
                array = draw.integers(0, 90, (19 + 3 * index, 23, 3), dtype=np.uint8)
                array[..., tint] += 120
                Image.fromarray(array).save(folder / f"{index}.{'jpg' if index == 1 else 'png'}")
    return root


@pytest.fixture(scope="session")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tones and noise at two rates, mono and stereo."""
    import soundfile

    root = tmp_path_factory.mktemp("sounds")
    draw = np.random.default_rng(1)
    for split in ("train", "val", "test"):
        for name in ("tone", "noise"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(4):
                rate = 4000 if index % 2 else 5500
                time = np.arange(1501 + 217 * index) / rate
                wave = 0.3 * (
                    np.sin(2 * np.pi * 440 * time) if name == "tone" else draw.standard_normal(len(time))
                )
                both = wave if index % 2 else np.stack([wave, 0.5 * wave], axis=1)
                soundfile.write(
                    folder / f"{index}.wav", both, rate, subtype="PCM_16" if index < 3 else "FLOAT"
                )
    return root


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled sentences as a table for each split."""
    root = tmp_path_factory.mktemp("texts")
    words = {"good": ["fine", "happy", "bright", "warm"], "bad": ["poor", "sad", "dull", "cold"]}
    for split, count in (("train", 12), ("val", 4), ("test", 7)):
        rows = [
            f"the {chosen[i % 4]} film, number {i}, was {chosen[(i + 1) % 4]}\t{label}"
            for i in range(count)
            for label, chosen in words.items()
        ]
        (root / f"{split}.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n", encoding="utf-8")
    return root


ENCODER = [
    "--model.encoder=mmattn.build_encoder",
    f"--model.encoder.init_args.embed_dim={D}",
    "--model.encoder.init_args.depth=2",
    "--model.encoder.init_args.num_heads=2",
    "--model.encoder.init_args.dropout=0.1",
]


@pytest.fixture(scope="session")
def vision(make: Make, pictures: Path) -> Made:
    import tasks.vision.data  # noqa: F401  # so that --data knows the short names
    from tasks.vision.module import ImageClassification

    return make(
        ImageClassification, pictures, *ENCODER,
        "--model.adapter=mmattn.ImagePatches", f"--model.adapter.init_args.embed_dim={D}",
        "--model.adapter.init_args.patch_size=4", "--model.adapter.init_args.stem=conv",
        "--model.pool_heads=2",
        "--data=ImageFolder", f"--data.init_args.root={pictures}", "--data.init_args.image_size=16",
    )  # fmt: skip


@pytest.fixture(scope="session")
def speech(make: Make, sounds: Path) -> Made:
    pytest.importorskip("torchaudio")
    import tasks.speech.data  # noqa: F401
    from tasks.speech.module import KeywordSpotting

    return make(
        KeywordSpotting, sounds, *ENCODER,
        "--model.adapter=mmattn.AudioFrames", f"--model.adapter.init_args.embed_dim={D}",
        "--model.adapter.init_args.sample_rate=4000", "--model.adapter.init_args.n_mels=13",
        "--model.spec_augment=tasks.speech.module.SpecAugment", "--model.pool_heads=2",
        "--data=AudioFolder", f"--data.init_args.root={sounds}", "--data.init_args.sample_rate=4000",
    )  # fmt: skip


@pytest.fixture(scope="session")
def text(make: Make, texts: Path) -> Made:
    pytest.importorskip("tokenizers")
    import tasks.text.data  # noqa: F401
    from tasks.text.module import TextClassification

    return make(
        TextClassification, texts, *ENCODER,
        "--model.adapter=mmattn.TextTokens", f"--model.adapter.init_args.embed_dim={D}",
        "--model.adapter.init_args.tokenizer=mmattn.adapters.text.BPETokenizer",
        "--model.adapter.init_args.tokenizer.init_args.vocab_size=280",
        "--model.adapter.init_args.token_dropout=0.1", "--model.pool=mean",
        "--data=TextTable", *(f"--data.init_args.{s}_file={texts / s}.tsv" for s in ("train", "val", "test")),
    )  # fmt: skip
