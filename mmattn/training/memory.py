"""Memory that is freed and wanted again in every step."""

from __future__ import annotations

import ctypes

import torch

#: Parameters of glibc's mallopt, from malloc.h: what lies free at the end of the heap until it goes back to the
#: system, and the size from which a block is the system's own; 32 MiB is the most that it takes.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_MOST_MMAP = 32 << 20


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory for the next step, in this process.

    By default it gives large blocks back, and every step takes new pages from the system: 20,000 page faults a step
    and 11 % more time for an encoder of width 256 over 3,000 tokens on two cores, a quarter more for a forward pass
    of a ViT-tiny over 16 pictures. The process holds the largest amount that it ever had. It is for
    programs, which the command lines of the tasks are, and not for libraries.

    Returns:
        Whether this C library knows how.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1) and mallopt(_MMAP_THRESHOLD, _MOST_MMAP))


def quick_memory() -> None:
    """What programs that train do once: :func:`keep_freed_memory`, and no filling of new tensors.

    Deterministic algorithms fill what ``torch.empty`` returns with a fixed value, in case somebody reads it before it
    is written. Nothing here does, and the filling costs 8 % of a step of a small Conformer.
    """
    keep_freed_memory()
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # set by torch's module
