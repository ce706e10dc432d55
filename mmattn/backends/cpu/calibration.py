"""Which kernel is the fastest on a CPU: a table of measured times, shipped, and measured again on request."""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any

import torch

from mmattn.backends.cpu.kernels import FLASH, PLAIN, Extras, Kernel

#: A way to run a group: its name, the kernel, and the dtype it computes in (None: that of the call).
WAYS: dict[str, tuple[Kernel, torch.dtype | None]] = {
    "flash": (FLASH, None),
    "plain": (PLAIN, None),
    "flash in float32": (FLASH, torch.float32),
    "plain in float32": (PLAIN, torch.float32),
}
KEYS = (8, 16, 32, 48, 64, 96, 128, 256, 512, 1024, 2048)
HEAD_DIMS = (32, 64)
DTYPES = (torch.float32, torch.bfloat16)
_HEADS = 4
#: The plain kernel must be this much faster: it stores all weights, and copies what lies apart in memory.
_WORTH = 1.2


@dataclass(frozen=True)
class Row:
    """Times of one situation.

    Attributes:
        dtype: of the call, e.g. ``"bfloat16"``.
        train: whether forward and backward were timed, or forward alone.
        dropout: whether weights were dropped.
        keys, head_dim: queries and keys of a sequence, and width of a head.
        milliseconds: by name of the way.
    """

    dtype: str
    train: bool
    dropout: bool
    keys: int
    head_dim: int
    milliseconds: dict[str, float]


@dataclass(frozen=True)
class Choice:
    """A way, and in words what spoke for it."""

    way: str
    reason: str


@dataclass(frozen=True, eq=False)
class Calibration:
    """A table of times for one machine.

    Attributes:
        source: where it was measured.
        rows: the situations.
    """

    source: str
    rows: tuple[Row, ...]

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read a table that :meth:`save` wrote.

        Raises:
            ValueError: the file is no such table.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            return cls(content["source"], tuple(Row(**row) for row in content["rows"]))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f"a calibration must be a file written by mmattn's calibration: got {path}"
            ) from error

    def save(self, path: str | Path) -> None:
        """Write the table as JSON."""
        lines = ",\n  ".join(json.dumps(asdict(row)) for row in self.rows)
        Path(path).write_text(
            f'{{"source": {json.dumps(self.source)},\n "rows": [\n  {lines}\n ]}}\n', encoding="utf-8"
        )

    def choose(
        self,
        dtype: torch.dtype,
        train: bool,
        dropout: bool,
        keys: float,
        head_dim: int,
        allowed: Iterable[str],
    ) -> Choice:
        """The fastest of the allowed ways in the situation measured that is nearest to this one; ``flash`` also
        where it takes up to 1.2 times as long, since it stores no weights."""
        return _choose(
            self, dtype, train, dropout, round(8 * math.log2(max(keys, 1))), head_dim, tuple(allowed)
        )


@lru_cache(maxsize=1024)
def _choose(
    table: Calibration,
    dtype: torch.dtype,
    train: bool,
    dropout: bool,
    eighths: int,
    head_dim: int,
    allowed: tuple[str, ...],
) -> Choice:
    name = str(dtype).removeprefix("torch.")
    rows = [r for r in table.rows if (r.dtype, r.train, r.dropout) == (name, train, dropout)]
    if len(allowed) == 1 or not rows:
        return Choice(
            allowed[0],
            "the only kernel for such a call" if len(allowed) == 1 else f"{name} is not in the table",
        )

    def distance(row: Row) -> float:
        return abs(math.log2(row.keys) - eighths / 8) + abs(math.log2(row.head_dim / head_dim)) / 4

    row = min(rows, key=distance)
    times = {way: ms for way, ms in row.milliseconds.items() if way in allowed}
    if not times:
        return Choice(allowed[0], f"no kernel for such a call is in the table for {name}")
    best = min(times, key=times.__getitem__)
    if times.get("flash", math.inf) <= _WORTH * times[best]:
        best = "flash"
    listed = ", ".join(f"{way} {ms:.2g} ms" for way, ms in sorted(times.items(), key=lambda item: item[1]))
    return Choice(best, f"{listed} at {row.keys} keys of {row.head_dim} ({table.source})")


@lru_cache(maxsize=1)
def shipped() -> Calibration:
    """The table that comes with the library."""
    return Calibration.load(Path(__file__).with_name("calibration.json"))


def measure(seconds: float = 0.1, keys: Iterable[int] = KEYS) -> Calibration:
    """Time all ways on this machine with the present number of threads.

    Args:
        seconds: for each way and situation; all in all about 200 times as long.
        keys: lengths to measure.
    """
    rows = []
    for dtype in DTYPES:
        for train, dropout in ((False, False), (True, False), (True, True)):
            for head_dim in HEAD_DIMS:
                for length in keys:
                    times = _race(dtype, train, dropout, length, head_dim, seconds)
                    rows.append(
                        Row(str(dtype).removeprefix("torch."), train, dropout, length, head_dim, times)
                    )
    source = f"{_processor()}, {torch.get_num_threads()} threads, torch {torch.__version__.partition('+')[0]}"
    return Calibration(source, tuple(rows))


def _race(
    dtype: torch.dtype, train: bool, dropout: bool, length: int, head_dim: int, seconds: float
) -> dict[str, float]:
    """Median milliseconds of each way over batches of about 4,096 tokens, taken in turns."""
    batch = max(1, 4096 // length)
    q, k, v, grad = (torch.randn(batch, length, _HEADS, head_dim).to(dtype).transpose(1, 2) for _ in range(4))
    extras = Extras(None, False, head_dim**-0.5, 26 if dropout else 0)
    ways = {
        name: way for name, way in WAYS.items() if not (dropout and way[0] is FLASH) and way[1] is not dtype
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    end = time.perf_counter() + seconds * len(ways)
    with torch.no_grad():
        for turn in range(1000):
            for name, (kernel, wide) in ways.items():
                begin = time.perf_counter()
                _once(kernel, wide or dtype, (q, k, v), grad if train else None, extras)
                if turn:  # the first one warms up
                    taken[name].append(time.perf_counter() - begin)
            if turn > 2 and time.perf_counter() > end:
                break
    return {name: round(1e3 * median(times), 4) for name, times in taken.items()}


def _once(
    kernel: Kernel,
    dtype: torch.dtype,
    inputs: tuple[torch.Tensor, ...],
    grad: torch.Tensor | None,
    extras: Extras,
) -> None:
    q, k, v = (x.to(dtype) for x in inputs)
    out, saved = kernel.forward(q, k, v, extras)
    out.to(inputs[0].dtype)
    if grad is not None:
        for x in kernel.backward(grad.to(dtype), saved, extras, out)[:3]:
            x.to(inputs[0].dtype)


def _processor() -> str:
    """The name of the processor, as far as the system tells."""
    info: dict[str, Any] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            info.setdefault(name.strip(), value.strip())
    except OSError:
        return platform.processor() or platform.machine()
    amx = " with AMX" if "amx_bf16" in str(info.get("flags", "")) else ""
    return str(info.get("model name", platform.machine())) + amx
