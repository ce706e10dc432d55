"""Texts from CSV, TSV and JSONL files, SST-2 and AG News."""

import csv
import json
import shutil

import pytest
import torch
from jsonargparse import ArgumentParser

from tasks.text.data import public
from tasks.text.data.public import SST2, AGNews
from tasks.text.data.tables import TextTable

ROWS = [(f'he said "no {i}", twice', "sad" if i % 2 else "happy", i % 2 * 7) for i in range(20)]


def write(path, header, rows, **dialect):
    with path.open("w", newline="") as file:
        writer = csv.writer(file, **dialect)
        writer.writerows([header, *rows] if header else rows)
    return str(path)


@pytest.fixture
def files(tmp_path):
    header = ["text", "label", "stars"]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(dict(zip(header, r, strict=True))) for r in ROWS))
    return {
        "csv": write(tmp_path / "a.csv", header, ROWS),
        "tsv": write(tmp_path / "a.tsv", header, ROWS, delimiter="\t"),
        "jsonl": str(tmp_path / "a.jsonl"),
    }


def test_three_formats_of_one_table_are_the_same_data(files):
    prints = []
    for file in files.values():
        data = TextTable(file, val_fraction=0.1, test_fraction=0.2)
        assert {name: len(part) for name, part in data.sets.items()} == {"train": 14, "val": 2, "test": 4}
        assert data.class_names == ("happy", "sad")
        assert sorted(text for part in data.sets.values() for text in part.texts) == sorted(
            r[0] for r in ROWS
        )
        for text, label, _ in ROWS:
            part = next(part for part in data.sets.values() if text in part.texts)
            i = part.texts.index(text)
            assert part[i].item == text
            assert part.class_names[part[i].label] == label
            assert part.size(i) == len(text)
        prints.append(data.fingerprint())
    assert prints[0] == prints[1] == prints[2]
    assert TextTable(files["csv"], split_seed=1).fingerprint() != TextTable(files["csv"]).fingerprint()


def test_fingerprint_ignores_the_order_of_rows(tmp_path, files):
    test = write(tmp_path / "t.csv", ["text", "label"], [row[:2] for row in ROWS])
    turned = write(tmp_path / "u.csv", ["label", "text"], [row[1::-1] for row in reversed(ROWS)])
    prints = [TextTable(files["csv"], test_file=file).fingerprint()["test"] for file in (test, turned)]
    assert prints[0] == prints[1]


def test_integer_labels_are_ordered_by_number(tmp_path):
    rows = [(f"text {i}", label) for i, label in enumerate([10, 9, -1] * 5)]
    file = write(tmp_path / "n.csv", ["text", "label"], rows)
    assert TextTable(file).class_names == ("-1", "9", "10")


def test_separate_files_are_not_cut_and_columns_are_joined(tmp_path, files):
    header = ["title", "body", "kind"]
    parts = {
        name: write(tmp_path / f"{name}.csv", header, [(f"{name}{i}", f"b{i}", i % 2) for i in range(count)])
        for name, count in (("train", 10), ("val", 4), ("test", 6))
    }
    data = TextTable(
        parts["train"],
        parts["val"],
        parts["test"],
        text_columns=["title", "body"],
        label_column="kind",
        separator=" | ",
    )
    assert [part.texts[1] for part in data.sets.values()] == ["train1 | b1", "val1 | b1", "test1 | b1"]
    assert [len(part) for part in data.sets.values()] == [10, 4, 6]
    empty = write(tmp_path / "empty.csv", header, [])
    with pytest.raises(ValueError, match=r"must hold at least one example: got train=10, val=0, test=6"):
        TextTable(parts["train"], empty, parts["test"], ["title"], "kind").setup()


def test_missing_columns_are_named_beside_those_present(files):
    for file in files.values():
        with pytest.raises(
            ValueError, match=r"columns must be among 'text', 'label', 'stars' in .*: got 'topic'"
        ):
            TextTable(file, label_column="topic").setup()


def test_every_bad_row_is_named(tmp_path):
    rows = [(f"fine {i}", "a") for i in range(8)] + [("", "a"), ("no label", " "), ("short",)]
    train = write(tmp_path / "train.csv", ["text", "label"], rows)
    test = write(tmp_path / "test.csv", ["text", "label"], [("fine", "a"), ("other", "b")])
    with pytest.raises(ValueError, match=r"got 4 that are not") as caught:
        TextTable(train, test_file=test).setup()
    text = str(caught.value)
    for part in (
        "train.csv line 10 (the text is empty)",
        "train.csv line 11 (the label is empty)",
        "train.csv line 12 (holds 1 columns instead of 2)",
        "test.csv line 3 (label 'b' of the test split does not occur in train)",
    ):
        assert part in text


def test_every_bad_json_line_is_named(tmp_path):
    lines = [json.dumps({"text": f"t{i}", "label": "a"}) for i in range(6)]
    lines += [
        "{broken",
        "[1]",
        '{"text": "x"}',
        '{"text": 3, "label": "a"}',
        '{"text": "x", "label": true}',
        "",
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"got 5 that are not") as caught:
        TextTable(str(path)).setup()
    text = str(caught.value)
    for part in (
        "line 8 (is no object)",
        "line 9 (lacks label)",
        "line 10 (the text is no string)",
        "label True is",
    ):
        assert part in text
    assert "rows.jsonl line 7 (" in text


def test_unknown_endings_and_absent_files(tmp_path, files):
    odd = tmp_path / "a.data"
    shutil.copy(files["tsv"], odd)
    with pytest.raises(ValueError, match=r"format must be given .*: got a.data"):
        TextTable(str(odd)).setup()
    assert TextTable(str(odd), format="tsv").fingerprint() == TextTable(files["tsv"]).fingerprint()
    with pytest.raises(FileNotFoundError, match=r"a CSV, TSV or JSONL file must be present: got .*none.csv"):
        TextTable(str(tmp_path / "none.csv")).setup()
    odd.write_bytes(b"text,label\n\xff\xfe,a\n")
    with pytest.raises(ValueError, match=r"a.data \('utf-8' codec can't decode"):
        TextTable(str(odd), format="csv").setup()
    with pytest.raises(ValueError, match=r"test_fraction must lie in \(0, 1\): got 1.5"):
        TextTable(files["csv"], test_fraction=1.5)


@pytest.fixture
def sst2(tmp_path):
    for name, count in (("train", 6), ("dev", 4), ("test", 2)):
        lines = [f'an " unpaired mark {name} {i}\t{i % 2}' for i in range(count)]
        (tmp_path / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *lines, ""]))
    return tmp_path


def test_sst2_takes_quotation_marks_as_they_are(sst2):
    data = SST2(str(sst2))
    assert {name: len(part) for name, part in data.sets.items()} == {"train": 6, "val": 4, "test": 2}
    assert data.class_names == ("negative", "positive")
    assert data.sets["val"][3] == ('an " unpaired mark dev 3', 1, None)
    batch = next(iter(data.predict_dataloader()))
    assert batch.items == ['an " unpaired mark test 0', 'an " unpaired mark test 1']
    assert batch.labels.tolist() == [0, 1]


def test_sst2_refuses_other_labels_and_absent_files(sst2):
    with (sst2 / "test.tsv").open("a") as file:
        file.write("odd\t2\nwithout label\n")
    with pytest.raises(
        ValueError, match=r"got 2 that are not: .*line 5 .holds 1 columns.*line 4 .label '2' is none of 0, 1"
    ):
        SST2(str(sst2)).setup()
    (sst2 / "dev.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=rf"dev.tsv .* must be present: got {sst2}"):
        SST2(str(sst2)).setup()


def news(folder):
    folder.mkdir()
    rows = [(1 + i % 4, f"Title {i}, part", 'She said "so"') for i in range(40)]
    write(folder / "train.csv", None, rows, quoting=csv.QUOTE_ALL)
    write(folder / "test.csv", None, rows[:8], quoting=csv.QUOTE_ALL)
    return folder


def test_ag_news_joins_title_and_description(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "download_url_to_file", None)
    data = AGNews(str(news(tmp_path / "ag")), download=True, val_fraction=0.2)
    assert {name: len(part) for name, part in data.sets.items()} == {"train": 32, "val": 8, "test": 8}
    assert data.class_names == ("World", "Sports", "Business", "Sci/Tech")
    assert data.sets["test"][2] == ('Title 2, part She said "so"', 2, None)
    assert sorted(data.sets["val"].labels) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_ag_news_downloads_only_what_is_absent(tmp_path, monkeypatch):
    source = news(tmp_path / "source")
    monkeypatch.setattr(public, "AG_NEWS_URL", source.as_uri() + "/")
    target = tmp_path / "target"
    with pytest.raises(
        FileNotFoundError, match=r"train.csv and test.csv must be present \(pass download=True"
    ):
        AGNews(str(target)).setup()
    first = AGNews(str(target), download=True).fingerprint()
    shutil.rmtree(source)
    assert AGNews(str(target), download=True).fingerprint() == first
    (target / "test.csv").unlink()
    with pytest.raises(RuntimeError, match=r"a download must succeed before training: got .*test.csv"):
        AGNews(str(target), download=True).setup()


def test_arguments_are_plain_enough_for_a_command_line(files):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(TextTable, "data")
    parsed = parser.parse_args(
        [f"--data.train_file={files['csv']}", "--data.batch_size=3", "--data.format=csv"]
    )
    data = TextTable(**parsed.data)
    assert (data.batch_size, data.num_classes) == (3, 2)
