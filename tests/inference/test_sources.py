"""Files, folders, globs and standard input, in the order of the names; what is wrong is named."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from mmattn.inference import Sounds, Texts
from mmattn.inference.sources import Source, sources


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b.wav", "a.WAV", "deep/c.flac", "deep/note.md", ".hidden.wav", ".cache/d.wav"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*given: str, stdin: str = "") -> list[str]:
    return [source.name for source in sources(given, Sounds(8000), io.StringIO(stdin))]


def test_folders_are_searched_to_the_bottom_without_hidden_files(tree: Path) -> None:
    assert names("in") == ["in/a.WAV", "in/b.wav", "in/deep/c.flac"]


def test_the_order_is_that_of_the_names(tree: Path) -> None:
    assert names("in/deep", "in/b.wav", "in/*.wav", "-", stdin="in/a.WAV\n\n in/none\n") == [
        "in/deep/c.flac", "in/b.wav", "in/b.wav", "in/a.WAV", " in/none",
    ]  # fmt: skip


def test_globs_go_through_folders(tree: Path) -> None:
    assert names("in/**/*.flac") == ["in/deep/c.flac"]
    assert names("in/d*p") == ["in/deep/c.flac"]


def test_a_file_that_is_named_is_taken_whatever_its_ending(tree: Path) -> None:
    (found,) = sources(["in/deep/note.md"], Sounds(8000), [])
    assert found == Source("in/deep/note.md", Path("in/deep/note.md"))


def test_what_is_absent_is_named(tree: Path) -> None:
    found = list(sources(["none.wav", "in/*.ogg", "in/b.wav"], Sounds(8000), []))
    assert [(source.name, source.problem) for source in found] == [
        ("none.wav", "does not exist"), ("in/*.ogg", "fits no file"), ("in/b.wav", ""),
    ]  # fmt: skip


def test_a_name_with_signs_of_a_glob_is_a_file_first(tree: Path) -> None:
    (tree / "[1].wav").touch()
    assert names("[1].wav") == ["[1].wav"]


def test_texts_come_line_by_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\ufeffone\r\n\n  two \n\u2028three", encoding="utf-8", newline="")
    (tmp_path / "b.txt").write_bytes(b"fine\n\xff\xfe\n")
    found = list(sources([str(tmp_path), "-"], Texts(), ["last\n", "\n"]))
    read = [(Path(source.name).name, source.line) for source in found if not source.problem]
    assert read == [
        ("a.txt:1", "one"),
        ("a.txt:3", "  two "),
        ("a.txt:4", "\u2028three"),
        ("stdin:1", "last"),
    ]
    (wrong,) = (source for source in found if source.problem)
    assert wrong.name == f"{tmp_path}/b.txt"
    assert "utf-8" in wrong.problem


def test_standard_input_is_read_as_it_comes() -> None:
    asked = []

    def lines():
        for number in range(3):
            asked.append(number)
            yield f"line {number}\n"

    found = sources(["-"], Texts(), lines())
    assert next(found).line == "line 0"
    assert asked == [0]
