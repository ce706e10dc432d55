"""Random calls of attention: what may be drawn, as plain values that print themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from hypothesis import strategies as st

from mmattn.masks import Causal, KeyLengths, Neighbourhood, Pattern, Prefix, Segments, Window

Form = Literal["plain", "swapped", "strided", "offset", "expanded"]
DTYPES = ("float32", "float32", "float32", "float64", "bfloat16", "bfloat16", "float16")
HEADS = ((1, 1), (2, 2), (3, 3), (2, 1), (4, 2), (6, 2), (5, 1))
#: Coordinates that are drawn lie in [0, PLACES) on every axis.
PLACES = 7


@dataclass(frozen=True)
class MaskTensor:
    """A boolean mask: which of the axes ``[B, H, N, M]`` it has in full (else 1), without the first ``cut`` axes.

    ``share`` of its entries are True.
    """

    full: tuple[bool, bool, bool, bool]
    cut: int
    share: float


@dataclass(frozen=True)
class BiasTensor:
    """A bias, of a shape as in :class:`MaskTensor`; packed, ``[H, N, M]`` with ``room`` to spare.

    ``grad``: it takes a gradient; ``holes``: the share of -inf; ``wide``: float32 whatever the queries are.
    """

    full: tuple[bool, bool, bool, bool]
    cut: int
    grad: bool
    holes: float
    wide: bool
    room: int


@dataclass(frozen=True)
class Case:
    """A call of :func:`mmattn.attend`; numbers come from the seed, everything else is here.

    Attributes:
        q_lengths, k_lengths: tokens of each sequence; a dense call has equal ones.
        heads: H and H_kv.
        axes: of drawn coordinates ``[T, A]``, dense ``[N, A]`` or, ``coords_of_each``, ``[B, N, A]``; 0: none given.
        poison: what stands in keys and values that nobody may see and in queries that see nothing.
        size: factor on the queries: how large the logits are.
        forms: how q, k and v lie in memory.
    """

    seed: int
    packed: bool
    q_lengths: tuple[int, ...]
    k_lengths: tuple[int, ...]
    heads: tuple[int, int]
    head_dim: int
    dtype: str
    grad: bool
    mask: Pattern | MaskTensor | None = None
    bias: BiasTensor | str | None = None
    soft_cap: float | None = None
    sinks: bool = False
    scale: float | None = None
    axes: int = 0
    coords_of_each: bool = False
    poison: float = 0.0
    size: float = 1.0
    forms: tuple[Form, Form, Form] = ("plain", "plain", "plain")

    @property
    def kind(self) -> str:
        """In a word, what is particular about the mask and the bias."""
        mask = "no mask" if self.mask is None else "mask tensor"
        if isinstance(self.mask, Pattern):
            mask = "pattern"
            mask += " for each sequence" if self.mask.per_sequence else ""
            mask += " by coordinates" if self.mask.uses_coords else ""
        bias = (
            "" if self.bias is None else f", bias {'tensor' if not isinstance(self.bias, str) else self.bias}"
        )
        return ("packed, " if self.packed else "dense, ") + mask + bias


def _mostly(value: Any, *others: Any) -> st.SearchStrategy[Any]:
    """The value four times out of five."""
    return st.sampled_from([value] * 4 * len(others) + list(others))


_seeds = st.integers(0, 2**31 - 1)
_forms: st.SearchStrategy[Any] = _mostly("plain", "swapped", "strided", "offset", "expanded")
_widths = st.one_of(
    st.integers(1, 9), st.sampled_from([8, 16, 16, 24, 32]), st.sampled_from([1, 33, 64, 128, 256])
)
_short = st.one_of(st.integers(0, 6), st.integers(1, 13), st.sampled_from([0, 1, 1, 17, 31]))
_aligns: st.SearchStrategy[Any] = st.sampled_from(["bottom-right", "top-left"])
_flags = st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans())


@st.composite
def cases(draw: Callable[[Any], Any]) -> Case:
    """A call of any kind; one of 16 is of :func:`long_windows`."""
    if draw(st.sampled_from([False] * 15 + [True])):
        found: Case = draw(long_windows())
        return found
    packed = draw(st.booleans())
    q_lengths, k_lengths = draw(_lengths(packed))
    heads = draw(st.sampled_from(HEADS))
    axes = draw(_mostly(0, 1, 2, 2))
    mask = draw(_masks(packed, q_lengths, k_lengths, axes))
    return Case(
        draw(_seeds), packed, q_lengths, k_lengths, heads, draw(_widths), draw(st.sampled_from(DTYPES)),
        draw(_mostly(True, False)), mask, draw(_biases(packed, axes)), draw(_mostly(None, 0.7, 5.0)),
        draw(_mostly(False, True)), draw(_mostly(None, 0.0, 0.3, -0.5)), axes, draw(st.booleans()),
        draw(_mostly(0.0, float("nan"), float("inf"), float("-inf"))) if mask is not None else 0.0,
        draw(_mostly(1.0, 0.0, 30.0, 1000.0)), draw(st.tuples(_forms, _forms, _forms)),
    )  # fmt: skip


@st.composite
def _lengths(draw: Callable[[Any], Any], packed: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if not packed:
        count, n = draw(st.sampled_from([0, 1, 1, 2, 2, 3])), draw(_short)
        return (n,) * count, (draw(st.one_of(st.just(n), _short)),) * count
    of_q = tuple(draw(st.lists(_short, max_size=6)))
    if draw(st.booleans()):
        return of_q, of_q
    return of_q, tuple(draw(st.lists(_short, min_size=len(of_q), max_size=len(of_q))))


@st.composite
def long_windows(draw: Callable[[Any], Any]) -> Case:
    """Windows over more queries than a block of the CPU backend holds, and fewer, as many or more keys.

    All offsets; the window may lie partly or wholly outside.
    """
    packed, n = draw(st.booleans()), draw(st.integers(129, 300))
    m = draw(st.one_of(st.just(n), st.integers(0, 400)))
    of_q, of_k = ((n, draw(_short)), (m, draw(_short))) if packed else ((n,), (m,))
    reach = st.one_of(st.integers(0, 40), st.integers(0, 3), st.sampled_from([128, 150, 500]))
    mask: Pattern = Window(draw(reach), draw(reach), draw(_aligns))
    other = draw(st.sampled_from(["", "", "causal", "window"]))
    if other:
        mask = mask & (
            Causal(draw(_aligns)) if other == "causal" else Window(draw(reach), draw(reach), draw(_aligns))
        )
    return Case(
        draw(_seeds), packed, of_q, of_k, draw(st.sampled_from([(1, 1), (2, 1)])), draw(st.integers(1, 9)),
        draw(st.sampled_from(DTYPES)), draw(_mostly(True, False)), mask, scale=draw(_mostly(None, 0.0)),
        poison=draw(_mostly(0.0, float("nan"))), size=draw(_mostly(1.0, 30.0)),
        forms=draw(st.tuples(_forms, _forms, _forms)),
    )  # fmt: skip


@st.composite
def _masks(
    draw: Callable[[Any], Any], packed: bool, of_q: tuple[int, ...], of_k: tuple[int, ...], axes: int
) -> Pattern | MaskTensor | None:
    kind = draw(st.sampled_from(["none", "pattern", "pattern", "tensor"]))
    if kind == "none":
        return None
    if kind == "tensor" and not packed:
        return MaskTensor(
            draw(_flags), draw(st.integers(0, 3)), draw(st.sampled_from([0.5, 0.8, 0.2, 0.0, 1.0]))
        )
    found: Pattern = draw(_patterns(of_q, of_k, axes))
    return found


def _patterns(of_q: tuple[int, ...], of_k: tuple[int, ...], axes: int) -> st.SearchStrategy[Pattern]:
    small = st.one_of(st.integers(0, 3), st.integers(0, 40))
    plain = [
        st.builds(Causal, _aligns),
        st.builds(Window, small, small, _aligns),
        st.builds(Prefix, st.integers(0, 9)),
    ]
    numbers = st.integers(0, 2)
    of_each = [
        st.builds(KeyLengths, st.tuples(*(st.integers(0, m) for m in of_k))),
        st.builds(Prefix, st.tuples(*(st.integers(0, 9) for _ in of_k))),
        st.builds(
            Segments, *(st.tuples(*(st.tuples(*[numbers] * n) for n in side)) for side in (of_q, of_k))
        ),
    ]
    radius = st.sampled_from([0, 1, 2, 1.5, 9])
    by_coords = st.builds(Neighbourhood, st.tuples(*[radius] * max(axes, 1)))
    leaves = st.one_of(*plain, *plain, *of_each, by_coords)
    return st.recursive(
        leaves,
        lambda inner: st.builds(lambda a, b, both: a & b if both else a | b, inner, inner, st.booleans()),
        max_leaves=3,
    )


@st.composite
def _biases(draw: Callable[[Any], Any], packed: bool, axes: int) -> BiasTensor | str | None:
    kind = draw(st.sampled_from(["none", "none", "none", "tensor", "module"]))
    if kind == "none":
        return None
    if kind == "module":
        found: str = draw(
            st.sampled_from(["ALiBi", "GridBias"] + ["RelativeBias", "signed ALiBi"] * (axes < 2))
        )
        return found
    return BiasTensor(
        draw(_flags), draw(st.integers(0, 3)), draw(st.booleans()), draw(_mostly(0.0, 0.1, 0.5)),
        draw(st.booleans()), draw(st.integers(0, 2)),
    )  # fmt: skip
