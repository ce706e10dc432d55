"""The command line: JSON lines in the order of the inputs, one sentence for each error, nothing silent."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("lightning")
pytest.importorskip("safetensors")

from mmattn.inference import export, load
from mmattn.inference.command import main
from tests.inference.made import MEAN, STD, Made

ROOT = Path(__file__).parents[2]
PREPARED = ["--mean", ",".join(map(str, MEAN)), "--std", ",".join(map(str, STD)), "--size", "16"]


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def model(text: Made, tmp_path: Path) -> Path:
    export(text.checkpoint, tmp_path / "model", program=False)
    return tmp_path / "model"


def test_export_and_predict_pictures(
    vision: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "model")
    assert main(["export", str(vision.checkpoint), "--out", out, *PREPARED]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"{out}: classification of pictures, ")
    assert not said.err
    assert {path.name for path in Path(out).iterdir()} == {"config.json", "model.safetensors", "model.pt2"}
    folder = vision.root / "test"
    assert main(["predict", out, str(folder), "--batch-size", "3"]) == 0
    found = rows(capsys.readouterr().out)
    assert [row["input"] for row in found] == [str(path) for path in sorted(folder.rglob("*.*g"))]
    assert main(["predict", str(vision.checkpoint), str(folder), "--batch-size", "1", *PREPARED]) == 0
    assert rows(capsys.readouterr().out) == found


def test_attention_is_drawn_and_changes_no_row(
    vision: Made,
    speech: Made,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: Any,
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(sys, "stdin", io.StringIO("a warm film\n"))
    export(speech.checkpoint, tmp_path / "sounds", program=False)
    cases = [
        [str(vision.checkpoint), str(vision.root / "test" / "red"), *PREPARED],
        [str(tmp_path / "sounds"), str(speech.root / "test" / "tone" / "1.wav")],
        [str(model), "-"],
    ]
    for index, case in enumerate(cases):
        folder = tmp_path / f"drawn{index}"
        assert main(["predict", *case, "--attention", str(folder)]) == 0
        drawn = rows(capsys.readouterr().out)
        monkeypatch.setattr(sys, "stdin", io.StringIO("a warm film\n"))
        assert main(["predict", *case]) == 0
        plain = rows(capsys.readouterr().out)
        names = [row.pop("attention") for row in drawn]
        assert drawn == plain
        assert sorted(names) == sorted(str(path) for path in folder.iterdir())
        assert all(Path(name).read_bytes().startswith(b"\x89PNG") for name in names)
        assert len(set(names)) == len(plain)


def test_lines_of_text(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    (tmp_path / "a.txt").write_text("a warm film\n\nso dull\n", encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.StringIO("ünïcode\n"))
    assert main(["predict", str(model), str(tmp_path / "*.txt"), "-", "--top", "1"]) == 0
    found = rows(capsys.readouterr().out)
    places = [(Path(row["input"]).name, row["source"]) for row in found]
    assert places == [("a.txt:1", "a warm film"), ("a.txt:3", "so dull"), ("stdin:1", "ünïcode")]
    assert all(list(row["probabilities"]) == [row["label"]] for row in found)


def test_paths_of_sounds_from_standard_input(
    speech: Made, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    paths = sorted(str(path) for path in (speech.root / "test" / "tone").iterdir())
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(paths)))
    assert main(["predict", str(speech.checkpoint), "-"]) == 0
    assert [row["input"] for row in rows(capsys.readouterr().out)] == paths


def test_what_cannot_be_read_is_named_and_the_rest_predicted(
    speech: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.wav").write_text("no sound")
    good = [str(speech.root / "test" / "tone" / f"{index}.wav") for index in (2, 0)]
    out = tmp_path / "deep" / "out.jsonl"
    names = [good[0], str(tmp_path / "bad.wav"), str(tmp_path / "none.wav"), good[1]]
    assert main(["predict", str(speech.checkpoint), *names, "--out", str(out)]) == 1
    said = capsys.readouterr()
    assert not said.out
    assert [row["input"] for row in rows(out.read_text(encoding="utf-8"))] == good
    first, second = said.err.splitlines()
    assert first.startswith(f"cannot read {names[1]}: ")
    assert second == f"cannot read {names[2]}: does not exist"


def test_all_that_is_unreadable_is_no_crash(speech: Made, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "bad.wav").write_text("no sound")
    assert main(["predict", str(speech.checkpoint), str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("cannot read ")


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["none.txt"], "error: there must be at least one text (.txt): got none.txt (does not exist)\n"),
        (
            ["*.txt", "x"],
            "error: there must be at least one text (.txt): got *.txt (fits no file), x (does not exist)\n",
        ),
        (["empty"], "error: there must be at least one text (.txt): got empty\n"),
        (["-"], "error: there must be at least one text (.txt): got -\n"),
    ],
)
def test_nothing_found_is_one_sentence(
    model: Path, names: list[str], sentence: str, capsys: Any, monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    (tmp_path / "elsewhere" / "empty").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["predict", str(model), *names, "--out", "out.jsonl", "--attention", "drawn"]) == 2
    assert capsys.readouterr().err == sentence
    assert [path.name for path in Path().iterdir()] == ["empty"]


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["predict", "none", "x"], "error: a model must be a checkpoint or an exported folder: got none"),
        (["predict", "MODEL", "x", "--device", "cuda:99"], "error: a device must be there: got 'cuda:99'"),
        (["predict", "MODEL", "x", "--device", "toaster"], "error: a device must be there: got 'toaster'"),
        (["predict", "MODEL", "x", "--top", "0"], "error: argument --top: it must be at least 1: got 0"),
        (["predict", "MODEL"], "error: the following arguments are required: input"),
        (
            ["predict", ".", "x"],
            "error: an exported model must hold config.json and model.safetensors: got .",
        ),
        (
            ["export", "none.ckpt", "--out", "new"],
            "error: a model must be a checkpoint or an exported folder",
        ),
        (["export", "CHECKPOINT"], "error: the following arguments are required: --out"),
        (
            ["export", "CHECKPOINT", "--out", "new", "--sense", "text"],
            "error: a sense is chosen of a checkpoint with",
        ),
        (
            ["predict", "MODEL", "x", "--mean", "0"],
            "error: an exported folder says all of its model: got mean for",
        ),
        (
            ["export", "CHECKPOINT", "--out", "new", "--size", "9"],
            "error: mean, std and sizes are for pictures: got size for texts",
        ),
        (
            ["predict", "MODEL", "x", "--mean", "a"],
            "error: argument --mean: it must be numbers with commas between: got a",
        ),
        (
            ["predict", "MODEL", "x", "--size", "9x"],
            "error: an exported folder says all of its model: got size",
        ),
        (
            ["predict", "MODEL", "x", "--size", "x9"],
            "error: argument --size: it must be HEIGHTxWIDTH or one number",
        ),
        (
            ["predict", "MODEL", "x", "--longer-side", "a"],
            "error: argument --longer-side: it must be at least 1",
        ),
        ([], "error: the following arguments are required: {export,predict,explore,report}"),
    ],
)
def test_errors_are_one_sentence(
    args: list[str], sentence: str, model: Path, text: Made, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"MODEL": str(model), "CHECKPOINT": str(text.checkpoint)}
    try:
        code = main([places.get(arg, arg) for arg in args])
    except SystemExit as stopped:
        code = stopped.code
    said = capsys.readouterr().err
    assert code == 2
    assert said.startswith(sentence)
    assert said.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_why_there_is_no_program_is_said(
    model: Path, text: Made, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    from mmattn.inference.dense import NotDense
    from mmattn.inference.kinds import kind_of

    def none(*args: Any) -> None:
        raise NotDense("it has no twin")

    monkeypatch.setattr(kind_of("classification"), "program", none, raising=False)
    (model / "model.pt2").write_text("of another export")
    assert main(["export", str(text.checkpoint), "--out", str(model)]) == 0
    assert capsys.readouterr().err == "no model.pt2: it has no twin\n"
    assert not (model / "model.pt2").exists()
    assert json.loads((model / "config.json").read_text())["program"] == {"absent": "it has no twin"}
    assert main(["export", str(text.checkpoint), "--out", str(model), "--no-program"]) == 0
    assert not capsys.readouterr().err


def test_the_module_is_the_command(model: Path, capsys: Any, monkeypatch: Any) -> None:
    given = "a warm film\nso dull\n"
    command = [sys.executable, "-m", "mmattn", "predict", str(model), "-"]
    by_module = subprocess.run(command, cwd=ROOT, input=given, capture_output=True, text=True)
    assert by_module.returncode == 0, by_module.stderr
    monkeypatch.setattr(sys, "stdin", io.StringIO(given))
    assert main(command[3:]) == 0
    assert capsys.readouterr().out == by_module.stdout
    assert len(rows(by_module.stdout)) == 2
    assert not by_module.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_first_cuda_device_is_taken(model: Path, capsys: Any, monkeypatch: Any) -> None:
    found = []
    for device in ("auto", "cpu"):
        monkeypatch.setattr(sys, "stdin", io.StringIO("a warm film\nso dull\n"))
        assert main(["predict", str(model), "-", "--device", device]) == 0
        found.append(rows(capsys.readouterr().out))
    assert load(model, torch.device("cuda")).device.type == "cuda"
    for one, other in zip(*found, strict=True):
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-4)
