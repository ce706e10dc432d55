"""explore: what a model saw in items, ready to be looked into."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmattn.explore.exploration import Exploration
from mmattn.explore.groups import grouped, joined
from mmattn.explore.layers import layers_of, map_of, seen_by
from mmattn.explore.shown import Shown
from mmattn.explore.subjects import Item, Subject, subject_of
from mmattn.observation import head_importance


def explore(
    model: Any,
    items: Sequence[Any],
    *,
    titles: Sequence[str] | None = None,
    name: str = "",
    class_names: Sequence[str] | None = None,
    tokenizer: Any = None,
    sample_rate: int | None = None,
    importance: Mapping[str, Sequence[float]] | bool = True,
    most: int = 512,
) -> list[Exploration]:
    """Look at a model while it sees items, one by one. Nothing of the model is changed.

    Args:
        model: a classification task; what :func:`mmattn.inference.open_model` opens; or a module of another library,
            plugged in or not, that takes a batch of pictures, of waves, or what its tokenizer gives.
        items: pictures ``[C, H, W]``, waves ``[S]`` or texts, as the model takes them; or examples with ``item``,
            ``label`` and ``relevant``, as :class:`mmattn.training.data.Example` has them.
        titles: what the items are called; ``None`` numbers them.
        name: what the model is called.
        class_names: of the model's classes, where it does not say.
        tokenizer: of transformers, for its models of texts.
        sample_rate: of sounds in samples per second, for models without an adapter of ours.
        importance: of the heads, by the names of modules, where it was measured before. True measures it on these
            items by gradients, False leaves it out.
        most: tokens of an item beyond which neighbours are shown as one.

    Returns:
        One exploration for each item.

    Raises:
        ValueError: an item is of no known kind, or nothing of the model's attention can be shown; one sentence.
        RecordTooLarge: all weights of an item take more than 1 GiB.

    Example:
        >>> from mmattn import ImagePatches, build_classifier, build_encoder
        >>> from mmattn.inference import Classification
        >>> model = Classification(ImagePatches(8, 4, 1), build_encoder(8, 1, 2), build_classifier(8, 3))
        >>> explore(model, [torch.rand(1, 8, 8)])[0].tokens[:2]
        ['row 1, column 1', 'row 1, column 2']
    """
    if titles is not None and len(titles) != len(items):
        raise ValueError(f"titles must be one for each of {len(items)} items: got {len(titles)}")
    subject = subject_of(model, class_names, tokenizer, sample_rate)
    found = []
    with evaluated(subject.module):
        taken = [_taken(subject, item) for item in items]
        measured, why = _importance(subject, taken, importance)
        for index, item in enumerate(taken):
            title = f"Item {index + 1}" if titles is None else titles[index]
            found.append(_one(subject, item, title, name, measured, most, why))
    return found


def right_and_wrong(model: Any, examples: Sequence[Any], right: int = 2, wrong: int = 1) -> list[int]:
    """Indices of the first examples that a task gets right and of the first that it gets wrong, those that are right
    first; fewer of a kind where there are no more.

    Args:
        model: a classification task.
        examples: with ``item`` and ``label``.
        right, wrong: how many of each are looked for.
    """
    kept: dict[bool, list[int]] = {True: [], False: []}
    most = {True: right, False: wrong}
    with evaluated(model), torch.no_grad():
        for index in range(len(examples)):
            if all(len(kept[kind]) >= most[kind] for kind in kept):
                break
            example = examples[index]
            kind = int(model([example.item]).argmax()) == example.label
            if len(kept[kind]) < most[kind]:
                kept[kind].append(index)
    return [*kept[True], *kept[False]]


@contextmanager
def evaluated(model: nn.Module) -> Iterator[None]:
    """Eval mode while the block runs, then the modes as they were."""
    modes = [(part, part.training) for part in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def _taken(subject: Subject, item: Any) -> Item:
    """A raw item, or one with its label and the region of the answer."""
    if hasattr(item, "label") and hasattr(item, "item"):
        return subject.take(item.item, item.label, tuple(getattr(item, "relevant", None) or ()))
    return subject.take(item, None, ())


def _importance(
    subject: Subject, taken: Sequence[Item], wanted: Mapping[str, Sequence[float]] | bool
) -> tuple[Mapping[str, Sequence[float]], list[str]]:
    """By the names of modules, and why there is none."""
    if not isinstance(wanted, bool):
        return wanted, []
    batches = [item for item in taken if item.inputs is not None]
    if not wanted or not batches:
        return {}, []
    try:
        found = head_importance(subject.module, batches, _loss)
    except ValueError as error:
        return {}, [f"Heads are not ordered by importance: {error}."]
    return {name: values.tolist() for name, values in found.items()}, []


def _loss(model: nn.Module, item: Item) -> Tensor:
    """Cross-entropy of the right class, or of the model's own answer where that is not known."""
    logits = logits_of(model(**item.inputs) if isinstance(item.inputs, Mapping) else model(*item.inputs))
    if logits is None:
        raise ValueError("the loss must be of logits [1, C]: got a model that gives none")
    label = logits.argmax(-1) if item.label is None else torch.tensor([item.label], device=logits.device)
    return F.cross_entropy(logits, label)


def logits_of(output: Any) -> Tensor | None:
    """Logits ``[1, C]`` of an output, where it has any."""
    found = getattr(output, "logits", output)
    if isinstance(found, Tensor) and found.ndim == 2 and len(found) == 1 and found.is_floating_point():
        return found
    return None


def _one(
    subject: Subject,
    item: Item,
    title: str,
    name: str,
    importance: Mapping[str, Sequence[float]],
    most: int,
    notes: list[str],
) -> Exploration:
    seen = seen_by(subject.module, item, subject.why_no_maps)
    shown = item.shown(seen.count)
    groups, said = grouped(item.domain, shown.tokens, shown.regions, most)
    relevant = _relevant(shown, item.answer, groups)
    layers, left_out = layers_of(seen, groups, relevant, importance)
    predicted, probability = _answer(subject, seen.output, item.says)
    maps = [map_of(each, groups, predicted) for each in seen.maps]
    tokens = [""] * (int(groups.max()) + 1)
    for token, group in zip(shown.tokens, groups.tolist(), strict=True):
        tokens[group] += token if item.domain == "text" else "" if tokens[group] else token
    result = Exploration(
        item.domain, title, tokens, joined(shown.regions, groups), layers, name,
        "" if item.label is None else _named(subject, item.label), predicted, probability,
        [] if relevant is None else relevant.tolist(),
        [] if not item.answer or item.domain == "text" else [[x / shown.unit for x in item.answer]],
        maps, shown.image, shown.size, shown.sound, [*said, *shown.notes, *left_out, *seen.notes, *notes],
    )  # fmt: skip
    return (
        result if len(tokens) == len(shown.tokens) else replace(result, tokens=_named_groups(result, groups))
    )


def _named_groups(found: Exploration, groups: Tensor) -> list[str]:
    """Tokens of a sound or a picture that were taken together, called by where they lie."""
    sizes = groups.bincount().tolist()
    names = []
    for token, region, size in zip(found.tokens, found.regions, sizes, strict=True):
        if size == 1 or found.domain == "text":
            names.append(token)
        elif found.domain == "speech":
            names.append(f"{region[0]:.2f} to {region[1]:.2f} s")
        else:
            names.append(f"block at {token}")
    return names


def _relevant(shown: Shown, answer: Sequence[float], groups: Tensor) -> Tensor | None:
    """``[G]``: groups of whose tokens at least half lie in the answer, by at least half of each."""
    if not answer or shown.places is None:
        return None
    places = shown.places.double()
    axes = len(answer) // 2
    starts, stops = places[:, :axes], places[:, axes:]
    begin, end = torch.tensor(answer[:axes]), torch.tensor(answer[axes:])
    shared = (torch.minimum(stops, end) - torch.maximum(starts, begin)).clamp(min=0).prod(1)
    inside = 2 * shared >= (stops - starts).prod(1).clamp(min=1)
    whole = torch.cat([inside.new_zeros(shown.prefix), inside]).float()
    return torch.zeros(int(groups.max()) + 1).index_add(0, groups, whole) * 2 >= groups.bincount()


def _answer(subject: Subject, output: Any, says: str) -> tuple[str, float | None]:
    logits = logits_of(output)
    if logits is None:
        return says, None
    probabilities = logits.detach().float().softmax(-1)[0]
    best = int(probabilities.argmax())
    return _named(subject, best), round(float(probabilities[best]), 6)


def _named(subject: Subject, label: int) -> str:
    return str(subject.class_names[label]) if label < len(subject.class_names) else f"class {label}"
