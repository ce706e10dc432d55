"""From the arguments of a task, as its checkpoint keeps them, to a model without the task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """How a task's model is built.

    Attributes:
        kind: name of a kind of :mod:`mmattn.inference.kinds`.
        model: as :func:`mmattn.inference.parts.build` takes it.
        prefixes: by what the names of its weights begin in the task, and by what in the model; weights of other names
            belong to the training alone.
        adapter: that takes the raw items, as in ``model``; it says how they are read.
        outputs: what belongs to its outputs, as plain data.
    """

    kind: str
    model: dict[str, Any]
    prefixes: dict[str, str]
    adapter: dict[str, Any]
    outputs: dict[str, Any]


def recipe_of(arguments: Mapping[str, Any], sense: str | None = None) -> Recipe | None:
    """What the arguments of a task say; ``None`` where they are not those of a known kind.

    Args:
        arguments: of a task, as plain data.
        sense: which one is meant, of a task with several.

    Raises:
        ValueError: the arguments miss what they must say, or ask for what cannot be exported.
    """
    if isinstance(arguments.get("class_names"), Mapping):
        return _one_sense(arguments, sense)
    if sense is not None:
        raise ValueError(f"a sense is chosen of a checkpoint with several: got {sense!r} for one")
    for needs, reads in _KNOWN:
        if needs <= set(arguments):
            return reads(arguments)
    return None


def _classification(arguments: Mapping[str, Any]) -> Recipe:
    count = arguments["num_classes"]
    head = {
        "embed_dim": _width(arguments["encoder"], arguments["adapter"]),
        "num_classes": count,
        "pool": arguments.get("pool", "attention"),
        "num_heads": arguments.get("pool_heads", 4),
        "dropout": arguments.get("head_dropout", 0.0),
        "attention": arguments.get("pool_attention", "softmax"),
    }
    parts = {
        "adapter": arguments["adapter"],
        "encoder": arguments["encoder"],
        "head": {"class_path": "mmattn.build_classifier", "init_args": head},
    }
    return Recipe(
        "classification",
        {"class_path": "mmattn.inference.Classification", "init_args": parts},
        {f"{name}.": f"{name}." for name in parts},
        arguments["adapter"],
        {"class_names": list(arguments.get("class_names") or map(str, range(count)))},
    )


def _one_sense(arguments: Mapping[str, Any], sense: str | None) -> Recipe:
    """A sense of a joint model: its adapter and head, and the trunk."""
    names: Mapping[str, Any] = arguments["class_names"]
    if sense is None or sense not in names:
        raise ValueError(
            f"a checkpoint with several senses needs one to be chosen, {', '.join(names)}: got {sense or 'none'}"
        )
    own = arguments[sense]
    of_sense = {
        "adapter": own["adapter"],
        "encoder": arguments["encoder"],
        "num_classes": len(names[sense]),
        "class_names": names[sense],
        **{name: own[name] for name in ("pool", "pool_heads", "head_dropout") if name in own},
    }
    found = _classification(of_sense)
    prefixes = {f"adapters.{sense}.": "adapter.", "encoder.": "encoder.", f"heads.{sense}.": "head."}
    return Recipe(found.kind, found.model, prefixes, found.adapter, found.outputs)


def _recognition(arguments: Mapping[str, Any]) -> Recipe:
    parts = {name: arguments[name] for name in ("adapter", "encoder", "units")}
    return Recipe(
        "recognition",
        {"class_path": "mmattn.recognition.SpeechRecognizer", "init_args": parts},
        {"recognizer.": ""},
        arguments["adapter"],
        {"beam_size": arguments.get("beam_size")},
    )


def _translation(arguments: Mapping[str, Any]) -> Recipe:
    if arguments.get("attention", "softmax") != "softmax":
        raise ValueError(
            f"a translator is exported with the attention of its parts, softmax: got {arguments['attention']!r}"
        )
    parts = {name: arguments[name] for name in ("source", "encoder", "decoder")}
    parts |= {"target": arguments.get("target"), "tied": arguments.get("tied", True)}
    return Recipe(
        "translation",
        {"class_path": "mmattn.translation.Translator", "init_args": parts},
        {"translator.": ""},
        arguments["source"],
        {
            "beam_size": arguments.get("beam_size", 5),
            "length_penalty": arguments.get("length_penalty", 1.0),
            "max_length": arguments.get("max_length"),
        },
    )


def _language(arguments: Mapping[str, Any]) -> Recipe:
    parts = {name: arguments[name] for name in ("adapter", "encoder", "vocabulary")}
    return Recipe(
        "masked language",
        {"class_path": "mmattn.language.MaskedLanguageModel", "init_args": parts},
        {"model.": ""},
        arguments["adapter"],
        {"symbol": "[MASK]"},
    )


#: Arguments that tell one kind from the others, and what reads them.
_KNOWN: tuple[tuple[set[str], Callable[[Mapping[str, Any]], Recipe]], ...] = (
    ({"adapter", "encoder", "num_classes"}, _classification),
    ({"adapter", "encoder", "units"}, _recognition),
    ({"source", "encoder", "decoder"}, _translation),
    ({"adapter", "encoder", "vocabulary", "masking"}, _language),
)


def _width(*parts: Mapping[str, Any]) -> int:
    """The width D that encoder and adapter have."""
    for part in parts:
        width = (part.get("init_args") or {}).get("embed_dim")
        if width is not None:
            return int(width)
    raise ValueError("encoder or adapter must say embed_dim: got neither")
