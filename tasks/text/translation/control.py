"""What stands beside the translations without attention: a lexicon, and linear classifiers of the places of a target.

``python -m tasks.text.translation.control`` prints that of the dates; with the folder of Multi30k, that of Multi30k.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.text.translation.data import DateStrings, Multi30k, ParallelData, ParallelSet
from tasks.text.translation.module import scores

_ROUNDS = 8  # of expectation and maximisation
_FEATURES = 2**18
_BEFORE_MARKS = re.compile(r" (?=[.,;:!?])")
_WORDS = re.compile(r"\w+|[^\w\s]")


class Columns(NamedTuple):
    """The texts of a set and their translations."""

    items: list[str]
    targets: list[str]


def lexicon_control(data: ParallelData) -> float:
    """BLEU on the test set, 0 to 1, of a translation word by word.

    The lexicon is learnt from ``train`` by IBM Model 1 (Brown et al. 1993), which knows no order and no neighbours;
    a word becomes its likeliest translation; unknown words are
    copied. Deterministic; needs some seconds.

    Args:
        data: learnt from ``train``, judged on ``test``.
    """
    lexicon = learn_lexicon(*_columns(data.sets["train"]))
    test = _columns(data.sets["test"])
    said = [" ".join(lexicon.get(word, word) for word in words_of(text)) for text in test.items]
    return scores([_BEFORE_MARKS.sub("", text) for text in said], test.targets)["bleu"]


def linear_control(data: ParallelData) -> float:
    """Share of the test set, 0 to 1, that linear classifiers get exactly right; see :func:`linear_scores`."""
    return linear_scores(data)["test"]


def linear_scores(data: ParallelData) -> dict[str, float]:
    """Share of each test set, 0 to 1, that linear classifiers get exactly right, one for each place of the target.

    Each is a linear support vector machine on TF-IDF of up to five neighbouring characters, and names the character
    that stands at its place. Deterministic; needs a minute or two for the dates.

    Args:
        data: learnt from ``train``, judged on all test sets; the targets of ``train`` are equally long.

    Raises:
        ValueError: the targets differ in their lengths.
        ImportError: scikit-learn is not installed.
    """
    try:
        from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
        from sklearn.pipeline import make_pipeline
        from sklearn.svm import LinearSVC
    except ImportError as error:
        raise ImportError('linear_control needs scikit-learn: pip install "mmattn[tasks]"') from error
    train = _columns(data.sets["train"])
    lengths = sorted({len(target) for target in train.targets})
    if len(lengths) > 1:
        raise ValueError(f"all targets must be equally long: got lengths from {lengths[0]} to {lengths[-1]}")
    count = HashingVectorizer(
        analyzer="char_wb", ngram_range=(1, 5), n_features=_FEATURES, alternate_sign=False, norm=None
    )
    weigh = make_pipeline(count, TfidfTransformer(sublinear_tf=True))
    features = weigh.fit_transform(train.items)
    tests = {name: _columns(data.sets[name]) for name in data.test_names}
    asked = {name: weigh.transform(test.items) for name, test in tests.items()}
    places: dict[str, list[Sequence[str]]] = {name: [] for name in tests}
    for known in zip(*train.targets, strict=True):
        if len(set(known)) == 1:  # nothing to learn
            for name, test in tests.items():
                places[name].append([known[0]] * len(test.items))
            continue
        classifier = LinearSVC(random_state=0).fit(features, known)
        for name, of in asked.items():
            places[name].append(classifier.predict(of))
    named = {name: ["".join(each) for each in zip(*of, strict=True)] for name, of in places.items()}
    return {name: scores(named[name], tests[name].targets)["exact"] for name in tests}


def learn_lexicon(items: Sequence[str], targets: Sequence[str]) -> dict[str, str]:
    """The likeliest translation of each word, by IBM Model 1.

    Args:
        items: texts.
        targets: their translations.

    Example:
        >>> found = learn_lexicon(["der Hund", "der Mann", "ein Mann"], ["the dog", "the man", "a man"])
        >>> found["Hund"], found["ein"]
        ('dog', 'a')
    """
    words, source = _numbered([["", *words_of(text)] for text in items])
    translations, target = _numbered([words_of(text) for text in targets])
    one = np.concatenate([np.tile(s, len(t)) for s, t in zip(source, target, strict=True)])
    other = np.concatenate([np.repeat(t, len(s)) for s, t in zip(source, target, strict=True)])
    # of which word of which translation each of these pairs is one explanation
    counts = np.concatenate([np.full(len(t), len(s)) for s, t in zip(source, target, strict=True)])
    explained = np.repeat(np.arange(len(counts)), counts)
    pairs, which = np.unique(one.astype(np.int64) * len(translations) + other, return_inverse=True)
    word, translation = np.divmod(pairs, len(translations))
    probable = np.ones(len(pairs))
    for _ in range(_ROUNDS):
        shares = probable[which]
        shares /= np.bincount(explained, shares)[explained]
        expected = np.bincount(which, shares)
        probable = expected / np.bincount(word, expected)[word]
    order = np.lexsort((-translation, probable))  # the likeliest last; of equals, the one that was seen first
    return {words[w]: translations[t] for w, t in zip(word[order], translation[order], strict=True) if w}


def words_of(text: str) -> list[str]:
    """Words and marks, in order.

    Example:
        >>> words_of("Ein Hund, klein.")
        ['Ein', 'Hund', ',', 'klein', '.']
    """
    return _WORDS.findall(text)


def _numbered(texts: list[list[str]]) -> tuple[list[str], list[NDArray[np.int64]]]:
    """The words in the order in which they occur, and each text as their numbers."""
    numbers: dict[str, int] = {}
    rows = [
        np.array([numbers.setdefault(word, len(numbers)) for word in text], dtype=np.int64) for text in texts
    ]
    return list(numbers), rows


def _columns(examples: ParallelSet) -> Columns:
    pairs = [examples[i] for i in range(len(examples))]
    return Columns([pair.item for pair in pairs], [pair.target for pair in pairs])


def main(arguments: list[str] | None = None) -> None:
    """Print the control of the dates, or of Multi30k."""
    parser = argparse.ArgumentParser("python -m tasks.text.translation.control", description=__doc__)
    parser.add_argument("root", nargs="?", help="the folder of Multi30k; the dates need none")
    root = parser.parse_args(arguments).root
    if root is None:
        for name, share in linear_scores(DateStrings()).items():
            print(f"dates, linear, {name}: {share:.1%} exactly right")
    else:
        print(f"Multi30k, word by word: {100 * lexicon_control(Multi30k(root)):.1f} BLEU")


if __name__ == "__main__":
    main()
