"""Adapter and encoder of a pre-trained checkpoint, for a model that goes on from them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmattn.adapters import TextTokens
from mmattn.adapters.base import Adapter
from mmattn.encoder import Encoder

#: Arguments that do not change what the weights mean: they differ between pre-training and fine-tuning.
_FREE = ("dropout", "drop_path", "backend", "max_length")


def load_pretrained(
    path: str | Path, adapter: Adapter, encoder: Encoder, recipe: dict[str, Any] | None = None
) -> str:
    """Take up adapter, with its tokenizer, and encoder of a checkpoint of ``tasks.text.pretraining``.

    Args:
        path: the checkpoint.
        adapter: takes up the weights; of the same class and sizes as the one that was pre-trained.
        encoder: likewise.
        recipe: class and arguments of the model that goes on, as in its checkpoint. What the shapes do not show, such
            as the number of heads, is compared by it; ``None`` compares shapes alone.

    Returns:
        What was loaded, in one sentence.

    Raises:
        FileNotFoundError: the file is absent.
        ValueError: it is no such checkpoint, or adapter or encoder differ from those in it.
    """
    checkpoint = _read(Path(path))
    weights: dict[str, Any] = checkpoint["state_dict"]
    parts: dict[str, nn.Module] = {"adapter": adapter, "encoder": encoder}
    found = {name: _under(weights, f"model.{name}.") for name in parts}
    if not all(found.values()):
        raise ValueError(
            f"pretrained must be a checkpoint of tasks.text.pretraining: got {path}, of another task"
        )
    _compare_recipes(checkpoint.get("recipe"), recipe, tuple(parts))
    for name, part in parts.items():
        _compare_shapes(name, part, found[name])
    for name, part in parts.items():
        part.load_state_dict(found[name])
    counts = [sum(p.numel() for p in part.parameters()) for part in parts.values()]
    with_words = (
        " with its tokenizer" if isinstance(adapter, TextTokens) and adapter.tokenizer.state() else ""
    )
    return (
        f"loaded adapter ({counts[0]:,} weights{with_words}) and encoder ({counts[1]:,} weights) from {path}"
    )


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"pretrained must be a file: got {path}, which does not exist")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"pretrained must be a checkpoint: got {path}, which cannot be read") from error
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise ValueError(f"pretrained must be a checkpoint: got {path}, which holds no state_dict")
    return checkpoint


def _under(weights: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _compare_shapes(name: str, part: nn.Module, found: dict[str, Any]) -> None:
    own = {key: value for key, value in part.state_dict().items() if isinstance(value, Tensor)}
    theirs = {key: value for key, value in found.items() if isinstance(value, Tensor)}
    if own.keys() != theirs.keys():
        differing = sorted(own.keys() ^ theirs.keys())
        raise ValueError(
            f"the {name} must have the weights of the pre-trained one: "
            f"got {len(differing)} that one of them lacks, such as {differing[0]}"
        )
    for key, value in own.items():
        if value.shape != theirs[key].shape:
            raise ValueError(
                f"the {name} must have the shapes of the pre-trained one: "
                f"got {key} {list(value.shape)} for {list(theirs[key].shape)}"
            )


def _compare_recipes(
    theirs: dict[str, Any] | None, own: dict[str, Any] | None, parts: tuple[str, ...]
) -> None:
    if theirs is None or own is None:
        return
    for part in parts:
        asked, given = (_flat(recipe["init_args"][part]) for recipe in (own, theirs))
        for key in sorted(asked.keys() | given.keys()):
            if key.split(".")[-1].endswith(_FREE) or asked.get(key) == given.get(key):
                continue
            raise ValueError(
                f"the {part} must be that of the pre-trained model: "
                f"got {key}={asked.get(key)} for {given.get(key)}"
            )


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings with dotted names, without ``init_args``."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        name = prefix if key == "init_args" else f"{prefix}{key}"
        if isinstance(value, dict):
            flat |= _flat(value, name if key == "init_args" else f"{name}.")
        else:
            flat[name] = value
    return flat
