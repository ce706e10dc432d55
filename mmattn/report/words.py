"""Numbers as the reader sees them."""

from __future__ import annotations

MISSING = "\N{EN DASH}"


def percent(fraction: float | None) -> str:
    """``0.9125`` as ``91.2 %`` with a no-break space; a dash for None."""
    return MISSING if fraction is None else f"{100 * fraction:.1f}\N{NO-BREAK SPACE}%"


def count(number: float | None) -> str:
    """A count with three digits and a unit: ``412 k``, ``1.24 M``, ``3.1 G``; whole below 1000."""
    if number is None:
        return MISSING
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        # 999.6 k would read "1000 k" after rounding, so the next unit starts a little early.
        if number >= 0.9995 * size:
            value = number / size
            return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}\N{NO-BREAK SPACE}{unit}"
    return f"{number:.0f}"


def memory(size: float | None) -> str:
    """Bytes as MiB, or GiB from 1024 MiB on."""
    if size is None:
        return MISSING
    mebi = size / 2**20
    return f"{mebi:.0f}\N{NO-BREAK SPACE}MiB" if mebi < 1024 else f"{mebi / 1024:.1f}\N{NO-BREAK SPACE}GiB"


def duration(seconds: float | None) -> str:
    """Seconds as ``0.42 s``, ``38 s``, ``12 min 05 s`` or ``2 h 05 min``."""
    if seconds is None:
        return MISSING
    if seconds < 9.95:
        return f"{seconds:.2g}\N{NO-BREAK SPACE}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}\N{NO-BREAK SPACE}s"
    if whole < 3600:
        return f"{whole // 60}\N{NO-BREAK SPACE}min {whole % 60:02d}\N{NO-BREAK SPACE}s"
    return f"{whole // 3600}\N{NO-BREAK SPACE}h {whole % 3600 // 60:02d}\N{NO-BREAK SPACE}min"


def listing(names: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``; ``none`` for nothing."""
    if len(names) < 2:
        return names[0] if names else "none"
    return f"{', '.join(names[:-1])} and {names[-1]}"


def short_seconds(seconds: float) -> str:
    """A time for an axis: ``250 µs``, ``3 ms``, ``1.5 s``."""
    for size, unit in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= 0.9995 * size:
            return f"{seconds / size:.3g}\N{NO-BREAK SPACE}{unit}"
    return f"{seconds * 1e6:.3g}\N{NO-BREAK SPACE}µs"


def counted(number: int, noun: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
