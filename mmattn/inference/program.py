"""A model as a program of ``torch.export``, checked against the model before it is written."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmattn.inference.dense import NotDense
from mmattn.inference.examples import Example

#: How far the outputs of a program and of its model may lie apart, relative to the largest.
TOLERANCE = 1e-5


class Program(NamedTuple):
    """A traced model and what it takes and gives, as plain data."""

    exported: Any
    says: dict[str, Any]

    def save(self, path: Path) -> None:
        """Write the program; ``torch.export.load(path)`` reads it, without mmattn."""
        torch.export.save(self.exported, path)


def trace(twin: nn.Module, model: Callable[[Any], Tensor], example: Example, gives: str) -> Program:
    """Export the dense twin of a model.

    Args:
        twin: takes ``example.x`` and gives one tensor.
        model: takes ``example.items`` and gives the same tensor.
        example: what it is traced and checked with.
        gives: what the output is, for the reader of a configuration.

    Raises:
        NotDense: torch cannot trace the twin, or it computes something else than the model.
    """
    for part in twin.modules():  # a part of a larger tensor is written with a warning, and in full
        for name, buffer in list(part.named_buffers(recurse=False)):
            setattr(part, name, buffer.clone())
    with torch.no_grad():
        expected = model(example.items)
        with warnings.catch_warnings():  # of torch's own parts while they are traced
            warnings.simplefilter("ignore")
            try:
                exported = torch.export.export(
                    twin.eval(), (example.x,), dynamic_shapes=(example.sizes,), strict=False
                )
            except NotDense:
                raise
            except Exception as error:  # whatever torch meets in a graph that it cannot trace
                reason = " ".join(str(error).split())[:300]
                raise NotDense(f"torch.export must be able to trace the model: got {reason}") from error
        apart = float((exported.module()(example.x) - expected).abs().max())
    most = TOLERANCE * max(1.0, float(expected.abs().max()))
    if not apart <= most:
        raise NotDense(f"a program must compute what its model does, to {most:.1e}: got {apart:.1e}")
    return Program(exported, {"takes": example.says, "gives": gives})
