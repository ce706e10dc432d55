"""Where the tokens of a call stand: given, or counted from 0 in each sequence."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mmattn.backends import Terms
from mmattn.masks import Pattern


def asks_for_coords(terms: Terms) -> bool:
    """Whether the mask or the bias is a function of the coordinates."""
    function = terms.bias is not None and not isinstance(terms.bias, Tensor)
    return function or (isinstance(terms.mask, Pattern) and terms.mask.uses_coords)


def with_coords(
    terms: Terms, q: Tensor, k: Tensor, of_q: tuple[int, ...] | None, of_k: tuple[int, ...] | None
) -> Terms:
    """The terms with coordinates, counted where there are none, and a packed bias drawn once where that will do."""
    q_coords, k_coords = terms.q_coords, terms.k_coords
    if of_q is None or of_k is None:
        n, m = q.shape[2], k.shape[2]
        q_coords = torch.arange(m - n, m, device=q.device)[:, None] if q_coords is None else q_coords
        k_coords = torch.arange(m, device=q.device)[:, None] if k_coords is None else k_coords
        _check_coords(q_coords, n, "q_coords", "[N, A] or [B, N, A]")
        _check_coords(k_coords, m, "k_coords", "[M, A] or [B, M, A]")
        return replace(terms, q_coords=q_coords, k_coords=k_coords)
    q_coords = _counted(of_q, q.device) if q_coords is None else q_coords
    k_coords = _counted(of_k, q.device) if k_coords is None else k_coords
    _check_coords(q_coords, q.shape[0], "q_coords", "[T, A]")
    _check_coords(k_coords, k.shape[0], "k_coords", "[T, A]")
    terms = replace(terms, q_coords=q_coords, k_coords=k_coords)
    if terms.bias is None or isinstance(terms.bias, Tensor):
        return terms
    q_longest, k_longest = _common(q_coords, of_q), _common(k_coords, of_k)
    if q_longest is None or k_longest is None:
        return terms  # sequence by sequence
    return replace(terms, bias=terms.bias(q_longest, k_longest))


def _check_coords(coords: Tensor, tokens: int, name: str, form: str) -> None:
    if coords.ndim < 2 or coords.shape[-2] != tokens:
        raise ValueError(f"{name} must be {form} with {tokens} tokens: got shape {list(coords.shape)}")


def _counted(lengths: tuple[int, ...], device: torch.device) -> Tensor:
    """0, 1, 2, ... inside each sequence, ``[T, 1]``."""
    sizes = torch.tensor(lengths, dtype=torch.long)
    starts = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    return (torch.arange(int(sizes.sum())) - starts)[:, None].to(device)


def _common(coords: Tensor, lengths: tuple[int, ...]) -> Tensor | None:
    """The coordinates of the longest sequence, if those of all others are their beginning."""
    if not lengths:
        return None
    longest = max(range(len(lengths)), key=lengths.__getitem__)
    begin = sum(lengths[:longest])
    line = coords[begin : begin + lengths[longest]]
    places = _counted(lengths, coords.device)[:, 0]
    return line if torch.equal(line[places], coords) else None
