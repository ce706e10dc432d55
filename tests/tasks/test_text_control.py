"""The linear classifier beside the text models."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("sklearn")

from mmattn.training.data import ClassificationData
from tasks.text.control import linear_control, main, scores
from tasks.text.data.tables import TextSet

CLASSES = ("no", "yes")


class Marks(ClassificationData):
    """Words in pairs: alone each is as frequent in both classes, together they tell; or nothing does."""

    def __init__(self, pairs: bool) -> None:
        super().__init__()
        self.pairs = pairs

    def build(self) -> dict[str, TextSet]:
        generator = torch.Generator().manual_seed(0)
        return {
            name: self._texts(count, generator) for name, count in (("train", 300), ("val", 61), ("test", 71))
        }

    def _texts(self, count: int, generator: torch.Generator) -> TextSet:
        rows, labels = [], []
        for first, other, noise, guess in torch.randint(2, (count, 4), generator=generator).tolist():
            label = first ^ other if self.pairs else guess
            rows.append(f"w{noise} {('aa', 'bb')[first]} {('cc', 'dd')[other]}")
            labels.append(CLASSES[label])
        return TextSet(rows, labels, CLASSES)


def test_pairs_of_words_are_seen_and_noise_is_not():
    found = scores(Marks(True))
    assert found.val == found.test == linear_control(Marks(True)) == 1.0
    assert 0.3 < linear_control(Marks(False)) < 0.7


def test_it_repeats_and_leaves_the_random_state_alone():
    state = torch.random.get_rng_state()
    assert scores(Marks(False)) == scores(Marks(False))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_it_is_printed_for_sst2(tmp_path, capsys):
    for name, count in (("train", 40), ("dev", 6), ("test", 8)):
        rows = [f"{('dull', 'fine')[i % 2]} film\t{i % 2}" for i in range(count)]
        (tmp_path / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *rows, ""]))
    main([str(tmp_path)])
    assert capsys.readouterr().out == "test 100.0%, dev 100.0% (C=0.1, chosen by dev)\n"
