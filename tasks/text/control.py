"""The linear classifier that stands beside the text models: TF-IDF of words and of pairs of words.

``python -m tasks.text.control data/sst2`` prints it for SST-2.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

from mmattn.training.data import ClassificationData, ExampleSet
from tasks.text.data import SST2

_STRENGTHS = (0.1, 0.2, 0.5, 1.0, 2.0)  # values of C to choose from


class Scores(NamedTuple):
    """Share of validation and of test texts named rightly, 0 to 1, and the strength chosen by the former."""

    val: float
    test: float
    strength: float


def linear_control(data: ClassificationData) -> float:
    """Accuracy on the test set, 0 to 1, of a linear classifier; see :func:`scores`."""
    return scores(data).test


def scores(data: ClassificationData) -> Scores:
    """Accuracy of a linear support vector machine on TF-IDF of words and of pairs of neighbouring words.

    Deterministic; needs some seconds. It stands beside the claim that attention serves a task (Wang and Manning
    2012).

    Args:
        data: learnt from ``train``; the strength C is chosen by ``val``, of equals the smallest; judged on ``test``.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.svm import LinearSVC
    except ImportError as error:
        raise ImportError('linear_control needs scikit-learn: pip install "mmattn[tasks]"') from error
    columns = {name: _columns(data.sets[name]) for name in ("train", "val", "test")}
    features = TfidfVectorizer(ngram_range=(1, 2)).fit(columns["train"][0])
    matrices = {name: features.transform(texts) for name, (texts, _) in columns.items()}
    labels = {name: known for name, (_, known) in columns.items()}
    fitted = {
        strength: LinearSVC(C=strength, random_state=0).fit(matrices["train"], labels["train"])
        for strength in _STRENGTHS
    }
    val = {strength: float(model.score(matrices["val"], labels["val"])) for strength, model in fitted.items()}
    best = max(val, key=val.__getitem__)
    return Scores(val[best], float(fitted[best].score(matrices["test"], labels["test"])), best)


def _columns(examples: ExampleSet) -> tuple[list[str], list[int]]:
    rows = [examples[i] for i in range(len(examples))]
    return [row.item for row in rows], [row.label for row in rows]


def main(arguments: list[str] | None = None) -> None:
    """Print the control of SST-2."""
    parser = argparse.ArgumentParser("python -m tasks.text.control", description=__doc__)
    parser.add_argument("root", help="the folder that holds train.tsv, dev.tsv and test.tsv")
    found = scores(SST2(parser.parse_args(arguments).root))
    print(f"test {found.test:.1%}, dev {found.val:.1%} (C={found.strength}, chosen by dev)")


if __name__ == "__main__":
    main()
