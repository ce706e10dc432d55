"""An exported model: a configuration as JSON and weights as safetensors, and nothing that runs code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmattn.inference import parts
from mmattn.inference.inputs import Inputs, inputs_from

CONFIG, WEIGHTS, PROGRAM = "config.json", "model.safetensors", "model.pt2"
#: Of the configuration; raised when an older reader would misread a newer one.
FORMAT = 1
#: Ends the names of what modules save beside tensors, such as a tokeniser as text.
_EXTRA = "_extra_state"


@dataclass(frozen=True, eq=False)
class Bundle:
    """All that a trained model is: how it is built, what it learnt, how its inputs are read.

    Attributes:
        kind: what it gives; the name of one of :data:`mmattn.inference.kinds.KINDS`.
        model: how it is built, as :func:`mmattn.inference.parts.build` takes it.
        inputs: how its inputs are read.
        outputs: what belongs to its outputs, such as ``class_names``, as plain data.
        tensors: its weights, by the names of its ``state_dict``.
        state: what else its ``state_dict`` holds, as plain data, such as a tokeniser.
        program: what ``model.pt2`` takes and gives, or why there is none; as plain data.
    """

    kind: str
    model: dict[str, Any]
    inputs: Inputs
    outputs: dict[str, Any]
    tensors: dict[str, Tensor]
    state: dict[str, Any] = field(default_factory=dict)
    program: dict[str, Any] = field(default_factory=dict)

    def build(self) -> nn.Module:
        """The model with its weights, in eval mode.

        Raises:
            ValueError: a part is not one of mmattn's, the weights do not fit what was built, or a tokenizer or the
                like was saved before it had learnt.
            ImportError: a part needs a package that is missing.
        """
        parts.check(self.model)
        with torch.random.fork_rng(devices=[]):  # first weights are drawn and then thrown away
            model = parts.build(self.model)
        if not isinstance(model, nn.Module):
            raise ValueError(f"a model must be a module: got {self.model.get('class_path')!r}")
        try:
            model.load_state_dict({**self.tensors, **self.state})
        except (RuntimeError, KeyError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"the weights must fit the configuration: got {reason}") from error
        _check_ready(model)
        return model.eval()

    def save(self, folder: Path) -> None:
        """Write ``config.json`` and ``model.safetensors``; the folder is made where there is none.

        Raises:
            ImportError: safetensors is missing.
        """
        folder.mkdir(parents=True, exist_ok=True)
        # each on its own, as the format asks: tied weights are written twice
        tensors = {name: x.detach().cpu().contiguous().clone() for name, x in self.tensors.items()}
        # as bytes: its own writer leaves a file that nobody else may read
        (folder / WEIGHTS).write_bytes(_safetensors().save(tensors))
        config = {
            "format": FORMAT,
            "mmattn": _version(),
            "kind": self.kind,
            "model": self.model,
            "inputs": self.inputs.plain(),
            "outputs": self.outputs,
            "program": self.program,
            "state": self.state,
        }
        (folder / CONFIG).write_text(
            json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )

    @classmethod
    def read(cls, folder: Path) -> Bundle:
        """What :meth:`save` wrote; only JSON and safetensors are read.

        Raises:
            FileNotFoundError: a file is absent.
            ValueError: a file is damaged, or of a newer format.
            ImportError: safetensors is missing.
        """
        absent = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
        if absent:
            raise FileNotFoundError(
                f"an exported model must hold {CONFIG} and {WEIGHTS}: got {folder} without {' and '.join(absent)}"
            )
        config = _config(folder / CONFIG)
        safetensors = _safetensors()
        try:
            tensors = safetensors.load_file(folder / WEIGHTS)
        except Exception as error:  # its own class is that of a compiled module
            raise ValueError(f"{WEIGHTS} must be a safetensors file: got {error}") from error
        return cls(
            config["kind"],
            config["model"],
            inputs_from(config["inputs"]),
            config["outputs"],
            tensors,
            config["state"],
            config["program"],
        )


def split_state(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A ``state_dict`` as its tensors and, as plain data, what else modules saved in it.

    Raises:
        ValueError: there is something that JSON cannot hold.
    """
    tensors = {name: x for name, x in state.items() if isinstance(x, Tensor)}
    rest = {name: x for name, x in state.items() if name not in tensors}
    for name, value in rest.items():
        try:
            same = json.loads(json.dumps(value)) == value
        except (TypeError, ValueError):
            same = False
        if not same or not name.endswith(_EXTRA):
            raise ValueError(f"what a module saves must be tensors and plain data: got {name!r}")
    return tensors, rest


def _check_ready(model: nn.Module) -> None:
    """Refuse a model whose tokenizer, units or normalisation have not seen any data."""
    for name, part in model.named_modules():
        for owner in (part, getattr(part, "tokenizer", None), getattr(part, "units", None)):
            if getattr(owner, "ready", True) is False:
                kind = type(owner).__name__
                raise ValueError(
                    f"a model must hold what it learnt from data: got {kind} without, in {name!r}"
                )


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{CONFIG} must be JSON: got {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("format"), int):
        raise ValueError(f"{CONFIG} must be that of an exported model: got {path}")
    if config["format"] > FORMAT:
        raise ValueError(
            f"{CONFIG} must be of format {FORMAT} or older: got {config['format']}; update mmattn"
        )
    kinds = {"kind": str, "model": dict, "inputs": dict, "outputs": dict, "program": dict, "state": dict}
    for name, kind in kinds.items():
        if not isinstance(config.get(name), kind):
            raise ValueError(
                f"{CONFIG} must have a {name} of type {kind.__name__}: got {config.get(name)!r:.60}"
            )
    return config


def _version() -> str:
    """Of mmattn, for the reader of a configuration."""
    try:
        return metadata.version("mmattn")
    except metadata.PackageNotFoundError:  # a copy of the sources that is not installed
        return "unknown"


def _safetensors() -> Any:
    try:
        from safetensors import torch as safetensors
    except ImportError as error:
        raise ImportError('exported models need safetensors: pip install "mmattn[tasks]"') from error
    return safetensors
