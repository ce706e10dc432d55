"""Multi30k and parallel texts: what is read, and what is said of files that do not fit."""

from __future__ import annotations

import gzip
import json
import shutil

import pytest

pytest.importorskip("lightning")

from tasks.text.translation.data import Multi30k, ParallelSet, ParallelText, parallel

PAIRS = [(f"der {i}. Hund, „wau“", f'the "{i}" dog, woof') for i in range(20)]


def lines(path, texts):
    text = "\n".join(texts) + "\n"
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.fixture
def multi30k(tmp_path):
    for stem, count in (("train", 13), ("val", 5), ("test_2016_flickr", 3)):
        lines(tmp_path / f"{stem}.de.gz", [f"{stem} {pair[0]}" for pair in PAIRS[:count]])
        lines(tmp_path / f"{stem}.en", [f"{stem} {pair[1]}" for pair in PAIRS[:count]])
    return tmp_path


def test_multi30k_reads_plain_and_compressed_files(multi30k):
    data = Multi30k(str(multi30k), batch_size=4)
    assert {name: len(part) for name, part in data.sets.items()} == {"train": 13, "val": 5, "test": 3}
    assert data.sets["test"][2] == (f"test_2016_flickr {PAIRS[2][0]}", f"test_2016_flickr {PAIRS[2][1]}")
    assert data.training_texts()[1] == f"train {PAIRS[1][0]}"
    assert data.training_targets()[1] == f"train {PAIRS[1][1]}"
    batch = next(iter(data.val_dataloader()))
    assert batch.items == [f"val {pair[0]}" for pair in PAIRS[:4]]
    assert batch.targets == [f"val {pair[1]}" for pair in PAIRS[:4]]


def test_multi30k_goes_the_other_way_too(multi30k):
    there, back = Multi30k(str(multi30k)), Multi30k(str(multi30k), source="en", target="de")
    assert [tuple(pair)[::-1] for pair in there.sets["val"].pairs] == [
        tuple(pair) for pair in back.sets["val"].pairs
    ]
    assert there.fingerprint() != back.fingerprint()
    with pytest.raises(ValueError, match=r"^source and target must be two languages: got 'de' twice$"):
        Multi30k(str(multi30k), source="de", target="de")


def test_multi30k_names_what_does_not_fit(multi30k):
    lines(multi30k / "val.en", ["one", " ", "three", "four", "five"])
    lines(multi30k / "test_2016_flickr.en", ["one", "two"])
    message = (
        r"^every line must hold a text and its translation: got 2 that are not: "
        r"val.de.gz line 2 \(the translation is empty\), "
        r"test_2016_flickr.de.gz \(3 lines against 2 of test_2016_flickr.en\)$"
    )
    with pytest.raises(ValueError, match=message):
        Multi30k(str(multi30k)).setup()
    (multi30k / "train.de.gz").write_bytes(b"no gzip")
    with pytest.raises(ValueError, match=r"train.de.gz \(Not a gzipped file"):
        Multi30k(str(multi30k)).setup()


def test_multi30k_is_fetched_only_when_allowed(multi30k, monkeypatch):
    (multi30k / "val.en").rename(multi30k / "kept")
    with pytest.raises(FileNotFoundError, match=r"val.de, val.en.*\(pass download=True to fetch it\): got"):
        Multi30k(str(multi30k)).setup()
    asked = []

    def fetch(url, target):
        asked.append(url)
        target.write_bytes(gzip.compress((multi30k / "kept").read_bytes()))

    monkeypatch.setattr(parallel, "fetch", fetch)
    assert len(Multi30k(str(multi30k), download=True).sets["val"]) == 5
    assert asked == ["https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw/val.en.gz"]


@pytest.fixture
def tables(tmp_path):
    quoted = [[f'"{text.replace(chr(34), chr(34) * 2)}"' for text in pair] for pair in PAIRS]
    return {
        "csv": lines(tmp_path / "a.csv", ["source,target", *(",".join(pair) for pair in quoted)]),
        "tsv.gz": lines(tmp_path / "a.tsv.gz", ["source\ttarget", *("\t".join(pair) for pair in quoted)]),
        "jsonl": lines(
            tmp_path / "a.jsonl",
            [json.dumps({"target": target, "source": item, "id": 3}) for item, target in PAIRS],
        ),
    }


def test_tables_and_lines_of_the_same_pairs_are_the_same_data(tmp_path, tables):
    two = {
        "train_file": lines(tmp_path / "a.src", [pair[0] for pair in PAIRS]),
        "target_train_file": lines(tmp_path / "a.tgt.gz", [pair[1] for pair in PAIRS]),
    }
    prints = []
    for options in [two, *({"train_file": file} for file in tables.values())]:
        data = ParallelText(**options, val_fraction=0.2, test_fraction=0.25)
        assert {name: len(part) for name, part in data.sets.items()} == {"train": 12, "val": 3, "test": 5}
        found = sorted(tuple(pair) for part in data.sets.values() for pair in part.pairs)
        assert found == sorted(PAIRS)
        prints.append(data.fingerprint())
    assert all(other == prints[0] for other in prints)
    other = ParallelText(tables["csv"], val_fraction=0.2, test_fraction=0.25, split_seed=1)
    assert other.fingerprint() != prints[0]


def test_files_for_each_split_are_not_cut(tmp_path, tables):
    shutil.copy(tables["jsonl"], tmp_path / "b.jsonl")
    data = ParallelText(tables["csv"], str(tmp_path / "b.jsonl"), tables["tsv.gz"])
    assert [len(data.sets[name]) for name in ("train", "val", "test")] == [20, 20, 20]


def test_columns_by_name(tmp_path):
    file = lines(tmp_path / "n.tsv", [f"{i}\t{item}\t{target}" for i, (item, target) in enumerate(PAIRS)])
    data = ParallelText(
        file,
        columns=["id", "german", "english"],
        source_column="german",
        target_column="english",
        quoted=False,
    )
    assert {tuple(pair) for part in data.sets.values() for pair in part.pairs} == set(PAIRS)
    with pytest.raises(
        ValueError, match=r"^columns must be among 'id', 'de', 'en' in .*: got 'source', 'target'$"
    ):
        ParallelText(file, columns=["id", "de", "en"], quoted=False).setup()


def test_lines_are_cut_at_newlines_alone(tmp_path):
    odd = ["a\u2028b", "c\x0bd", "e", "f\r", "g"]
    data = ParallelText(
        lines(tmp_path / "x.src", odd), target_train_file=lines(tmp_path / "x.tgt", "abcde"),
        val_fraction=0.3, test_fraction=0.3,
    )  # fmt: skip
    found = {pair.item for part in data.sets.values() for pair in part.pairs}
    assert found == {"a\u2028b", "c\x0bd", "e", "f", "g"}


def test_every_bad_row_is_named(tmp_path):
    file = lines(
        tmp_path / "bad.jsonl",
        ['{"source": "a", "target": "b"}', '{"source": "a"}', '{"source": "", "target": "b"}', "[1]", "{",
         '{"source": "a", "target": 3}'],
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"got 5 that are not") as caught:
        ParallelText(file).setup()
    for words in (
        "bad.jsonl line 2 (lacks target)", "line 3 (the text is empty)", "line 4 (is no object)", "line 5 (Expecting",
        "line 6 (the translation is no string)",
    ):  # fmt: skip
        assert words in str(caught.value)
    table = lines(tmp_path / "bad.csv", ["source,target", "a,b", "a,b,c"])
    with pytest.raises(ValueError, match=r"bad.csv line 3 \(holds 3 columns instead of 2\)$"):
        ParallelText(table).setup()


def test_other_refusals(tmp_path, tables):
    with pytest.raises(FileNotFoundError, match="a file of texts must be present: got"):
        ParallelText(str(tmp_path / "absent.csv")).setup()
    with pytest.raises(ValueError, match=r"^a table must end with one of .csv, .tsv, .*: got a.txt$"):
        ParallelText(lines(tmp_path / "a.txt", ["x"])).setup()
    with pytest.raises(ValueError, match=r"^each file of lines must have its target file: got none for"):
        ParallelText("a.src", "b.src", target_train_file="a.tgt")
    with pytest.raises(ValueError, match=r"^each target file must have its source file: got none for val$"):
        ParallelText("a.src", target_train_file="a.tgt", target_val_file="b.tgt")
    with pytest.raises(ValueError, match=r"^val_fraction must lie in \(0, 1\): got 1.5$"):
        ParallelText(tables["csv"], val_fraction=1.5)
    with pytest.raises(ValueError, match=r"a.csv \(holds no text\)$"):
        ParallelText(lines(tmp_path / "a.csv", [])).setup()


def test_sizes_count_both_sides():
    found = ParallelSet([parallel.Pair("abc", "de"), parallel.Pair("", "f")])
    assert [found.size(i) for i in range(2)] == [5, 1]
    swapped = ParallelSet(found.pairs[::-1])
    assert swapped.fingerprint() == found.fingerprint()
    moved = ParallelSet([parallel.Pair("ab", "cde"), parallel.Pair("", "f")])
    assert moved.fingerprint() != found.fingerprint()
