"""Controls of a comparison: what a guess and what a linear classifier without attention make of a task.

Each linear control sees the usual features of its domain - pixels, log-mel frames, character n-grams. It
is trained at the level that it is judged at, plain or with distractors (the models beside it are trained once, on all
levels up to the standard one), and judged on the same test scenes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mmattn.training.data import Example, ExampleSet

SCENES_PER_ITEM = {"vision": 4, "speech": 2, "text": 1}
"""Fresh scenes composed around each training item, where they differ, so that the control is not starved; the
numbers keep each control within some seconds on one core."""

_SEED = 40011
_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)  # values of C to choose from, for features of unit variance
_HOP, _N_MELS = 160, 40  # 20 ms at 8 kHz
_FRAMES_WORD, _FRAMES_SCENE = 16, 48  # frames a wave is resized to: 20 ms and 48 ms each at the usual lengths


def majority(train: ExampleSet, test: ExampleSet) -> float:
    """Accuracy on ``test``, 0 to 1, of naming the commonest class of ``train``; of equals, the first."""
    commonest = majority_class(train)
    expected = _labels(test)
    return sum(label == commonest for label in expected) / len(expected)


def majority_class(train: ExampleSet) -> int:
    """The commonest class; of equals, the first."""
    counts = Counter(_labels(train))
    return min(counts, key=lambda label: (-counts[label], label))


def linear_control(domain: str, train: ExampleSet, test: ExampleSet) -> float:
    """Accuracy of :func:`linear_answers` on a set, 0 to 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        judged = [test[i] for i in range(len(test))]
    answers = linear_answers(domain, train, judged)
    return sum(answer == one.label for answer, one in zip(answers, judged, strict=True)) / len(judged)


def linear_answers(domain: str, train: ExampleSet, judged: Sequence[Example]) -> list[int]:
    """What a linear classifier answers, deterministic and without effect on torch's random state.

    - ``"vision"``: pixels, smaller pictures padded with black; standardised; logistic regression.
    - ``"speech"``: log-mel frames resized to a fixed number, with mean and standard deviation of each band;
      standardised; logistic regression.
    - ``"text"``: character 1- to 4-grams weighted by TF-IDF; linear support vector machine.

    The strength of the two regressions is chosen on the last fifth of the training items, then all are used.

    Args:
        domain: ``"vision"``, ``"speech"`` or ``"text"``.
        train: what to learn from; each item gives :data:`SCENES_PER_ITEM` scenes where scenes are fresh.
        judged: what to answer.

    Returns:
        A class for each example, in their order.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: ``domain`` is unknown.
    """
    if domain not in SCENES_PER_ITEM:
        raise ValueError(f"domain must be one of {', '.join(SCENES_PER_ITEM)}: got {domain!r}")
    try:
        import sklearn  # noqa: F401
    except ImportError as error:
        raise ImportError('linear_answers needs scikit-learn: pip install "mmattn[tasks]"') from error
    fresh = getattr(train, "level", 0) > 0 or len(getattr(train, "variants", ())) > 1
    scenes = SCENES_PER_ITEM[domain] if fresh else 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        # Item by item: the scenes of an item stay together when the last fifth is put aside.
        learned = [train[i] for i in range(len(train)) for _ in range(scenes)]
    if domain == "text":
        return _ngrams(learned, judged)
    features = _pixels if domain == "vision" else _log_mel
    seen, unseen = features(learned, judged)
    return _regression(seen, _targets(learned), unseen, aside=scenes * (len(train) // 5))


def _labels(examples: ExampleSet) -> list[int]:
    known = getattr(examples, "labels", None)  # without composing a scene
    return list(known) if known is not None else [examples[i].label for i in range(len(examples))]


def _targets(examples: Sequence[Example]) -> NDArray[np.int64]:
    return np.array([example.label for example in examples], dtype=np.int64)


def _regression(
    seen: NDArray[np.float32],
    labels: NDArray[np.int64],
    unseen: NDArray[np.float32],
    aside: int,
) -> list[int]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(seen)
    seen, unseen = scaler.transform(seen), scaler.transform(unseen)

    def fitted(strength: float, x: NDArray[np.float32], y: NDArray[np.int64]) -> Any:
        return LogisticRegression(C=strength, max_iter=200, tol=1e-3).fit(x, y)

    def held_out(strength: float) -> float:
        return float(fitted(strength, seen[:-aside], labels[:-aside]).score(seen[-aside:], labels[-aside:]))

    best = max(_STRENGTHS, key=held_out) if aside else _STRENGTHS[1]
    return [int(label) for label in fitted(best, seen, labels).predict(unseen)]


def _pixels(
    learned: Sequence[Example], judged: Sequence[Example]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    pictures = [example.item for example in (*learned, *judged)]
    height, width = (max(picture.shape[axis] for picture in pictures) for axis in (1, 2))
    flat = np.stack(
        [
            F.pad(picture, (0, width - picture.shape[2], 0, height - picture.shape[1])).flatten().numpy()
            for picture in pictures
        ]
    )
    return flat[: len(learned)], flat[len(learned) :]


def _log_mel(
    learned: Sequence[Example], judged: Sequence[Example]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    from torchaudio.transforms import MelSpectrogram

    mel = MelSpectrogram(8000, n_fft=256, hop_length=_HOP, n_mels=_N_MELS)
    lengths = [example.item.shape[0] for example in learned]
    frames = _FRAMES_WORD if float(np.median(lengths)) < 8000 else _FRAMES_SCENE
    rows = [_wave_features(example.item, mel, frames) for example in (*learned, *judged)]
    flat = torch.stack(rows).numpy()
    return flat[: len(learned)], flat[len(learned) :]


def _wave_features(wave: Tensor, mel: Callable[[Tensor], Tensor], frames: int) -> Tensor:
    spectrum = (mel(wave) + 1e-4).log()
    resized = F.interpolate(spectrum[None], frames, mode="linear")[0]
    return torch.cat([resized.flatten(), spectrum.mean(1), spectrum.std(1)])


def _ngrams(learned: Sequence[Example], judged: Sequence[Example]) -> list[int]:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import SGDClassifier

    grams = TfidfVectorizer(
        analyzer="char", ngram_range=(1, 4), sublinear_tf=True, min_df=3, dtype=np.float32
    )
    seen = grams.fit_transform([example.item for example in learned])
    # The hinge loss makes it a linear SVM. A weight decay of 1e-4, or eight passes, end within half a point
    # of this, so nothing is searched: that would take as long as the rest of the control.
    model = SGDClassifier(loss="hinge", alpha=1e-5, max_iter=6, tol=None, random_state=0)
    model.fit(seen, _targets(learned))
    answers = model.predict(grams.transform([example.item for example in judged]))
    return [int(label) for label in answers]
