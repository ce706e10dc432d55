"""What leaks are, and the comparison that finds them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten

from mmattn.tokens import TokenBatch

#: Of one tensor of one call of one module, what each sequence has without padding.
_Valid = list[Tensor]
_Key = tuple[str, int, str, int]


@dataclass(frozen=True)
class Leak:
    """How padding gets through one module.

    Attributes:
        worst: the largest difference of a valid number, over the largest valid number of the tensor.
        change: what it took: ``"the batch"`` as given, ``"other content"`` of its padding, or ``"a longer mate"``,
            with whom all others get more padding.
        sequence: the first one of the batch with a difference.
        place: where in its valid part, by the tensor's axes.
    """

    worst: float
    change: str
    sequence: int
    place: tuple[int, ...]


@dataclass
class PaddingReport:
    """What :func:`padding_lint` found; prints as a table, and is true where there are leaks.

    Attributes:
        leaks: by module, in the order of calls.
        unseen: modules with tensors that could not be told apart into sequences, and why.
    """

    leaks: dict[str, Leak] = field(default_factory=dict)
    unseen: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.leaks)

    def __str__(self) -> str:
        if not self.leaks:
            lines = ["no padding leaks into valid tokens"]
        else:
            rows = [("module", "worst", "by", "first seen")]
            rows += [
                (
                    name or "(the model)",
                    f"{leak.worst:.1e}",
                    leak.change,
                    f"sequence {leak.sequence} at {leak.place}",
                )
                for name, leak in self.leaks.items()
            ]
            widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
            lines = ["  ".join(x.ljust(w) for x, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*lines, *(f"not seen: {name}: {why}" for name, why in self.unseen.items())])


class Judge:
    """Compares what goes into modules and comes out with what it should be."""

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance
        self.report = PaddingReport()
        self.only_sizes = False
        self.change, self.rows = "", 1
        self._alone: list[dict[_Key, Tensor]] = []
        self._right: dict[_Key, _Valid] = {}
        self._calls: dict[str, int] = {}

    def begin(self, change: str = "", rows: int = 1, only_sizes: bool = False) -> None:
        """Another run of the model, of so many sequences; ``only_sizes``: it shows what is right, given the sizes."""
        self.change, self.rows, self.only_sizes = change, rows, only_sizes
        self._calls = {}
        if not change:
            self._alone.append({})

    def gather(self) -> None:
        """Turn the runs of the sequences alone into what is right."""
        for key in self._alone[0]:
            found = [run.get(key) for run in self._alone]
            if all(x is not None and x.ndim == found[0].ndim for x in found):  # type: ignore[union-attr]
                self._right[key] = found  # type: ignore[assignment]
        self._alone = []

    @contextmanager
    def watching(self, model: nn.Module, look: Callable[[_Key, Tensor], None]) -> Iterator[None]:
        """Have ``look`` see all tensors that go into modules and come out of them."""
        with ExitStack() as stack:
            for name, module in model.named_modules():
                before = module.register_forward_pre_hook(partial(self._before, name, look), with_kwargs=True)
                after = module.register_forward_hook(partial(self._after, name, look))
                stack.callback(before.remove)
                stack.callback(after.remove)
            yield

    def _before(self, name: str, look: Callable[[_Key, Tensor], None], *given: Any) -> None:
        call = self._calls[name] = self._calls.get(name, -1) + 1
        for i, x in enumerate(_tensors(given[1:])):
            look((name, call, "in", i), x)

    def _after(self, name: str, look: Callable[[_Key, Tensor], None], *given: Any) -> None:
        for i, x in enumerate(_tensors(given[-1])):
            look((name, self._calls[name], "out", i), x)

    def keep(self, key: _Key, x: Tensor) -> None:
        """Remember a tensor of a sequence that is alone."""
        self._alone[-1][key] = x.clone()

    def compare(self, key: _Key, x: Tensor) -> None:
        """Compare the valid part of each sequence, and set it right."""
        name, _, side, _ = key
        right = self._right.get(key)
        if right is None:
            self.report.unseen.setdefault(name, "its calls with and without padding differ in number or axes")
            return
        right = right[: self.rows]
        parts = _valid_parts(x, right)
        if isinstance(parts, str):
            self.report.unseen.setdefault(name, parts)
            return
        if not parts:
            return
        if self.only_sizes:
            self._right[key] = [part.clone() for part in parts]
            return
        scale = max((float(r.abs().max()) for r in right if r.numel()), default=0.0)
        for sequence, (part, wanted) in enumerate(zip(parts, right, strict=True)):
            wrong = (part - wanted).abs()
            if wrong.numel() and not float(wrong.max()) <= self.tolerance * scale:
                blamed = name if side == "out" else name.rpartition(".")[0]
                self._blame(blamed, sequence, wrong, scale)
                if all(stride or size == 1 for stride, size in zip(x.stride(), x.shape, strict=True)):
                    part.copy_(wanted)

    def _blame(self, name: str, sequence: int, wrong: Tensor, scale: float) -> None:
        worst = float(wrong.max()) / max(scale, torch.finfo(torch.float32).tiny)
        known = self.report.leaks.get(name)
        if known is None or (self.change == known.change and worst > known.worst):
            first = (wrong > self.tolerance * scale).nonzero()
            place = (
                tuple(first[0].tolist()) if known is None and len(first) else (known.place if known else ())
            )
            self.report.leaks[name] = Leak(worst, self.change, known.sequence if known else sequence, place)


def _tensors(given: Any) -> list[Tensor]:
    """The floating-point tensors in arguments or results."""
    found = [x.values if isinstance(x, TokenBatch) else x for x in tree_flatten(given)[0]]
    return [x for x in found if isinstance(x, Tensor) and x.is_floating_point() and x.ndim]


def _valid_parts(x: Tensor, alone: _Valid) -> list[Tensor] | str:
    """The valid part of each sequence, as views; or why it is not known. No parts where all share the tensor."""
    lead, cuts = None, []
    if x.ndim != alone[0].ndim:
        return "its tensors have other axes with padding than without"
    for axis, size in enumerate(x.shape):
        sizes = [a.shape[axis] for a in alone]
        if size == sum(sizes) and lead is None:
            lead = axis
        elif size > max(sizes) or len(set(sizes)) > 1:
            cuts.append(axis)
            if size < max(sizes):
                return f"axis {axis} is shorter with padding than without"
    if lead is None:
        shared = all(torch.equal(x[tuple(map(slice, a.shape))], a) for a in alone)
        return [] if shared else f"no axis of {list(x.shape)} holds the sequences"
    parts, start = [], 0
    for a in alone:
        part = x.narrow(lead, start, a.shape[lead])
        start += a.shape[lead]
        for axis in cuts:
            part = part.narrow(axis, 0, a.shape[axis])
        parts.append(part)
    return parts
