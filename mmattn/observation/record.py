"""What was observed: by module, by call, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mmattn.backends import Explanation
from mmattn.observation.measures import Statistics
from mmattn.observation.reduction import Reduced

if TYPE_CHECKING:
    from numpy import ndarray


@dataclass(frozen=True, eq=False)
class ObservedCall:
    """One call of one module. Sequences of a packed batch are filled up with zeros to the longest.

    Attributes:
        name: of the module.
        heads: numbers of the H heads that were observed.
        q_lengths, k_lengths: ``[B]``, queries and keys of each sequence.
        found: tensors by name.
        missing: why something cannot be found.
        later: computes the statistics from the weights, where these were observed.
        explained: what computed the call, where that was asked for.
    """

    name: str
    heads: tuple[int, ...]
    q_lengths: Tensor
    k_lengths: Tensor
    found: dict[str, Tensor]
    missing: dict[str, str]
    later: Callable[[], Statistics] | None
    explained: Explanation | None

    @property
    def weights(self) -> Tensor:
        """``[B, H, N, M]``: softmax weights before dropout; masked keys have 0, a row adds up to 1."""
        return self._get("weights")

    @property
    def entropy(self) -> Tensor:
        """``[B, H, N]``: entropy of each query's weights in nats."""
        return self._get("entropy")

    @property
    def received(self) -> Tensor:
        """``[B, H, M]``: what each key gets from all queries."""
        return self._get("received")

    @property
    def distance(self) -> Tensor:
        """``[B, H, N]``: mean distance to the attended keys, in tokens or in the units of the coordinates."""
        return self._get("distance")

    @property
    def sink_mass(self) -> Tensor:
        """``[B, H, N]``: weight on the first keys and on learned sinks."""
        return self._get("sink_mass")

    @property
    def max_logit(self) -> Tensor:
        """``[B, H, N]``: largest logit; -inf for a query that sees nothing."""
        return self._get("max_logit")

    @property
    def explanation(self) -> Explanation:
        """Which backend computed the call, and why not another."""
        if self.explained is None:
            raise AttributeError(f"explanation needs observe(..., explain=True): got {self.name!r} without")
        return self.explained

    def numpy(self) -> dict[str, ndarray[Any, Any]]:
        """Weights and statistics as far as there are any, and both lengths, as NumPy arrays."""
        names = [name for name in ("weights", *Statistics._fields) if name not in self.missing]
        found = {name: self._get(name) for name in names}
        found |= {"q_lengths": self.q_lengths, "k_lengths": self.k_lengths}
        return {name: x.cpu().numpy() for name, x in found.items()}

    def _get(self, name: str) -> Tensor:
        if name in self.missing:
            raise AttributeError(self.missing[name])
        if name not in self.found:
            assert self.later is not None
            self.found.update(self.later()._asdict())
        return self.found[name]


@dataclass(eq=False)
class ObservedModule:
    """What was observed of one module.

    ``weights``, ``entropy``, ``received``, ``distance``, ``sink_mass``, ``max_logit``, ``heads``, ``q_lengths``,
    ``k_lengths``, ``explanation`` and ``numpy()`` are those of its only call; of several, take one from ``calls``.
    With ``reduce`` they are those of all calls together, see :class:`~mmattn.observation.reduction.Reduced`.

    Attributes:
        name: of the module.
        calls: in the order in which they happened; empty with ``reduce``.
        reduced: all calls together, with ``reduce``.
    """

    name: str
    calls: list[ObservedCall] = field(default_factory=list)
    reduced: Reduced | None = None

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_") or not (hasattr(ObservedCall, attribute) or attribute in _LENGTHS):
            if attribute == "per_head" and self.reduced is not None:
                return self.reduced.per_head
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {attribute!r}")
        if self.reduced is not None:
            return getattr(self.reduced, attribute)
        if len(self.calls) != 1:
            raise AttributeError(
                f"{attribute} is that of one call, take calls[i], or observe with reduce: "
                f"got {len(self.calls)} calls of {self.name!r}"
            )
        return getattr(self.calls[0], attribute)

    def __repr__(self) -> str:
        if self.reduced is not None:
            return f"ObservedModule({self.name!r}, {self.reduced!r})"
        return f"ObservedModule({self.name!r}, {len(self.calls)} calls)"


_LENGTHS = ("heads", "q_lengths", "k_lengths")


class Record(Mapping[str, ObservedModule]):
    """By name, every module whose attention was called; the others are in ``unobserved`` with the reason.

    Args:
        modules: all that are looked at, in the order of the model.
        skipped: those that are not, and why.
        aliases: further names of modules that occur several times.
    """

    def __init__(
        self,
        modules: dict[str, ObservedModule],
        skipped: dict[str, str],
        aliases: dict[str, str],
    ) -> None:
        self._modules = modules
        self._skipped = skipped
        self._aliases = aliases

    @property
    def unobserved(self) -> dict[str, str]:
        """By name, why there is nothing of a module."""
        silent = {
            name: "its attention was not called"
            for name, module in self._modules.items()
            if not _was_called(module)
        }
        return self._skipped | silent

    def __getitem__(self, name: str) -> ObservedModule:
        known = self._aliases.get(name, name)
        module = self._modules.get(known)
        if module is not None and _was_called(module):
            return module
        if known in self.unobserved:
            raise KeyError(f"an observed module must have attended: got {name!r}, {self.unobserved[known]}")
        names = ", ".join(map(repr, self)) or "none"
        raise KeyError(f"a name must be that of an observed module, {names}: got {name!r}")

    def __iter__(self) -> Iterator[str]:
        return (name for name, module in self._modules.items() if _was_called(module))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"Record({len(self)} observed: {list(self)}, {len(self.unobserved)} unobserved)"

    def to_numpy(self) -> dict[str, list[dict[str, ndarray[Any, Any]]]]:
        """By name, for each call (with ``reduce``: for all together) the arrays that were found."""
        return {
            name: [module.reduced.numpy()]
            if module.reduced is not None
            else [call.numpy() for call in module.calls]
            for name, module in self.items()
        }

    def to_bertviz(self, example: int = 0, layers: str = "*") -> tuple[Tensor, ...]:
        """What ``attention``, or ``encoder_attention``, ... of BertViz's ``head_view`` and ``model_view`` takes.

        Captum's ``VisualizationDataRecord`` shows one attribution for each token, which weights are not; take
        those of :func:`mmattn.relevance`.

        Args:
            example: which sequence of the batch; its weights are cut to its lengths.
            layers: a pattern of names; the queries of all must be the same tokens, and the keys as well.

        Returns:
            One tensor ``[1, H, N, M]`` for each layer.

        Raises:
            ValueError: no module fits, a shape differs, or the example does not exist.
            AttributeError: there are no weights, several calls of one module, or they are reduced.
        """
        chosen = {name: module for name, module in self.items() if fnmatchcase(name, layers)}
        if not chosen:
            raise ValueError(
                f"layers must fit an observed module, {', '.join(map(repr, self))}: got {layers!r}"
            )
        found = {}
        for name, module in chosen.items():
            weights, batch = module.weights, len(module.q_lengths)
            if not -batch <= example < batch:
                raise ValueError(f"example must be one of {batch} sequences: got {example} for {name!r}")
            n, m = int(module.q_lengths[example]), int(module.k_lengths[example])
            found[name] = weights[example, :, :n, :m][None]
        shapes = {tuple(x.shape[1:]) for x in found.values()}
        if len(shapes) > 1:
            each = ", ".join(f"{list(x.shape[1:])} of {name!r}" for name, x in found.items())
            raise ValueError(
                f"BertViz wants layers of equal shape [H, N, M], choose them by layers: got {each}"
            )
        return tuple(found.values())


def _was_called(module: ObservedModule) -> bool:
    return bool(module.calls) or (module.reduced is not None and module.reduced.num_calls > 0)
