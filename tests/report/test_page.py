"""The page stands alone, says what the runs say, and is the same each time."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("jinja2")

from mmattn.explore import save
from mmattn.inference.command import main as mmattn_command
from mmattn.report import drawings, tables, views, words, write_report
from mmattn.report.__main__ import main
from mmattn.report.contents import Report, contents
from mmattn.report.gather import explorations, failures
from mmattn.report.page import few_enough, write
from mmattn.report.runs import load_runs
from tests.report.seen import exploration
from tests.report.synthetic import record, write_runs
from tests.report.verdicts import NASTY, judgement

SHEETS = {"accuracies.csv", "trunks.csv", "comparisons.csv", "figures.csv", "runs.csv", "report.json"}
FILES = SHEETS | {"index.html", "report.md"}


class Tags(HTMLParser):
    """Collects start tags with their attributes, and checks that each is closed."""

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
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def report(made_up_runs: Path) -> Report:
    return contents(load_runs(made_up_runs), judgement(), ["The run text-mlp-9 failed: out of memory"])


@pytest.fixture(scope="module")
def folder(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(report, [], tmp_path_factory.mktemp("report")).parent


@pytest.fixture(scope="module")
def page(folder: Path) -> Tags:
    tags = Tags()
    tags.feed((folder / "index.html").read_text(encoding="utf-8"))
    assert tags.open == []
    return tags


def test_page_asks_nothing_of_the_network(folder: Path, page: Tags) -> None:
    for tag, attributes in page.tags:
        for name in ("src", "srcset", "xlink:href", "action", "poster", "data"):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, name)
        href = attributes.get("href") or "#"
        assert href.startswith(("#", "data:")) or href in FILES, (tag, href)
        assert tag not in {"iframe", "object", "embed"}
    html = (folder / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"url\((?!#)|@import|https?://", html)
    assert len(html) < 1_500_000


def test_names_are_one_of_a_kind_and_links_lead_somewhere(page: Tags) -> None:
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(names) == len(set(names))
    links = {a["href"] for _, a in page.tags if (a.get("href") or "").startswith("#")}
    assert links <= {f"#{name}" for name in names}


def test_every_drawing_has_words(page: Tags) -> None:
    drawn = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(drawn) > 100
    # an svg within a drawing, such as the head of an arrow, is a part of it
    assert all(a.get("aria-label") or a.get("aria-hidden") or a.get("overflow") for a in drawn)


def test_every_number_leads_to_runs_that_are_there(page: Tags, report: Report) -> None:
    links = [a for tag, a in page.tags if tag == "a" and "data-runs" in a]
    assert len(links) > len(report.judgement.comparisons) + len(report.accuracies)
    for link in links:
        for index in (link["data-runs"] or "").split():
            assert 0 <= int(index) < len(report.runs)
    of = "Vision: attention − uniform: accuracy among distractors"
    (link,) = [a for a in links if a["data-of"] == of and a["class"] == "number"]
    paths = [report.runs[int(index)].path for index in (link["data-runs"] or "").split()]
    assert paths == sorted(f"vision-{arm}-{seed}" for arm in ("attention", "uniform") for seed in range(3))


def test_markup_in_words_is_text(page: Tags, folder: Path) -> None:
    assert any(NASTY in text for text in page.words)
    assert sum(tag == "script" for tag, _ in page.tags) == 2
    assert "<script" not in (folder / "report.md").read_text(encoding="utf-8")


def test_summary_counts_the_verdicts(folder: Path, report: Report) -> None:
    said = views.outcome(report.judgement)
    assert said.startswith("Of 5 claims, ")
    for name in ("index.html", "report.md"):
        assert said in (folder / name).read_text(encoding="utf-8")


def test_page_says_what_is_odd(folder: Path) -> None:
    for name in ("index.html", "report.md"):
        text = (folder / name).read_text(encoding="utf-8").replace("\\", "")
        assert "text-heads_8-2 is missing." in text
        assert "The run text-mlp-9 failed: out of memory" in text


def test_twins_hold_the_same_numbers(folder: Path, report: Report) -> None:
    read = Report.load(folder / "report.json")
    assert read == report
    rows = list(csv.DictReader(io.StringIO((folder / "comparisons.csv").read_text())))
    assert len(rows) == len(read.judgement.comparisons)
    html, markdown = ((folder / name).read_text(encoding="utf-8") for name in ("index.html", "report.md"))
    for row, part in zip(rows, read.judgement.comparisons, strict=True):
        assert part.estimate is not None
        assert float(row["estimate"]) == part.estimate.mean
        assert row["runs"].split() == part.runs
        assert f">{drawings.between(part)}</small>" in html
        assert f"| {drawings.between(part)} |" in markdown


def test_page_holds_the_files_for_download(folder: Path) -> None:
    html = (folder / "index.html").read_text(encoding="utf-8")
    (found,) = re.findall(r'<script type="application/json" id="sheets">(.*?)</script>', html, re.DOTALL)
    sheets = json.loads(found)
    assert set(sheets) == SHEETS
    assert all((folder / name).read_text(encoding="utf-8") == text for name, text in sheets.items())


def test_runs_and_points_are_in_their_tables(folder: Path, report: Report) -> None:
    runs = list(csv.DictReader(io.StringIO((folder / "runs.csv").read_text())))
    assert [row["path"] for row in runs] == [run.path for run in report.runs]
    assert {row["torch"] if "torch" in row else row["versions"] for row in runs if row["versions"]} == {
        "mmattn 0.0.0; python 3.11.7; torch 2.11.0"
    }
    points = list(csv.DictReader(io.StringIO((folder / "figures.csv").read_text())))
    assert {row["figure"] for row in points} == {
        figure.id for drawn in report.figures.values() for figure in drawn
    }


def test_equal_runs_give_equal_bytes(made_up_runs: Path, tmp_path: Path) -> None:
    write_report(made_up_runs, tmp_path / "one")
    shutil.copytree(made_up_runs, tmp_path / "copy")
    write_report(tmp_path / "copy", tmp_path / "two")
    assert {path.name for path in (tmp_path / "one").iterdir()} == FILES
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def as_subcommand(argv: list[str]) -> int:
    """``mmattn report`` with ``argv``."""
    return mmattn_command(["report", *argv])


def test_trunks_have_a_table_and_a_margin(made_up_runs: Path, tmp_path: Path) -> None:
    html = write_report(made_up_runs, tmp_path).read_text(encoding="utf-8")
    core = html[html.index('<section id="core"') :].partition("</section>")[0]
    assert "How well each trunk did" in core
    assert "the loss that has to be ruled out" in core
    assert 'data-value="-2.0"' in core
    assert core.count("90.0\N{NO-BREAK SPACE}k") == 3  # of each kind of trunk
    other = html[html.index('<section id="focus"') :].partition("</section>")[0]
    assert "How well each trunk did" not in other
    assert "the smallest difference that counts" in other
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert re.search(r"^\| one trunk for all \| 90.0\sk \| \d\d\.\d", markdown, re.MULTILINE)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "trunks.csv").read_text())))
    assert {(row["domain"], row["arm"]) for row in rows} == {
        (sense, kind) for sense in ("vision", "speech", "text") for kind in ("joint", "separate", "third")
    }
    read = Report.load(tmp_path / "report.json")
    assert {row.domain for row in read.data} == {"vision", "speech", "text"}
    (one,) = [row for row in read.runs if row.path == "joint-joint-0"]
    assert (one.standard, one.plain) == (None, None)


@pytest.mark.parametrize("command", [main, as_subcommand])
def test_command_writes_the_report_of_several_folders(
    command: Callable[[list[str]], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, domain in enumerate(("vision", "text")):
        write_runs(tmp_path / f"m{seed}", 2, ("attention", "uniform"), (domain,), 50)
    assert command([str(tmp_path / "m0"), str(tmp_path / "m1"), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "index.html")
    read = Report.load(tmp_path / "out" / "report.json")
    assert {run.domain for run in read.runs} == {"vision", "text", "joint", "speed"}


@pytest.mark.parametrize("command", [main, as_subcommand])
def test_command_says_what_is_wrong(
    command: Callable[[list[str]], int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command([str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "must hold at least one measures.json" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_one_seed_is_no_evidence_but_a_page(tmp_path: Path) -> None:
    write_runs(tmp_path / "runs", 1, ("attention", "uniform"), ("text",), 50)
    (tmp_path / "runs" / "speed-speed-0" / "measures.json").unlink()
    html = write_report(tmp_path / "runs", tmp_path).read_text(encoding="utf-8")
    read = Report.load(tmp_path / "report.json")
    assert {claim.verdict for claim in read.judgement.claims} <= {"inconclusive", "not measured"}
    assert re.search(r"Of 5 claims, \d (is|are) inconclusive and \d (is|are) not measured\.", html)


def test_mixed_versions_and_failed_runs_are_flagged(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "runs", 2, ("attention", "uniform"), ("text",), 50)
    record("text", "uniform", 1, 0.5, torch="2.12.0").save(runs / "text-uniform-1" / "record.json")
    (runs / "text-mlp-0").mkdir()
    (runs / "text-mlp-0" / "failed.json").write_text('{"error": "ValueError: no\\nluck"}')
    html = write_report(runs, tmp_path).read_text(encoding="utf-8")
    assert "The run text-mlp-0 failed: ValueError: no luck" in html
    assert "different versions of torch" in html


def test_a_run_that_failed_and_then_ended_well_is_not_named(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "runs", 1, ("attention",), ("text",), 50)
    (runs / "text-attention-0" / "failed.json").write_text('{"error": "no luck"}')
    assert failures(runs) == []


def test_files_are_whole_or_as_they_were(report: Report, tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("kept")
    write(report, [], tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == FILES | {"other.txt"}


def test_samples_beyond_the_room_are_left_out_by_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [exploration("text", 4, seed) for seed in range(4)] + [exploration("vision", 4)]
    size = max(len(json.dumps(each.plain())) for each in made)
    monkeypatch.setattr("mmattn.report.page.LARGEST_EXPLORER", 3 * size)
    kept, note = few_enough(made)
    assert [each.domain for each in kept] == ["text", "text", "vision"]
    assert note == "2 more samples would make this page too large."
    monkeypatch.undo()
    assert few_enough(made) == (made, "")


def test_explorations_come_from_the_folders_of_the_runs(tmp_path: Path) -> None:
    runs = write_runs(tmp_path / "runs", 1, ("attention",), ("text", "vision"), 50)
    for domain in ("text", "vision"):
        save([exploration(domain, 4)], runs / f"{domain}-attention-0" / "exploration.json")
    found = explorations(runs)
    assert [each.domain for each in found] == ["vision", "text"]
    html = write_report(runs, tmp_path).read_text(encoding="utf-8")
    assert html.index("Scene of vision") < html.index("Scene of text")


def test_forests_cut_off_only_what_is_far_wider_than_the_rest(report: Report) -> None:
    parts = [part for part in report.judgement.comparisons if part.claim == "focus" and part.unit == "points"]
    scale = drawings.forest_scale(parts)
    estimates = [part.estimate for part in parts if part.estimate]
    assert scale.low < min(0.0, *(found.low for found in estimates))
    assert scale.high > max(found.high for found in estimates)
    wide = replace(parts[0], estimate=replace(estimates[0], low=-500.0, high=600.0))
    cut = drawings.forest_scale([wide, *parts[1:]])
    assert -50 < cut.low < 0 < estimates[0].mean < cut.high < 100
    assert drawings.forest_row(wide, cut).count('class="arrow"') == 2


def test_tables_leave_empty_what_was_not_measured() -> None:
    assert tables.to_csv([{"a": 1, "b": None}, {"a": 2, "c": "x,y"}]) == 'a,b,c\n1,,\n2,,"x,y"\n'


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
        (words.short_seconds(0.00025), "250 µs"),
        (words.short_seconds(1.5), "1.5 s"),
        (words.counted(1, "run"), "1 run"),
        (words.counted(1200, "run"), "1,200 runs"),
        (words.listing(["a", "b", "c"]), "a, b and c"),
    ],
)
def test_numbers_as_shown(shown: str, expected: str) -> None:
    assert shown.replace("\N{NO-BREAK SPACE}", " ") == expected
