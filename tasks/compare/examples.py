"""What a trained model looks at: examples for the report, and the share of attention on what matters."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from mmattn.adapters.audio import AudioFrames
from mmattn.observation import observe
from mmattn.report import AttentionExample, AttentionLayer, Picture, Sentence, Spectrogram
from mmattn.training.data import Example, ExampleSet
from mmattn.training.module import ClassificationTask

POOL = "head.pool.attention"


def relevant_tokens(regions: Tensor, relevant: tuple[int, ...]) -> Tensor:
    """Which tokens matter: those of which at least half lies inside the relevant region.

    Args:
        regions: ``[n, 2 A]``, where the tokens lie, starts first; see :meth:`mmattn.adapters.Adapter.regions`.
        relevant: the region that holds the answer, of the same form.

    Returns:
        ``[n]`` boolean.
    """
    axes = len(relevant) // 2
    starts, stops = regions[:, :axes], regions[:, axes:]
    begin, end = torch.tensor(relevant[:axes]), torch.tensor(relevant[axes:])
    shared = (torch.minimum(stops, end) - torch.maximum(starts, begin)).clamp(min=0).prod(1)
    return 2 * shared >= (stops - starts).prod(1).clamp(min=1)


@torch.no_grad()
def pooling_mass(task: ClassificationTask, examples: ExampleSet, most: int = 100) -> tuple[float, float]:
    """Over the first scenes: the share of the pooling heads' attention on the tokens that matter, and the
    share of the tokens that matter."""
    masses, shares = [], []
    task.eval()
    for index in range(min(most, len(examples))):
        example = examples[index]
        assert example.relevant is not None
        with observe(task, weights=True, layers=POOL) as record:
            task([example.item])
        matters = relevant_tokens(task.adapter.regions([example.item])[0], example.relevant)
        masses.append(float(record[POOL].weights[0, :, 0, matters].sum(-1).mean()))
        shares.append(float(matters.float().mean()))
    return sum(masses) / len(masses), sum(shares) / len(shares)


@torch.no_grad()
def attention_examples(task: ClassificationTask, examples: ExampleSet) -> list[AttentionExample]:
    """The first test scene that the model gets right, and the first that it gets wrong; two of one kind where
    there is no other."""
    task.eval()
    found: dict[bool, AttentionExample] = {}
    spare: AttentionExample | None = None
    for index in range(len(examples)):
        example = examples[index]
        right = int(task([example.item]).argmax()) == example.label
        if right not in found:
            verdict = "right" if right else "wrong"
            caption = f"Test scene {index}, the first that the model gets {verdict}."
            found[right] = _example(task, example, caption)
        elif spare is None:
            kind = "right" if right else "wrong"
            spare = _example(task, example, f"Test scene {index}, the second that the model gets {kind}.")
        if len(found) == 2:
            break
    shown = [found[right] for right in (True, False) if right in found]
    return shown if len(shown) == 2 or spare is None else [*shown, spare]


def _example(task: ClassificationTask, example: Example, caption: str) -> AttentionExample:
    with observe(task, weights=True) as record:
        probabilities = task([example.item]).softmax(-1)[0]
    regions = task.adapter.regions([example.item])[0]
    assert example.relevant is not None
    matters = relevant_tokens(regions, example.relevant)
    layers = []
    for name, seen in record.items():
        heads = seen.weights[0].mean(1)  # [H, T]: mean over the queries; the pool has one
        title = "pooling query" if name == POOL else f"block {int(name.split('.')[2]) + 1}, mean over queries"
        layers.append(
            AttentionLayer(title, heads.tolist(), heads[:, matters].sum(-1).clamp(max=1.0).tolist())
        )
    predicted = int(probabilities.argmax())
    return AttentionExample(
        domain=task.domain,
        true_label=task.class_names[example.label],
        predicted_label=task.class_names[predicted],
        probability=float(probabilities[predicted]),
        picture=_SHOWN[task.domain](task, example, regions, matters),
        layers=layers,
        relevant_share=float(matters.float().mean()),
        caption=caption,
    )


def _picture(task: ClassificationTask, example: Example, regions: Tensor, matters: Tensor) -> Picture:
    assert example.relevant is not None
    boxes = [(top, left, bottom - top, right - left) for top, left, bottom, right in regions.tolist()]
    top, left, bottom, right = example.relevant
    pixels = example.item[0].clamp(0, 1).tolist()
    return Picture(pixels, boxes, [(top, left, bottom - top, right - left)])


def _spectrogram(task: ClassificationTask, example: Example, regions: Tensor, matters: Tensor) -> Spectrogram:
    adapter = cast(AudioFrames, task.adapter)
    rate = adapter.sample_rate
    assert example.relevant is not None
    start, stop = example.relevant
    log_mel = adapter.features([example.item]).values.T.tolist()
    spans = [(first / rate, last / rate) for first, last in regions.tolist()]
    return Spectrogram(log_mel, len(example.item) / rate, spans, [(start / rate, stop / rate)])


def _sentence(task: ClassificationTask, example: Example, regions: Tensor, matters: Tensor) -> Sentence:
    pieces, done = [], 0
    for stop in regions[:, 1].tolist():
        # what stands between two tokens goes with the second; of tokens that share a character, the first shows it
        pieces.append(example.item[done:stop] if stop > done else "")
        done = max(done, stop)
    return Sentence(pieces, matters.tolist(), joiner="")


_SHOWN: dict[str, Any] = {"vision": _picture, "speech": _spectrogram, "text": _sentence}
