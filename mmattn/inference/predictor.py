"""Predictor: an exported model, ready for pictures, sounds or lines of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmattn.inference.bundle import PROGRAM, Bundle
from mmattn.inference.checkpoint import read_checkpoint
from mmattn.inference.dense import NotDense
from mmattn.inference.inputs import Inputs, Pictures
from mmattn.inference.kinds import kind_of
from mmattn.inference.looking import Look

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Predictor:
    """A trained model with all that it needs to be used.

    Args:
        bundle: the model.
        device: where it runs.

    Attributes:
        kind: what it gives, such as ``"classification"``.
        inputs: how files are read for it.
        outputs: what belongs to its outputs, such as ``class_names``.
        model: the module, in eval mode.
    """

    def __init__(self, bundle: Bundle, device: torch.device | str = "cpu") -> None:
        self._kind = kind_of(bundle.kind)
        self.kind = bundle.kind
        self.inputs: Inputs = bundle.inputs
        self.outputs = bundle.outputs
        self.device = torch.device(device)
        self.model = bundle.build().to(self.device)

    def read(self, path: Path | str) -> Any:
        """The item of a file: a picture, a wave or a text.

        Raises:
            OSError: the file cannot be opened.
            ValueError: it holds no whole item.
        """
        return self.inputs.read(Path(path))

    @torch.inference_mode()
    def predict(self, items: Sequence[Any], top: int = 5) -> list[dict[str, Any]]:
        """For each item what the model gives, as plain data; a row does not depend on the other items.

        Args:
            items: pictures ``[C, H, W]`` and waves ``[S]`` as :meth:`read` gives them, or strings.
            top: how many classes with their probabilities, the most probable first.
        """
        if top < 1:
            raise ValueError(f"top must be at least 1: got {top}")
        return self._kind.predict(self.model, self.placed(items), self.outputs, top) if items else []

    def look(self, item: Any) -> Look:
        """Where the model looks in an item."""
        return self._kind.look(self.model, self.placed([item])[0], self.outputs)

    def draw(self, item: Any, row: Mapping[str, Any] | None = None, path: Path | None = None) -> Figure:
        """Where the model looks in an item, drawn over it.

        Args:
            item: as :meth:`read` gives it.
            row: what :meth:`predict` gave for it; ``None`` asks for it.
            path: of the picture, so that it is drawn as it is, not as it was resized.

        Raises:
            ImportError: Matplotlib is missing.
        """
        shown = item
        if isinstance(self.inputs, Pictures):
            shown = self.inputs.pixels(path) if path is not None else self.inputs.shown(item)
        with torch.inference_mode():
            said = self.predict([item])[0] if row is None else row
            return self._kind.draw(self.model, shown, self.placed([item])[0], said, self.outputs)

    def placed(self, items: Sequence[Any]) -> list[Any]:
        """The items on the model's device."""
        return [item.to(self.device) if isinstance(item, Tensor) else item for item in items]


def load(folder: Path | str, device: torch.device | str = "cpu") -> Predictor:
    """An exported model, from JSON and safetensors alone: no pickle, and no code but mmattn's own parts.

    Args:
        folder: that :func:`export` wrote.
        device: where the model runs.

    Raises:
        FileNotFoundError: a file is absent.
        ValueError: a file is damaged or names anything but mmattn's parts, or the weights do not fit.
        ImportError: a package is missing; the message names it.
    """
    return Predictor(Bundle.read(Path(folder)), device)


def open_model(
    path: Path | str,
    device: torch.device | str = "cpu",
    prepared: Mapping[str, Any] | None = None,
    sense: str | None = None,
) -> Predictor:
    """An exported model, or one in a checkpoint.

    Args:
        path: an exported folder or a checkpoint.
        device: where the model runs.
        prepared: how pictures were prepared, where a checkpoint does not say; see :func:`export`.
        sense: which one, of a checkpoint with several.

    Raises:
        FileNotFoundError: there is neither.
        ValueError: a file is damaged, or the model of no known kind.
    """
    path = Path(path)
    if not path.is_dir():
        return Predictor(read_checkpoint(path, prepared, sense), device)
    given = [*(prepared or {}), *(() if sense is None else ("sense",))]
    if given:
        raise ValueError(f"an exported folder says all of its model: got {', '.join(given)} for {path}")
    return Predictor(Bundle.read(path), device)


def export(
    checkpoint: Path | str,
    folder: Path | str,
    *,
    program: bool = True,
    prepared: Mapping[str, Any] | None = None,
    sense: str | None = None,
) -> Bundle:
    """Write the model of a checkpoint as ``config.json``, ``model.safetensors`` and, where it can be, ``model.pt2``.

    Args:
        checkpoint: that a task of mmattn wrote.
        folder: made where there is none.
        program: also write the model as a program of ``torch.export``. Where it cannot be traced, ``program`` of the
            configuration says why.
        prepared: how pictures were prepared, where the checkpoint does not say: ``mean``, ``std``, and ``size`` or
            ``longer_side`` as in :class:`~mmattn.inference.inputs.Pictures`.
        sense: which one, of a checkpoint with several: ``"vision"``, ``"speech"`` or ``"text"``.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: it is no checkpoint of a known kind, or the weights do not fit.
    """
    bundle = read_checkpoint(Path(checkpoint), prepared, sense)
    model = bundle.build()  # what cannot be built must not be written
    folder = Path(folder)
    says: dict[str, Any] = {"absent": "it was not asked for"}
    traced = None
    if program:
        try:
            traced = kind_of(bundle.kind).program(model, bundle.inputs, bundle.outputs)
            says = {"file": PROGRAM, **traced.says}
        except NotDense as error:
            says = {"absent": str(error)}
    bundle.program.update(says)
    bundle.save(folder)
    if traced is not None:
        traced.save(folder / PROGRAM)
    else:
        (folder / PROGRAM).unlink(missing_ok=True)  # of an export before this one
    return bundle
