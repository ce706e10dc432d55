"""Texts without labels: lines of a file, and the texts of labelled sets."""

from __future__ import annotations

import pytest

pytest.importorskip("lightning")

from tasks.text.data import SST2, TextTable
from tasks.text.pretraining.data import SST2Texts, TableTexts, TextLines


def counts(data) -> dict[str, int]:
    return {name: len(part) for name, part in data.sets.items()}


@pytest.fixture
def lines(tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("".join(f" text {i}\n\n" for i in range(40)), encoding="utf-8")
    return path


def test_lines_are_texts_and_empty_ones_are_left_out(lines):
    data = TextLines(str(lines), val_fraction=0.1, test_fraction=0.2)
    assert counts(data) == {"train": 28 + 1, "val": 3, "test": 8}
    texts = [text for part in data.sets.values() for text in part.texts]
    assert sorted(texts) == sorted(f"text {i}" for i in range(40))
    assert data.training_texts() == data.sets["train"].texts
    part = data.sets["val"]
    assert part[2].item == part.texts[2]
    assert part.size(2) == len(part.texts[2])


def test_files_that_are_given_are_not_cut(tmp_path, lines):
    other = tmp_path / "other.txt"
    other.write_text("one\ntwo\n", encoding="utf-8")
    data = TextLines(str(lines), val_file=str(other), test_fraction=0.1)
    assert counts(data) == {"train": 36, "val": 2, "test": 4}
    assert data.sets["val"].texts == ["one", "two"]


def test_batches_are_texts_of_like_length(lines):
    data = TextLines(str(lines), batch_size=7)
    batches = list(data.train_dataloader())
    assert {len(batch.items) for batch in batches} <= {7, 36 % 7}
    assert sorted(item for batch in batches for item in batch.items) == sorted(data.sets["train"].texts)
    assert next(iter(data.val_dataloader())).items == data.sets["val"].texts


def test_the_fingerprint_is_that_of_the_texts(tmp_path, lines):
    turned = tmp_path / "turned.txt"
    turned.write_text("\n".join(reversed(lines.read_text(encoding="utf-8").split("\n"))), encoding="utf-8")
    prints = [TextLines(str(lines), str(path), str(path)).fingerprint()["val"] for path in (lines, turned)]
    assert prints[0] == prints[1]
    turned.write_text("another\n", encoding="utf-8")
    assert TextLines(str(lines), str(turned), str(turned)).fingerprint()["val"] != prints[0]


def test_what_cannot_be_read_is_said_in_one_sentence(tmp_path, lines):
    with pytest.raises(
        FileNotFoundError, match=r"^a text file with one text a line must be present: got .*none.txt"
    ):
        TextLines(str(tmp_path / "none.txt")).setup()
    odd = tmp_path / "odd.txt"
    odd.write_bytes(b"fine\n\xff\xfe\n")
    with pytest.raises(ValueError, match=r"^a file of texts must be UTF-8: got .*odd.txt"):
        TextLines(str(odd)).setup()
    odd.write_text("\n \n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"must hold at least one example"):
        TextLines(str(odd)).setup()
    with pytest.raises(ValueError, match=r"^val_fraction must lie in \(0, 1\): got 1.5$"):
        TextLines(str(lines), val_fraction=1.5)


def test_texts_of_labelled_sets_are_the_same_texts_in_the_same_splits(tmp_path):
    for name, count in (("train", 6), ("dev", 4), ("test", 2)):
        rows = [f"{name} {i}\t{i % 2}" for i in range(count)]
        (tmp_path / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *rows, ""]))
    labelled, texts = SST2(str(tmp_path)), SST2Texts(str(tmp_path), batch_size=3)
    assert {k: v.texts for k, v in texts.sets.items()} == {k: v.texts for k, v in labelled.sets.items()}
    assert texts.batch_size == 3
    table = tmp_path / "all.csv"
    table.write_text("\n".join(["body,kind", *(f"text {i},{'ab'[i % 2]}" for i in range(20))]))
    options = {"text_columns": ["body"], "label_column": "kind", "val_fraction": 0.2, "split_seed": 3}
    labelled, texts = TextTable(str(table), **options), TableTexts(str(table), **options)
    assert {k: v.texts for k, v in texts.sets.items()} == {k: v.texts for k, v in labelled.sets.items()}
