"""Where heads lie in tensors: blocks along an axis."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

from torch import Tensor, nn

from mmattn.plugins.find import class_name, num_heads
from mmattn.plugins.site import HEADS


class Block(NamedTuple):
    """A stretch of an axis: ``width`` places for each head, of the keys' heads where ``of_keys``."""

    width: int
    of_keys: bool = False


class Cut(NamedTuple):
    """An axis of a tensor that consists of blocks of heads.

    Attributes:
        owner: the module that has the tensor.
        name: of the parameter or buffer.
        dim: the axis.
        blocks: what lies along it, in order.
    """

    owner: nn.Module
    name: str
    dim: int
    blocks: tuple[Block, ...]

    @property
    def tensor(self) -> Tensor | None:
        """As it is stored, without what a gap would add."""
        return self.owner._parameters.get(self.name, self.owner._buffers.get(self.name))

    @property
    def is_parameter(self) -> bool:
        """Whether it is a parameter rather than a buffer."""
        return self.name in self.owner._parameters

    def size(self, heads: int, kv_heads: int) -> int:
        """The length of the axis with so many heads."""
        return sum(block.width * (kv_heads if block.of_keys else heads) for block in self.blocks)

    def places(self, now: Heads, kept: Heads) -> list[int]:
        """Which places of the axis, as it is with the heads of ``now``, belong to those of ``kept``."""
        found: list[int] = []
        begin = 0
        for width, of_keys in self.blocks:
            have, want = (now.rest_kv, kept.rest_kv) if of_keys else (now.rest, kept.rest)
            for head in want:
                first = begin + have.index(head) * width
                found += range(first, first + width)
            begin += len(have) * width
        return found


@dataclass
class Heads:
    """Which heads of a module are left, in the numbers that they had at first.

    Attributes:
        total, total_kv: how many there were, of queries and of keys.
        rest, rest_kv: which are left.
        narrow: whether the module computes these alone; otherwise it goes on with all, of which some are zeros.
    """

    total: int
    total_kv: int
    rest: list[int]
    rest_kv: list[int]
    narrow: bool

    @property
    def gone(self) -> list[int]:
        """Which are gone."""
        return sorted(set(range(self.total)) - set(self.rest))

    @property
    def num_heads(self) -> int:
        """How many heads the module computes."""
        return len(self.rest) if self.narrow else self.total

    @classmethod
    def all(cls, total: int, total_kv: int | None = None, narrow: bool = False) -> Heads:
        """Those of a module that has lost none."""
        total_kv = total if total_kv is None else total_kv
        return cls(total, total_kv, list(range(total)), list(range(total_kv)), narrow)


@dataclass
class Layout:
    """The cuts of one module.

    Attributes:
        cuts: of its tensors.
        heads: that it has now.
        counts: attributes of the module that count heads or their features, and which: ``"heads"``, ``"kv"``,
            ``"groups"``, or a number of features for each head.
        checked: whether the class is one whose heads are known to lie so.
    """

    cuts: list[Cut]
    heads: Heads
    counts: dict[str, str | int] = field(default_factory=dict)
    checked: bool = True


class NoLayoutError(ValueError):
    """The heads of a module cannot be told apart in its parameters."""


def features(part: nn.Module, blocks: tuple[Block, ...], dim: int) -> list[Cut]:
    """Cuts of a projection: of what it gives (``dim`` 0) or takes (1)."""
    turned = is_turned(part)
    cuts = [Cut(part, "weight", 1 - dim if turned else dim, blocks)]
    if dim == 0 and part._parameters.get("bias") is not None:
        cuts.append(Cut(part, "bias", 0, blocks))
    return cuts


def heads_of(module: nn.Module) -> Heads:
    """The heads of a module, from what was noted when it lost some, or from what it says.

    Raises:
        NoLayoutError: it does not say how many.
    """
    known: Heads | None = module.__dict__.get(HEADS)
    if known is not None:
        return replace(known, rest=list(known.rest), rest_kv=list(known.rest_kv))
    total = num_heads(module)
    if total is None:
        raise NoLayoutError("it does not say how many heads it has")
    return Heads.all(total)


def projection(module: nn.Module, name: str) -> nn.Module | None:
    """A part that is a projection of features; None where there is none of this name."""
    part = getattr(module, name, None)
    if not isinstance(part, nn.Module) or "weight" not in part._parameters:  # or it is made anew at each call
        return None
    if isinstance(part, nn.Linear) or is_turned(part):
        return part
    if isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1) and part.groups == 1:
        return part
    return None


def is_turned(part: nn.Module) -> bool:
    """Whether a projection keeps its weights transposed, as those of GPT-2."""
    return class_name(type(part)) == "transformers.pytorch_utils.Conv1D"


def rows(part: nn.Module) -> int:
    """How many features a projection gives, as it is stored."""
    weight = part._parameters["weight"]
    assert weight is not None
    return weight.shape[1 if is_turned(part) else 0]


def width_of(total: int, heads: int) -> int:
    """Features of one head."""
    if total % heads:
        raise NoLayoutError(f"its {total} features are not a multiple of its {heads} heads")
    return total // heads
