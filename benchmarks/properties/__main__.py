"""``python -m benchmarks.properties --cases 10000``: random calls on every backend against the formula."""

from __future__ import annotations

import argparse
import time
import warnings
from collections import Counter
from pathlib import Path

import hypothesis
import torch

from benchmarks.bars import Bar, conclude
from benchmarks.properties import Case, cases, check

_DRAWING = hypothesis.settings(
    database=None,
    deadline=None,
    phases=[hypothesis.Phase.generate],
    suppress_health_check=list(hypothesis.HealthCheck),
)
#: Failures that are printed in full.
_SHOWN = 20


def main(arguments: list[str] | None = None) -> int:
    """Draw the cases, count them and judge."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.properties", description=main.__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the bars here as JSON")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    begin = time.monotonic()
    counts, failures = run(args.cases, args.seed)
    taken = time.monotonic() - begin
    for title in ("backend", "dtype", "kind"):
        print(f"\n| {title} | cases |\n|---|---|")
        for name, count in sorted(counts[title].items()):
            print(f"| {name} | {count} |")
    for case, message in failures[:_SHOWN]:
        print(f"\n{message}\n    check({case!r})")
    total = sum(counts["dtype"].values())
    return conclude(
        [
            Bar("cases", total, 10_000, note=f"seed {args.seed}, {taken:.0f} s"),
            Bar("failures", len(failures), 0, at_least=False),
        ],
        args.out,
    )


def run(number: int, seed: int) -> tuple[dict[str, Counter[str]], list[tuple[Case, str]]]:
    """Different cases by backend, dtype and kind, and those that failed with what was wrong."""
    counts: dict[str, Counter[str]] = {"backend": Counter(), "dtype": Counter(), "kind": Counter()}
    failures: list[tuple[Case, str]] = []
    seen: set[str] = set()

    def one(case: Case) -> None:
        if repr(case) in seen or len(seen) == number:
            return
        seen.add(repr(case))
        counts["dtype"][case.dtype] += 1
        counts["kind"][case.kind] += 1
        try:
            counts["backend"].update(check(case))
        except Exception as error:  # whatever it is, it is a failure of the case, and the others go on
            failures.append((case, f"{type(error).__name__}: {error}"))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        round_seed = 1000 * seed
        while len(seen) < number:
            # hypothesis begins with the simplest case and likes to repeat itself: some to spare
            settings = hypothesis.settings(_DRAWING, max_examples=number - len(seen) + 100)
            hypothesis.seed(round_seed)(settings(hypothesis.given(cases())(one)))()
            round_seed += 1
    return counts, failures


if __name__ == "__main__":
    raise SystemExit(main())
