"""mmattn explore: a page from a checkpoint, or from a folder of another library, and files of one's own."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lightning")
pytest.importorskip("safetensors")

from mmattn.inference import export
from mmattn.inference.command import main
from tests.inference.made import MEAN, STD, Made

PREPARED = ["--mean", ",".join(map(str, MEAN)), "--std", ",".join(map(str, STD)), "--size", "16"]


def shown(path: Path) -> list[dict[str, Any]]:
    """What a page holds."""
    (data,) = re.findall(r'class="mmx-data">(.*?)</script>', path.read_text(encoding="utf-8"), re.DOTALL)
    found: list[dict[str, Any]] = json.loads(data)
    return found


def test_pictures_of_a_folder(vision: Made, tmp_path: Path, capsys: Any) -> None:
    folder, out = vision.root / "test" / "red", tmp_path / "new" / "explore.html"
    assert main(["explore", str(vision.checkpoint), str(folder), "--out", str(out), *PREPARED]) == 0
    assert capsys.readouterr().out == f"{out}: 4 explored, {out.stat().st_size / 1e6:.1f} MB\n"
    found = shown(out)
    assert [each["title"] for each in found] == sorted(path.name for path in folder.iterdir())
    assert [len(each["tokens"]) for each in found] == [16] * 4
    assert {each["predicted_label"] for each in found} <= {"red", "blue"}
    assert all([m["name"] for m in each["maps"]] == ["rollout", "relevance"] for each in found)


def test_an_exported_model_of_sounds_and_what_cannot_be_read(
    speech: Made, tmp_path: Path, capsys: Any
) -> None:
    export(speech.checkpoint, tmp_path / "model", program=False)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    one = next((speech.root / "test" / "tone").iterdir())
    out = tmp_path / "explore.html"
    names = [str(tmp_path / "broken.wav"), str(one)]
    assert main(["explore", str(tmp_path / "model"), *names, "--out", str(out)]) == 1
    assert "cannot read" in capsys.readouterr().err
    (found,) = shown(out)
    assert (found["domain"], found["title"]) == ("speech", one.name)
    assert found["sound"].startswith("data:audio/wav")


def test_nothing_to_explore_is_one_sentence(text: Made, tmp_path: Path, capsys: Any) -> None:
    empty, out = tmp_path / "empty.txt", tmp_path / "x.html"
    empty.write_text("\n")
    assert main(["explore", str(text.checkpoint), str(empty), "--out", str(out)]) == 2
    assert capsys.readouterr().err == f"error: there must be at least one text (.txt): got {empty}\n"
    assert not out.exists()


def test_a_folder_of_timm(vision: Made, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, num_classes=2)
    config = {
        "architecture": "vit_tiny_patch16_224", "num_classes": 2, "model_args": {"img_size": 32, "depth": 1},
        "pretrained_cfg": {"mean": MEAN, "std": STD, "input_size": [3, 32, 32], "label_names": ["cold", "hot"]},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    picture, out = next((vision.root / "test" / "red").glob("*.png")), tmp_path / "x.html"
    assert main(["explore", str(tmp_path), str(picture), "--out", str(out)]) == 0
    (found,) = shown(out)
    assert found["tokens"][0] == "class token"
    assert found["size"] == [32, 32]
    assert found["predicted_label"] in ("cold", "hot")


def test_a_folder_of_transformers(tmp_path: Path, capsys: Any) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "warm", "film"]
    inner = tokenizers.BertWordPieceTokenizer({word: i for i, word in enumerate(words)})
    transformers.BertTokenizerFast(tokenizer_object=inner._tokenizer).save_pretrained(tmp_path / "model")
    config = transformers.BertConfig(
        vocab_size=7, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path / "model")
    (tmp_path / "lines.txt").write_text("a warm film\n")
    out, lines = str(tmp_path / "x.html"), str(tmp_path / "lines.txt")
    assert main(["explore", str(tmp_path / "model"), lines, "--out", out]) == 0
    (found,) = shown(Path(out))
    assert found["title"] == "lines.txt:1"
    assert [token.strip() for token in found["tokens"]] == ["[CLS]", "a", "warm", "film", "[SEP]"]
    capsys.readouterr()
    assert main(["explore", str(tmp_path / "model"), lines, "--out", out, "--size", "8"]) == 2
    assert capsys.readouterr().err.startswith(
        "error: a folder of another library says all of its model: got size"
    )
