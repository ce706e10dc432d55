"""Public text data in the files they are published in: SST-2 and AG News."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmattn.training.data import ClassificationData, ExampleSet
from tasks.checks import Problems, check_fraction, fetch, missing
from tasks.text.data.tables import make_sets, read_table

SST2_FILES = {"train": "train.tsv", "val": "dev.tsv", "test": "test.tsv"}
SST2_CLASSES = {"0": "negative", "1": "positive"}
AG_NEWS_URL = "https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/master/data/ag_news_csv/"
AG_NEWS_FILES = {"train": "train.csv", "test": "test.csv"}
AG_NEWS_CLASSES = {"1": "World", "2": "Sports", "3": "Business", "4": "Sci/Tech"}


class SST2(ClassificationData):
    """SST-2 (Socher et al., 2013): whole sentences of film reviews, negative or positive.

    ``train.tsv``, ``dev.tsv`` and ``test.tsv`` with the header ``sentence<TAB>label`` and no quoting: 6,920,
    872 and 1,821 sentences. The test set is the treebank's own, not the unlabelled one of GLUE.

    Args:
        root: folder of the three files.
        **kwargs: ``batch_size``, ``num_workers`` and ``length_pool`` of the base.
    """

    def __init__(self, root: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.root = Path(root)

    def build(self) -> dict[str, ExampleSet]:
        """Read the three files.

        Raises:
            FileNotFoundError: a file is absent.
            ValueError: rows lack a sentence, or a label is neither 0 nor 1.
        """
        if not all((self.root / name).is_file() for name in SST2_FILES.values()):
            raise missing("train.tsv, dev.tsv and test.tsv with the header sentence<TAB>label", self.root)
        problems = Problems("every row must hold a sentence and the label 0 or 1")
        rows = []
        for split, name in SST2_FILES.items():
            rows += read_table(self.root / name, ["sentence"], "label", problems, split, quoted=False)
        return make_sets(rows, problems, (None, None), 0, SST2_CLASSES)


class AGNews(ClassificationData):
    """AG News (Zhang, Zhao and LeCun, 2015): news of four topics; 120,000 for training, 7,600 for test.

    ``train.csv`` and ``test.csv`` without header: class index 1 to 4, title, description. The text is title
    and description with a space between; ``val`` is cut from ``train``, stratified by class.

    Args:
        root: folder of the two files.
        download: fetch the files if they are not there.
        val_fraction: share of the training texts that becomes ``val``.
        split_seed: seed of the cut.
        **kwargs: ``batch_size``, ``num_workers`` and ``length_pool`` of the base.
    """

    def __init__(
        self,
        root: str,
        download: bool = False,
        val_fraction: float = 0.1,
        split_seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_fraction("val_fraction", val_fraction)
        self.root = Path(root)
        self.download = download
        self.val_fraction = val_fraction
        self.split_seed = split_seed

    def build(self) -> dict[str, ExampleSet]:
        """Read the two files and cut ``val``.

        Raises:
            FileNotFoundError: a file is absent and ``download`` is off.
            ValueError: rows lack a text, or a label is none of 1 to 4.
            RuntimeError: the download failed.
        """
        absent = [name for name in AG_NEWS_FILES.values() if not (self.root / name).is_file()]
        if absent and not self.download:
            raise missing("train.csv and test.csv", self.root, self.download)
        for name in absent:
            fetch(AG_NEWS_URL + name, self.root / name)
        problems = Problems("every row must hold a class index from 1 to 4, a title and a description")
        rows = []
        for split, name in AG_NEWS_FILES.items():
            columns = ["label", "title", "description"]
            rows += read_table(self.root / name, columns[1:], "label", problems, split, columns=columns)
        return make_sets(rows, problems, (self.val_fraction, None), self.split_seed, AG_NEWS_CLASSES)
