"""The tensors of a case."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.properties.cases import PLACES, BiasTensor, Case, Form, MaskTensor
from mmattn import ALiBi, GridBias, PositionBias, RelativeBias
from mmattn.masks import Pattern


@dataclass
class Call:
    """Arguments of :func:`mmattn.attend`, and the leaves that they were made from."""

    q: Tensor
    k: Tensor
    v: Tensor
    options: dict[str, Any]
    leaves: dict[str, Tensor]


class Inputs:
    """Numbers of a case, drawn once in float64 as its dtype rounds them."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.dtype: torch.dtype = getattr(torch, case.dtype)
        self.random = torch.Generator().manual_seed(case.seed)
        h, h_kv = case.heads
        self.shapes = (self._shape(h, case.q_lengths), *[self._shape(h_kv, case.k_lengths)] * 2)
        self.grad = self._normal(self.shapes[0])
        self.coords = tuple(self._coords(side) for side in (case.q_lengths, case.k_lengths))
        self.mask = self._mask(case.mask)
        self.sinks = self._normal((h,)) if case.sinks else None
        self.bias, self.module = self._bias(case.bias)
        self.bases = [self._base(shape, form) for shape, form in zip(self.shapes, case.forms, strict=True)]
        # half precision holds no larger logits with any digit to spare
        self.bases[0] *= min(case.size, 30.0) if self.dtype.itemsize == 2 else case.size
        self.bases[0] = self.bases[0].to(self.dtype).double()
        if math.isnan(case.poison) or case.poison:
            self._poison()

    @property
    def tokens(self) -> tuple[int, int]:
        """Queries and keys of the longest sequence."""
        return max(self.case.q_lengths, default=0), max(self.case.k_lengths, default=0)

    def call(self, dtype: torch.dtype, grad: bool, clean: bool = False) -> Call:
        """The arguments in a dtype; ``clean`` has zeros for what must not be looked at."""
        names = ("q", "k", "v")
        leaves = {
            name: self._leaf(base, dtype, grad, clean) for name, base in zip(names, self.bases, strict=True)
        }
        views = [
            _view(leaves[name], shape, form)
            for name, shape, form in zip(names, self.shapes, self.case.forms, strict=True)
        ]
        case, wide = self.case, torch.promote_types(dtype, torch.float32)
        options: dict[str, Any] = {"mask": self.mask, "scale": case.scale, "soft_cap": case.soft_cap}
        if self.sinks is not None:
            options["sinks"] = leaves["sinks"] = self._leaf(self.sinks, dtype, grad, clean)
        if isinstance(case.bias, BiasTensor):
            assert self.bias is not None
            of_bias = wide if case.bias.wide else dtype
            options["bias"] = leaves["bias"] = self.bias.to(of_bias, copy=True).requires_grad_(
                grad and case.bias.grad
            )
        elif self.module is not None:
            options["bias"] = copy.deepcopy(self.module).to(wide).requires_grad_(grad)
            leaves |= dict(options["bias"].named_parameters())
        if case.packed:
            options |= {"q_lengths": case.q_lengths, "k_lengths": case.k_lengths}
        if case.axes:
            options |= {"q_coords": self.coords[0], "k_coords": self.coords[1]}
        q, k, v = views
        return Call(q, k, v, options, leaves)

    def pieces(self, call: Call) -> Iterator[tuple[Tensor, Tensor, Tensor, dict[str, Any], slice]]:
        """The call as dense ones, sequence by sequence, and where the queries of each stand."""
        if not self.case.packed:
            yield call.q, call.k, call.v, call.options, slice(None)
            return
        options = {k: x for k, x in call.options.items() if k not in ("q_lengths", "k_lengths")}
        q_end = k_end = 0
        for index, (n, m) in enumerate(zip(self.case.q_lengths, self.case.k_lengths, strict=True)):
            of_q, of_k = slice(q_end, q_end + n), slice(k_end, k_end + m)
            q_end, k_end = of_q.stop, of_k.stop
            own = dict(options, q_coords=self.coords[0][of_q], k_coords=self.coords[1][of_k])
            if isinstance(self.mask, Pattern):
                own["mask"] = self.mask.select([index])
            if isinstance(own.get("bias"), Tensor):
                own["bias"] = own["bias"][:, :n, :m]
            q, k, v = (x.transpose(0, 1)[None] for x in (call.q[of_q], call.k[of_k], call.v[of_k]))
            yield q, k, v, own, of_q

    def _shape(self, heads: int, lengths: tuple[int, ...]) -> tuple[int, ...]:
        case = self.case
        if case.packed:
            return (sum(lengths), heads, case.head_dim)
        return (len(lengths), heads, max(lengths, default=0), case.head_dim)

    def _normal(self, shape: tuple[int, ...]) -> Tensor:
        """Numbers around 0, as the dtype rounds them."""
        return torch.randn(shape, generator=self.random, dtype=torch.float64).to(self.dtype).double()

    def _coords(self, lengths: tuple[int, ...]) -> Tensor:
        case = self.case
        if case.packed and not case.axes:
            return torch.cat([torch.arange(n) for n in (*lengths, 0)])[:, None]
        tokens: tuple[int, ...] = (sum(lengths),) if case.packed else (max(lengths, default=0),)
        if not case.packed and case.coords_of_each:
            tokens = (len(lengths), *tokens)
        return torch.randint(0, PLACES, (*tokens, max(case.axes, 1)), generator=self.random)

    def _axes(self, full: tuple[bool, ...], cut: int) -> list[int]:
        case = self.case
        sizes = (len(case.q_lengths), case.heads[0], *self.tokens)
        return [size if all_ else 1 for size, all_ in zip(sizes, full, strict=True)][cut:]

    def _mask(self, mask: Pattern | MaskTensor | None) -> Pattern | Tensor | None:
        if not isinstance(mask, MaskTensor):
            return mask
        return torch.rand(self._axes(mask.full, mask.cut), generator=self.random) < mask.share

    def _bias(self, bias: BiasTensor | str | None) -> tuple[Tensor | None, PositionBias | None]:
        if isinstance(bias, BiasTensor):
            shape = self._axes(bias.full, bias.cut)
            if self.case.packed:
                n, m = self.tokens
                shape = [self.case.heads[0] if bias.full[1] else 1, n + bias.room, m + bias.room]
            numbers = self._normal(tuple(shape))
            holes = torch.rand(shape, generator=self.random) < bias.holes
            return numbers.masked_fill(holes, -torch.inf), None
        if bias is None:
            return None, None
        h, axes = self.case.heads[0], max(self.case.axes, 1)
        kinds: dict[str, Callable[[], PositionBias]] = {
            "ALiBi": lambda: ALiBi(h),
            "signed ALiBi": lambda: ALiBi(h, symmetric=False),
            "RelativeBias": lambda: RelativeBias(h, num_buckets=8, max_distance=12),
            "GridBias": lambda: GridBias(h, (PLACES if self.case.axes else max(*self.tokens, 1),) * axes),
        }
        made = kinds[bias]()
        for parameter in made.parameters():
            parameter.data = self._normal(tuple(parameter.shape)).float()
        return None, made

    def _base(self, shape: tuple[int, ...], form: Form) -> Tensor:
        *outer, width = shape
        if form == "swapped":
            return self._normal((*shape[:-3], shape[-2], shape[-3], width))
        if form == "strided":
            return self._normal((*outer, 2 * width))
        if form == "offset":
            return self._normal((*outer, width + 3))
        if form == "expanded":
            return self._normal((shape[0], 1, width) if self.case.packed else (1, *shape[1:]))
        return self._normal(shape)

    def _poison(self) -> None:
        """Numbers that are none, in what the mask shows to nobody; some of it keeps its numbers."""
        clean = self.call(torch.float64, grad=False)
        marks = [torch.zeros(shape[:-1], dtype=torch.bool) for shape in self.shapes]
        k_end = 0
        for q, k, _, options, rows in self.pieces(clean):
            seen = allowed(q, k, options)
            of_keys = seen.any(-2).unflatten(1, (k.shape[1], -1)).any(2)
            if not self.case.packed:
                marks[0], marks[1] = ~seen.any(-1), ~of_keys
                continue
            marks[0][rows] = ~seen[0].any(-1).T
            marks[1][k_end : k_end + k.shape[2]] = ~of_keys[0].T
            k_end += k.shape[2]
        marks[2] = marks[1]
        for base, mark, shape, form in zip(self.bases, marks, self.shapes, self.case.forms, strict=True):
            if form != "expanded":  # one number there stands in many places
                chosen = mark & (torch.rand(mark.shape, generator=self.random) < 0.7)
                _view(base, shape, form)[chosen] = self.case.poison

    def _leaf(self, base: Tensor, dtype: torch.dtype, grad: bool, clean: bool) -> Tensor:
        base = torch.where(base.isfinite(), base, 0.0) if clean else base
        return base.to(dtype, copy=True).requires_grad_(grad)


def _view(base: Tensor, shape: tuple[int, ...], form: Form) -> Tensor:
    if form == "swapped":
        return base.transpose(-3, -2)
    if form == "strided":
        return base[..., ::2]
    if form == "offset":
        return base[..., 3:]
    return base.expand(shape) if form == "expanded" else base


def allowed(q: Tensor, k: Tensor, options: dict[str, Any]) -> Tensor:
    """Who may attend to whom in a dense call, ``[B, H, N, M]``."""
    mask, n, m = options["mask"], q.shape[2], k.shape[2]
    if isinstance(mask, Pattern):
        q_coords, k_coords = options.get("q_coords"), options.get("k_coords")
        q_coords = torch.arange(m - n, m)[:, None] if q_coords is None else q_coords
        k_coords = torch.arange(m)[:, None] if k_coords is None else k_coords
        mask = mask.dense(n, m, query_coords=q_coords, key_coords=k_coords)
    drawn: Tensor = torch.ones((), dtype=torch.bool) if mask is None else mask
    return drawn.expand(*q.shape[:3], m)
