"""Which modules let padding into the results of valid tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from mmattn.observation.leaks import Judge, PaddingReport
from mmattn.observation.padding import PaddedBatch


@torch.no_grad()
def padding_lint(
    model: nn.Module,
    inputs: Any,
    lengths: Tensor | Sequence[int] | None = None,
    *,
    tolerance: float = 1e-4,
    more: int | None = None,
) -> PaddingReport:
    """Name the modules of a model through which padding gets into the results of valid tokens.

    The model runs with each sequence alone, with the batch as given, with other content in its padding, and with a
    longer sequence besides, which brings more padding. Wherever the valid part of a module's result differs, although
    that of its inputs does not, the module is named and its result set right, so that those behind it are judged for
    themselves. What a module does between its parts counts as its own. Valid are the first places of each token
    axis: as many as the sequence has there when it is alone, whatever subsampling made of its length.

    Dropout is off. In a model in training mode batch norms take the statistics of the batch; results are then held
    against those of the batch as given, since a sequence alone would have other statistics. Parameters, buffers and
    modes are as before afterwards.

    Args:
        model: any; modules of ours have no padding and are not named.
        inputs: a tensor, a tuple of arguments or a mapping of keyword arguments.
        lengths: ``[B]`` of the sequences; None takes them from the inputs: integers ``[B]``, or a mask ``[B, T]``.
        tolerance: the least difference, over the largest valid number of the tensor.
        more: tokens that the longer sequence has more than the others have room for; None: half of that, 0: none,
            for models that take no more.

    Raises:
        ValueError: the lengths are neither given nor found, or fit no axis of the inputs; the model does not take
            ``more``, or it is given together with a mask between tokens, which cannot be made longer.

    Example:
        >>> class Centred(nn.Module):
        ...     def forward(self, x, lengths):
        ...         return x - x.mean(1, keepdim=True)
        >>> print(padding_lint(Centred(), (torch.ones(2, 4, 3), torch.tensor([4, 2])), more=0))
        module       worst    by             first seen
        (the model)  ...
    """
    batch = PaddedBatch(inputs, lengths)
    judge = Judge(tolerance)
    with _still(model) as learning, _Slowly():
        mate = None if learning else _with_mate(batch, more, judge.report)
        tries = [("the batch", batch)]
        if batch.can_vary:
            tries.append(("other content", batch.refilled()))
        if mate is not None:
            tries.append(("a longer mate", mate))
        with judge.watching(model, judge.keep), _evaluating(model):
            for row in range(len(batch.lengths)):
                judge.begin()
                batch.alone(row).call(model)
            if mate is not None:
                judge.begin()
                _call_alone(mate, model)
        judge.gather()
        for change, other in tries:
            judge.begin(change, len(other.lengths), only_sizes=learning and other is batch)
            with judge.watching(model, judge.compare):
                other.call(model)
    return judge.report


def _with_mate(batch: PaddedBatch, more: int | None, report: PaddingReport) -> PaddedBatch | None:
    extra = batch.size // 2 + 1 if more is None else more
    if not batch.can_vary or not extra:
        return None
    try:
        return batch.with_mate(extra)
    except ValueError as reason:
        if more is not None:
            raise
        report.unseen["a longer mate"] = str(reason)
        return None


class _Slowly(TorchFunctionMode):
    """torch.nn's encoder takes no fused path past its modules while any function mode is on."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


@contextmanager
def _still(model: nn.Module) -> Iterator[bool]:
    """Dropout off, buffers and modes put back; tells whether batch norms learn."""
    modes = {module: module.training for module in model.modules()}
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    learning = [m for m, on in modes.items() if on and isinstance(m, _BatchNorm)]
    model.eval()
    for norm in learning:
        norm.training = True
    try:
        yield bool(learning)
    finally:
        for module, on in modes.items():
            module.training = on
        for name, value in model.named_buffers():
            value.copy_(buffers[name])


def _call_alone(mate: PaddedBatch, model: nn.Module) -> None:
    try:
        mate.alone(-1).call(model)
    except Exception as error:
        raise ValueError(
            f"more must leave a length that the model takes, or be 0: got {mate.size} tokens"
        ) from error


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """All of a model in eval: batch norm has no statistics of a sequence alone."""
    learning = [m for m in model.modules() if m.training]
    for module in learning:
        module.training = False
    yield
    for module in learning:
        module.training = True
