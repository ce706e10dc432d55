"""The checks that run before training: one error for all bad files, stratified cuts, downloads."""

import hashlib
import zipfile

import pytest

from tasks.checks import Problems, check_known, complete_splits, cut, digest, fetch, missing


def test_problems_name_every_file_and_its_reason():
    problems = Problems("every clip must be readable")
    problems.raise_any()
    problems.add("a.wav", "is empty")
    problems.add("b.wav", ValueError("first line\nsecond line"))
    with pytest.raises(ValueError, match=r"a\.wav") as caught:
        problems.raise_any()
    assert str(caught.value) == (
        "every clip must be readable: got 2 that are not: a.wav (is empty), b.wav (first line)"
    )


def test_all_of_many_problems_are_named():
    problems = Problems("every clip must be readable")
    for i in range(123):
        problems.add(f"clip{i:03}.wav", "is empty")
    with pytest.raises(ValueError, match="got 123 that are not: ") as caught:
        problems.raise_any()
    assert all(f"clip{i:03}.wav (is empty)" in str(caught.value) for i in range(123))


def test_missing_says_layout_path_and_how_to_get_it(tmp_path):
    assert str(missing("x/*.wav", tmp_path, False)) == (
        f"x/*.wav must be present (pass download=True to fetch it): got {tmp_path}"
    )
    assert "download" not in str(missing("x/*.wav", tmp_path))


def test_cut_is_stratified_disjoint_and_fixed_by_its_seed():
    labels = ["a"] * 40 + ["b"] * 10 + ["c"] * 2 + ["d"]
    kept, off = cut(labels, range(53), 0.2, seed=3)
    assert sorted(kept + off) == list(range(53))
    assert [sum(labels[i] == name for i in off) for name in "abcd"] == [8, 2, 1, 0]
    assert cut(labels, range(53), 0.2, seed=3) == (kept, off)
    assert cut(labels, range(53), 0.2, seed=4) != (kept, off)


@pytest.mark.parametrize("fraction", [0.0, 1.0, 1.5])
def test_cut_refuses_a_fraction_that_empties_a_side(fraction):
    with pytest.raises(ValueError, match=rf"must lie in \(0, 1\): got {fraction}"):
        cut(["a", "a"], [0, 1], fraction, 0)


def test_complete_splits_cuts_only_what_is_not_there():
    labels = ["a"] * 20
    splits = complete_splits(labels, ["train"] * 15 + ["test"] * 5, 0.2, 0.2, 0)
    assert splits["test"] == [15, 16, 17, 18, 19]
    assert len(splits["val"]) == 3
    assert sorted(splits["train"] + splits["val"]) == list(range(15))
    with pytest.raises(ValueError, match="must hold at least one example: got train=15, val=0, test=5"):
        complete_splits(labels, ["train"] * 15 + ["test"] * 5, None, None, 0)


def test_check_known_names_examples_with_labels_that_train_lacks():
    problems = Problems("every label must be in train")
    check_known(problems, ["x", "y", "z"], ["a", "b", "a"], {"train": [0], "val": [1], "test": [2]})
    assert problems.found == [("y", "label 'b' of the val split does not occur in train")]


def test_digest_follows_content_and_labels_not_order():
    rows = [("a", b"1"), ("b", b"2"), ("b", b"3")]
    same = digest(rows, ["a", "b"])
    assert digest(reversed(rows), ["a", "b"]) == same
    others = [
        digest([("a", b"1"), ("a", b"2"), ("b", b"3")], ["a", "b"]),
        digest(rows[:2], ["a", "b"]),
        digest([*rows, rows[0]], ["a", "b"]),
        digest(rows, ["b", "a"]),
        digest(rows, ["a", "b"], "sample_rate=8000"),
    ]
    assert len({same, *others}) == 6


def test_fetch_unpacks_an_inner_folder_and_leaves_nothing_else(tmp_path):
    archive = tmp_path / "source.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("pack-master/recordings/a.txt", "sound")
    target = tmp_path / "root" / "pack"
    fetch(archive.as_uri(), target, inner="pack-master")
    assert (target / "recordings" / "a.txt").read_text() == "sound"
    assert [path.name for path in target.parent.iterdir()] == ["pack"]


def test_fetch_keeps_a_plain_file_and_checks_its_digest(tmp_path):
    source = tmp_path / "train.csv"
    source.write_text("1,2")
    right = hashlib.sha256(b"1,2").hexdigest()
    fetch(source.as_uri(), tmp_path / "out" / "a.csv", sha256=right)
    assert (tmp_path / "out" / "a.csv").read_text() == "1,2"
    with pytest.raises(RuntimeError, match="a download must succeed before training") as caught:
        fetch(source.as_uri(), tmp_path / "out" / "b.csv", sha256="0" * 64)
    assert caught.value.__cause__ is not None
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.csv"]


@pytest.mark.parametrize("name", ["absent.zip", "broken.zip", "broken.tar.gz"])
def test_fetch_that_fails_is_said_in_one_sentence_with_its_cause(tmp_path, name):
    if name.startswith("broken"):
        (tmp_path / name).write_bytes(b"no archive")
    url = (tmp_path / name).as_uri()
    with pytest.raises(
        RuntimeError, match=f"a download must succeed before training: got .* for {url}"
    ) as caught:
        fetch(url, tmp_path / "out" / "data")
    assert caught.value.__cause__ is not None
    assert list((tmp_path / "out").iterdir()) == []
