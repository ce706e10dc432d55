"""From a checkpoint of a training to a bundle, without the task that made it."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mmattn.inference import parts
from mmattn.inference.bundle import Bundle, split_state
from mmattn.inference.inputs import Inputs, Pictures, inputs_from
from mmattn.inference.kinds import KINDS
from mmattn.inference.recipes import Recipe, recipe_of


def read_checkpoint(
    path: Path, prepared: Mapping[str, Any] | None = None, sense: str | None = None
) -> Bundle:
    """The model of a checkpoint.

    Only tensors and plain data are read from the file (``torch.load(weights_only=True)``); the task is not imported.

    Args:
        path: of a checkpoint that a task of mmattn wrote.
        prepared: how pictures were prepared, where the checkpoint does not say: fields of
            :class:`~mmattn.inference.inputs.Pictures`.
        sense: which one, of a model with several: ``"vision"``, ``"speech"`` or ``"text"``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no checkpoint, was made without a recipe, is of no known kind, or does not say how its
            pictures were prepared.
    """
    checkpoint = _loaded(path)
    recipe = checkpoint.get("recipe")
    if not isinstance(recipe, dict) or "state_dict" not in checkpoint:
        raise ValueError(
            f"a checkpoint must hold a recipe, which the command lines of mmattn's tasks put in: got {path} without"
        )
    found = recipe_of(recipe.get("init_args") or {}, sense)
    if found is None:
        kinds = ", ".join(KINDS)
        raise ValueError(
            f"a checkpoint must be of a known kind, {kinds}: got one of {recipe.get('class_path')}"
        )
    parts.check(found.model)
    tensors, state = split_state(_own_weights(checkpoint["state_dict"], found.prefixes))
    said = dict(recipe.get("inputs") or {})
    inputs = _inputs(found, _merged(said if sense is None else said.get(sense) or {}, prepared or {}))
    if prepared and not isinstance(inputs, Pictures):
        raise ValueError(f"mean, std and sizes are for pictures: got {', '.join(prepared)} for {inputs.kind}")
    return Bundle(found.kind, found.model, inputs, found.outputs, tensors, state)


def _merged(said: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of its inputs, and what the user says instead; one size takes the other's place."""
    sizes = {"size", "longer_side"}
    kept = {name: value for name, value in said.items() if name not in sizes or not sizes & set(given)}
    return {**kept, **given}


def _inputs(recipe: Recipe, prepared: Mapping[str, Any]) -> Inputs:
    """How inputs are read: as the adapter says, and, of pictures, as the data of the training were."""
    _, name = parts.locate(recipe.adapter["class_path"])
    if name in ("AudioFrames", "BandNormFrames"):
        return inputs_from({"kind": "sounds", "sample_rate": parts.argument(recipe.adapter, "sample_rate")})
    if name in ("TextTokens", "TextNgrams"):
        return inputs_from({"kind": "texts"})
    values = {key: value for key, value in prepared.items() if key != "kind"}
    if "mean" not in values or "std" not in values:
        raise ValueError(
            "it must be known how pictures were normalised: got a checkpoint that does not say, give --mean and --std"
        )
    channels = parts.argument(recipe.adapter, "in_channels")
    if len(values["mean"]) != channels:
        raise ValueError(
            f"mean and std must be of the {channels} channels of the adapter: got {len(values['mean'])}"
        )
    return inputs_from({"kind": "pictures", **values})


def _loaded(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(
            f"a model must be a checkpoint or an exported folder: got {path}, which is neither"
        )
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"a checkpoint must hold tensors and plain data: got {path} ({_first_line(error)})"
        ) from error
    except (RuntimeError, EOFError) as error:
        raise ValueError(
            f"a checkpoint must be a whole file of torch: got {path} ({_first_line(error)})"
        ) from error
    if not isinstance(checkpoint, dict):
        raise ValueError(f"a checkpoint must be a mapping: got {type(checkpoint).__name__} in {path}")
    return checkpoint


def _own_weights(state: Mapping[str, Any], prefixes: Mapping[str, str]) -> dict[str, Any]:
    """The weights of the model, under its own names."""
    return {
        new + name[len(old) :]: value
        for name, value in state.items()
        for old, new in prefixes.items()
        if name.startswith(old)
    }


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
