"""Whether a lower precision pays on the processor at hand."""

from __future__ import annotations

import time

import torch

_SIZE, _REPEATS = 256, 3
_SLOW = 1.5  # times; below it the saved memory may be worth it


def times_slower(dtype: torch.dtype) -> float:
    """How many times longer than in float32 a matrix product takes in another type on this CPU.

    Measured on squares of 256, the shortest of three. It took 0.1 s in all where the ratio was 79.

    Args:
        dtype: ``torch.bfloat16`` or another floating type.
    """
    return _seconds(dtype) / _seconds(torch.float32)


def slow_precision(precision: str) -> str | None:
    """One sentence if a precision of Lightning's makes training slower on this CPU, ``None`` if it does not.

    bfloat16 is several times faster than float32 where the processor has AMX, and was 60 to 80 times slower on one
    without AVX-512.

    Args:
        precision: as the trainer names it, such as ``"bf16-mixed"``; those without bfloat16 are not measured.

    Example:
        >>> slow_precision("32-true") is None
        True
    """
    if not precision.startswith("bf16"):
        return None
    ratio = times_slower(torch.bfloat16)
    if ratio < _SLOW:
        return None
    return (
        f"precision should not be slower than 32-true: got {precision!r}, whose matrix products take {ratio:.0f} "
        "times as long on this CPU; train with --trainer.precision 32-true"
    )


def _seconds(dtype: torch.dtype) -> float:
    square = torch.ones(_SIZE, _SIZE, dtype=dtype)
    square @ square  # makes the kernel
    found = []
    for _ in range(_REPEATS):
        begin = time.perf_counter()
        square @ square
        found.append(time.perf_counter() - begin)
    return min(found)
