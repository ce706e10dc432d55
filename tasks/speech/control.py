"""The linear control of keyword spotting: what a linear classifier makes of pooled log-mel frames.

``python -m tasks.speech.control data/fsdd`` prints it for FSDD's official split and for each speaker held out.
"""

from __future__ import annotations

import argparse
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mmattn.training.data import ClassificationData, ExampleSet
from tasks.speech.data.fsdd import FSDD, SPEAKERS
from tasks.speech.data.waves import WaveSet

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Values of scikit-learn's C to choose from, for features of unit variance."""

_N_MELS, _SLICES = 40, 16
_LEVEL = 0.1  # root mean square: loudness tells a speaker's microphone, not the word


def linear_control(data: ClassificationData, subtract_means: bool = False) -> float:
    """Accuracy on ``test``, 0 to 1, of multinomial logistic regression on log-mel frames.

    Clips are made equally loud. Their frames (40 bands, a window of 32 ms each 10 ms) are resized to 16 slices of
    time and taken together with each band's mean and standard deviation: 720 features, standardised over ``train``.
    The strength is chosen on ``val``; training waves are taken without random changes. Deterministic.

    Args:
        data: of waves ``[S]``, with a ``sample_rate``.
        subtract_means: take each band's mean off its frames instead, which helps with unheard speakers and harms with
            known ones.

    Raises:
        ImportError: scikit-learn or torchaudio is not installed.
        TypeError: the data have no sample rate.
    """
    rate = getattr(data, "sample_rate", None)
    if not isinstance(rate, int):
        raise TypeError(f"linear_control needs data with a sample_rate: got {type(data).__name__}")
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise ImportError('linear_control needs scikit-learn: pip install "mmattn[tasks]"') from error
    (train, labels), val, test = (
        pooled(data.sets[name], rate, subtract_means) for name in ("train", "val", "test")
    )
    scaler = StandardScaler().fit(train)
    train = scaler.transform(train)

    def fitted(strength: float) -> Any:
        return LogisticRegression(C=strength, max_iter=300, tol=1e-3).fit(train, labels)

    models = [fitted(strength) for strength in STRENGTHS]
    best = max(models, key=lambda model: model.score(scaler.transform(val[0]), val[1]))
    return float(best.score(scaler.transform(test[0]), test[1]))


def pooled(
    examples: ExampleSet, sample_rate: int, subtract_means: bool = False
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Features ``[examples, 720]``, without means ``[examples, 680]``, and labels."""
    from torchaudio.transforms import MelSpectrogram

    size = 2 * round(0.016 * sample_rate)
    mel = MelSpectrogram(sample_rate, size, hop_length=sample_rate // 100, n_mels=_N_MELS)
    plain = examples.plain() if isinstance(examples, WaveSet) else examples
    rows, labels = [], []
    for index in range(len(plain)):
        wave, label, _ = plain[index]
        rows.append(_features((mel(_levelled(cast(Tensor, wave))) + 1e-4).log(), subtract_means))
        labels.append(label)
    return torch.stack(rows).numpy(), np.array(labels, dtype=np.int64)


def _levelled(wave: Tensor) -> Tensor:
    return wave * (_LEVEL / wave.square().mean().sqrt().clamp(min=1e-8))


def _features(bands: Tensor, subtract_means: bool) -> Tensor:
    means, deviations = bands.mean(1, keepdim=True), bands.std(1, keepdim=True, unbiased=False)
    slices = F.interpolate((bands - means if subtract_means else bands)[None], _SLICES, mode="linear")[0]
    parts = [slices, deviations] if subtract_means else [slices, means, deviations]
    return torch.cat([part.flatten() for part in parts])


def main(arguments: list[str] | None = None) -> None:
    """Print the control of FSDD."""
    parser = argparse.ArgumentParser("python -m tasks.speech.control", description=__doc__)
    parser.add_argument("root", help="the folder that holds FSDD's recordings")
    root = parser.parse_args(arguments).root
    print("share of digits named rightly: with band means, without")
    rows = []
    for speaker in (None, *SPEAKERS):
        data = FSDD(root, held_out_speaker=speaker)
        row = [linear_control(data, subtract_means) for subtract_means in (False, True)]
        print(
            f"{'without ' + speaker if speaker else 'official split':<18}", *(f"{share:.1%}" for share in row)
        )
        rows.append(row)
    means = np.mean(rows[1:], axis=0)
    print(f"{'mean of speakers':<18}", *(f"{share:.1%}" for share in means))


if __name__ == "__main__":
    main()
