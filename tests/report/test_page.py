"""The page stands alone, shows what it was given, and is the same each time."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("jinja2")
pytest.importorskip("matplotlib")

from mmattn.report import AttentionExample, AttentionLayer, ReportInput, Sentence, words, write_report
from mmattn.report.__main__ import main
from mmattn.report.drawing import example_view, full_scale, strength
from mmattn.report.figures import DARK, example_figure, learning_curve
from mmattn.report.pieces import pieces


class Tags(HTMLParser):
    """Collects start tags with their attributes, closes included, and the text."""

    VOID = frozenset({"meta", "link", "img", "source", "input", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def folder(made_up: ReportInput, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(made_up, tmp_path_factory.mktemp("report")).parent


@pytest.fixture(scope="module")
def page(folder: Path) -> Tags:
    tags = Tags()
    tags.feed((folder / "index.html").read_text(encoding="utf-8"))
    assert tags.open == []
    return tags


def test_page_asks_nothing_of_the_network(folder: Path, page: Tags) -> None:
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "xlink:href", "action", "poster", "data"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:")), (tag, name, value[:80])
        assert tag not in {"script", "iframe", "object", "embed"}
    html = (folder / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"url\(|@import|https?://", html)
    assert len(html) < 3_000_000


def test_every_image_has_words_and_every_identifier_is_one_of_a_kind(page: Tags) -> None:
    assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")
    drawings = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert all(a.get("aria-label") or a.get("aria-hidden") for a in drawings)
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(names) == len(set(names))
    targets = {a["href"] for _, a in page.tags if (a.get("href") or "").startswith("#")}
    assert targets <= {f"#{name}" for name in names}


def test_script_in_a_token_is_text(page: Tags, folder: Path) -> None:
    assert "<script>alert('x')</script>" in page.words
    assert "<script" not in (folder / "report.md").read_text(encoding="utf-8")


def test_sentences_choose_their_direction(page: Tags) -> None:
    sentences = [a for tag, a in page.tags if tag == "p" and a.get("class") == "sentence"]
    assert len(sentences) == 5 * 3 * 3
    assert all(a["dir"] == "auto" for a in sentences)


def test_verdicts_of_the_page_are_the_computed_ones(folder: Path) -> None:
    for name in ("index.html", "report.md"):
        text = (folder / name).read_text(encoding="utf-8")
        assert "The aim is supported for Pictures and not supported for Speech and Text." in text
        assert "Synthetic data: Pictures. Collected data: Speech and Text." in text
        assert "(95 % interval 7.3 to 15.4), but the interval reaches below 10.0 points" in text


def test_markdown_names_figures_that_exist(folder: Path) -> None:
    named = set(re.findall(r"\]\((figures/[^)]+)\)", (folder / "report.md").read_text(encoding="utf-8")))
    assert named == {f"figures/{path.name}" for path in (folder / "figures").iterdir()}
    assert len(named) == 3 * 2 + 2 * 2


def test_written_again_from_its_json_it_is_the_same_to_the_byte(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(folder / "report.json"), "--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "index.html")
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    assert len(files) == 13
    for file in files:
        assert (tmp_path / file).read_bytes() == (folder / file).read_bytes(), file


def test_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.json").write_text("[]")
    assert main([str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "must hold a valid ReportInput: ReportInput must be an object: got []" in capsys.readouterr().err


def test_report_without_runs_and_examples(made_up: ReportInput, tmp_path: Path) -> None:
    bare = replace(made_up, domains=[replace(part, runs=[], examples=[]) for part in made_up.domains])
    html = write_report(bare, tmp_path).read_text(encoding="utf-8")
    assert "Learning curves" not in html
    assert "Where the heads look" not in html


def test_outcome_names_no_empty_group(made_up: ReportInput, tmp_path: Path) -> None:
    met = replace(made_up, domains=[replace(made_up.domains[0], runs=[], examples=[])])
    html = write_report(met, tmp_path).read_text(encoding="utf-8")
    assert "The aim is supported for Pictures. Synthetic data: Pictures.</p>" in html


def test_matplotlib_is_left_as_it_was(made_up: ReportInput) -> None:
    import matplotlib

    before = dict(matplotlib.rcParams), matplotlib.rcParams._get_backend_or_none()  # type: ignore[attr-defined]
    learning_curve(made_up.domains[0].runs, "loss", DARK)
    example_figure(made_up.domains[0].examples[0])
    after = dict(matplotlib.rcParams), matplotlib.rcParams._get_backend_or_none()  # type: ignore[attr-defined]
    assert after == before


def test_bytes_marks_and_controls_become_readable() -> None:
    tokens = ["\udcd7", "\udca9", "▁un", "##able", "\n", "\u202e", "\udcff", "a\x00"]
    found = pieces(Sentence(tokens, joiner=" "))
    assert [piece.text for piece in found] == ["ש", "un", "able", "↵", "⟨202E⟩", "⟨FF⟩", "a⟨00⟩"]
    assert [(piece.start, piece.stop) for piece in found[:2]] == [(0, 2), (2, 3)]
    assert [piece.before for piece in found[:4]] == ["", " ", "", " "]


def test_bytes_of_one_character_share_their_weight() -> None:
    words_ = Sentence(["\udcd7", "\udca9", "b"], [False, True, False], "")
    layer = AttentionLayer("pooling", [[0.25, 0.5, 0.25]])
    view = example_view(AttentionExample("text", "a", "a", 1.0, words_, [layer]), "k")
    html = str(view.layers[0].heads[0].text)
    assert '<span class="rel" style="--a:0.82" title="75.0\N{NO-BREAK SPACE}%">ש</span>' in html


def test_even_attention_looks_pale_and_the_largest_weight_full() -> None:
    even = AttentionLayer("even", [[0.1] * 10])
    assert strength(0.1, full_scale(even)) < 0.4
    sharp = AttentionLayer("sharp", [[0.1] * 10, [1.0] + [0.0] * 9])
    assert strength(1.0, full_scale(sharp)) == 1
    assert strength(0.0, full_scale(sharp)) == 0


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (words.percent(0.91249), "91.2 %"),
        (words.percent(None), words.MISSING),
        (words.count(412_345), "412 k"),
        (words.count(999_600), "1.00 M"),
        (words.count(31.4e6), "31.4 M"),
        (words.count(812.4), "812"),
        (words.memory(700 * 2**20), "700 MiB"),
        (words.memory(3 * 2**30), "3.0 GiB"),
        (words.duration(3.21), "3.2 s"),
        (words.duration(59.7), "1 min 00 s"),
        (words.duration(7500), "2 h 05 min"),
        (words.points(-0.009), "\N{MINUS SIGN}0.9 points"),
        (words.listing(["a", "b", "c"]), "a, b and c"),
    ],
)
def test_numbers_as_shown(shown: str, expected: str) -> None:
    assert shown.replace("\N{NO-BREAK SPACE}", " ") == expected
