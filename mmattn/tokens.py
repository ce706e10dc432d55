"""TokenBatch: the one message between adapters, encoders and heads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

import torch
from torch import Tensor


class TokenBatch:
    """B sequences laid end to end, without padding.

    Args:
        values: ``[T, ...]``, the tokens of all sequences one after the other; usually ``[T, D]`` features
            or ``[T]`` integer ids.
        lengths: ``[B]``, tokens of each sequence; a sequence may be empty. Kept on the CPU as int64, since
            the host decides by it how to run attention.
        coords: ``[T, A]``, the place of each token on A axes (1 for sound and text, 2 for pictures).
            ``None`` counts 0, 1, 2, ... inside each sequence.

    Raises:
        ValueError: the lengths do not add up to T, a length is negative, or shapes do not match.
        TypeError: an argument is of the wrong type.

    Example:
        >>> batch = TokenBatch(torch.zeros(5, 8), [3, 2])
        >>> batch
        TokenBatch(2 sequences, 5 tokens, lengths 2..3, values [5, 8] float32, coords [5, 1], cpu)
        >>> batch.to_padded()[0].shape
        torch.Size([2, 3, 8])
    """

    def __init__(self, values: Tensor, lengths: Tensor | Sequence[int], coords: Tensor | None = None) -> None:
        if not isinstance(values, Tensor):
            raise TypeError(f"values must be a tensor [T, ...]: got {type(values).__name__}")
        if values.ndim < 1:
            raise ValueError("values must have a token axis [T, ...]: got a scalar")
        self.values = values
        self.lengths = _as_lengths(lengths)
        total = int(self.lengths.sum())
        if total != len(values):
            raise ValueError(
                f"lengths must add up to the number of tokens: got a sum of {total} for {len(values)} tokens"
            )
        if coords is None:
            coords = (torch.arange(total) - self._starts.repeat_interleave(self.lengths))[:, None]
            coords = coords.to(values.device)
        elif coords.ndim != 2 or len(coords) != total:
            raise ValueError(f"coords must be [T, A] with T={total} tokens: got shape {list(coords.shape)}")
        self.coords = coords

    @classmethod
    def _trusted(cls, values: Tensor, like: TokenBatch) -> TokenBatch:
        """Same sequences with other values; shares what was derived from the lengths."""
        new = cls.__new__(cls)
        new.values, new.lengths, new.coords = values, like.lengths, like.coords
        if not torch.compiler.is_compiling():  # which cannot trace it, and has no use for it
            new.__dict__.update({name: like.__dict__[name] for name in _DERIVED if name in like.__dict__})
        return new

    @classmethod
    def from_sequences(
        cls, sequences: Iterable[Tensor], coords: Iterable[Tensor] | None = None
    ) -> TokenBatch:
        """Lay tensors ``[n_i, ...]`` end to end, with optional coordinates ``[n_i, A]`` for each.

        Raises:
            ValueError: there is no sequence, or the trailing shapes differ.
        """
        parts = list(sequences)
        if not parts:
            raise ValueError("from_sequences needs at least one sequence: got none")
        shapes = {tuple(part.shape[1:]) for part in parts}
        if len(shapes) > 1:
            raise ValueError(f"sequences must share their trailing shape: got {sorted(shapes)}")
        places = None if coords is None else torch.cat(list(coords))
        return cls(torch.cat(parts), [len(part) for part in parts], places)

    @classmethod
    def from_padded(
        cls,
        values: Tensor,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        mask: Tensor | None = None,
        coords: Tensor | None = None,
    ) -> TokenBatch:
        """Take the real tokens out of a padded batch.

        Args:
            values: ``[B, L, ...]``.
            lengths: ``[B]``; tokens at the start of each row. Give this, ``mask``, or neither (all are real).
            mask: ``[B, L]`` boolean, True = real token; real tokens may stand anywhere in the row.
            coords: ``[L, A]`` or ``[B, L, A]``; ``None`` takes the column as the only coordinate.

        Raises:
            ValueError: both lengths and mask are given, or a shape or length does not fit.
        """
        if values.ndim < 2:
            raise ValueError(f"values must be [B, L, ...]: got shape {list(values.shape)}")
        rows, columns = values.shape[:2]
        if lengths is not None and mask is not None:
            raise ValueError("give lengths or mask, not both: got both")
        if lengths is not None:
            lengths = _as_lengths(lengths)
            if len(lengths) != rows:
                raise ValueError(f"lengths must be one for each row: got {len(lengths)} for {rows} rows")
            if len(lengths) and int(lengths.max()) > columns:
                raise ValueError(
                    f"lengths must not exceed the padded length {columns}: got {int(lengths.max())}"
                )
            mask = torch.arange(columns) < lengths[:, None]
        if coords is None:
            coords = torch.arange(columns, device=values.device)[:, None]
        places = coords.expand(rows, *coords.shape[-2:])
        if mask is None:
            return cls(values.flatten(0, 1), [columns] * rows, places.flatten(0, 1))
        if mask.dtype != torch.bool or mask.shape != (rows, columns):
            raise ValueError(
                f"mask must be boolean [B, L] = [{rows}, {columns}], True = real: "
                f"got {mask.dtype} {list(mask.shape)}"
            )
        chosen = mask.to(values.device)
        return cls(values[chosen], mask.sum(1), places[chosen])

    @classmethod
    def concat(cls, batches: Sequence[TokenBatch]) -> TokenBatch:
        """Put the sequences of several batches into one batch.

        Raises:
            ValueError: there is no batch, or they differ in their trailing shape or number of axes.
        """
        if not batches:
            raise ValueError("concat needs at least one batch: got none")
        shapes = {(tuple(b.values.shape[1:]), b.coords.shape[1]) for b in batches}
        if len(shapes) > 1:
            raise ValueError(f"batches must share trailing shape and coordinate axes: got {sorted(shapes)}")
        return cls(
            torch.cat([b.values for b in batches]),
            torch.cat([b.lengths for b in batches]),
            torch.cat([b.coords for b in batches]),
        )

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The lengths as Python integers."""
        return tuple(self.lengths.tolist())

    @cached_property
    def _starts(self) -> Tensor:
        return self.lengths.cumsum(0) - self.lengths

    @cached_property
    def segment_ids(self) -> Tensor:
        """``[T]``: the sequence that each token belongs to, on the device of the values."""
        return torch.arange(len(self)).repeat_interleave(self.lengths).to(self.device)

    @property
    def device(self) -> torch.device:
        """Where values and coordinates lie."""
        return self.values.device

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.lengths)

    def replace(self, values: Tensor) -> TokenBatch:
        """The same sequences with other values ``[T, ...]``.

        Raises:
            ValueError: the number of tokens differs.
        """
        if len(values) != len(self.values):
            raise ValueError(f"values must keep the {len(self.values)} tokens: got {len(values)}")
        return TokenBatch._trusted(values, self)

    def to(self, device: torch.device | str) -> TokenBatch:
        """A copy with values and coordinates on ``device``; lengths stay on the CPU."""
        if torch.device(device) == self.device:
            return self
        return TokenBatch(self.values.to(device), self.lengths, self.coords.to(device))

    def select(self, order: Tensor | Sequence[int]) -> TokenBatch:
        """The sequences with the given indices, in the given order."""
        order = torch.as_tensor(order)
        if order.dtype == torch.bool:
            raise TypeError("order must hold indices, not a mask: got torch.bool")
        order = order.long()
        lengths = self.lengths[order]
        begins = lengths.cumsum(0) - lengths
        places = (self._starts[order] - begins).repeat_interleave(lengths) + torch.arange(int(lengths.sum()))
        places = places.to(self.device)
        return TokenBatch(self.values[places], lengths, self.coords[places])

    def split(self) -> list[TokenBatch]:
        """One batch for each sequence; ``TokenBatch.concat`` puts them together again."""
        values, coords = self.values.split(self.sizes), self.coords.split(self.sizes)
        return [TokenBatch(v, [len(v)], c) for v, c in zip(values, coords, strict=True)]

    def to_padded(self, fill: float = 0.0) -> tuple[Tensor, Tensor]:
        """Pad to the longest sequence.

        Returns:
            values ``[B, L, ...]`` with ``fill`` behind the end of each sequence, and the boolean mask
            ``[B, L]``, True = real token.
        """
        longest = max(self.sizes, default=0)
        mask = (torch.arange(longest) < self.lengths[:, None]).to(self.device)
        padded = self.values.new_full((len(self), longest, *self.values.shape[1:]), fill)
        padded[mask] = self.values
        return padded, mask

    def __getstate__(self) -> dict[str, Tensor]:
        return {"values": self.values, "lengths": self.lengths, "coords": self.coords}

    def __setstate__(self, state: dict[str, Tensor]) -> None:
        self.__dict__.update(state)

    def __repr__(self) -> str:
        sizes = self.sizes
        spread = "no lengths" if not sizes else f"lengths {min(sizes)}..{max(sizes)}"
        kind = str(self.values.dtype).removeprefix("torch.")
        return (
            f"TokenBatch({len(self)} sequences, {len(self.values)} tokens, {spread}, "
            f"values {list(self.values.shape)} {kind}, coords {list(self.coords.shape)}, {self.device})"
        )


#: What a batch computes from its lengths once and shares with batches of other values.
_DERIVED = ("sizes", "_starts", "segment_ids")


def _as_lengths(lengths: Tensor | Sequence[int]) -> Tensor:
    """Lengths as int64 ``[B]`` on the CPU, checked."""
    checked = torch.as_tensor(lengths).detach().cpu()
    if checked.numel() == 0:
        checked = checked.long()
    if checked.is_floating_point() or checked.is_complex() or checked.dtype == torch.bool:
        raise TypeError(f"lengths must be integers: got {checked.dtype}")
    if checked.ndim != 1:
        raise ValueError(f"lengths must be one-dimensional [B]: got shape {list(checked.shape)}")
    checked = checked.long()
    if checked.numel() and int(checked.min()) < 0:
        raise ValueError(f"lengths must not be negative: got {int(checked.min())}")
    return checked
