"""``python -m tasks.compare``: train every arm of a grid in every domain with every seed, and write the report."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tasks.compare.executors import executor
from tasks.compare.grid import Grid
from tasks.compare.progress import duration
from tasks.compare.running import run_grid, standing

_CONFIG = "a YAML file, or the name of one in tasks/compare/configs: quick, standard, full"


def main(argv: list[str] | None = None) -> int:
    """Run the grid, say how far it is, or make some of its runs again."""
    args = _parser().parse_args(argv)
    try:
        status: int = args.command(args)
    except (ValueError, ImportError, ConnectionError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tasks.compare", description=main.__doc__)
    commands = parser.add_subparsers(required=True, metavar="run | status | verify")
    run = commands.add_parser("run", help="do what is missing, then write the report")
    run.set_defaults(command=_run)
    run.add_argument("--config", default="quick", help=_CONFIG)
    run.add_argument("--out", type=Path, default=Path("report"), help="folder of the report")
    run.add_argument("--jobs", type=int, help="runs side by side; one for each core unless given")
    run.add_argument("--executor", choices=("local", "ray"), default="local")
    run.add_argument("--address", help="of the Ray cluster: auto finds the one that runs here")
    run.add_argument("extra", nargs="*", help="after --: arguments for every training")
    status = commands.add_parser("status", help="say how far a grid is")
    status.set_defaults(command=_status)
    status.add_argument("--config", default="quick", help=_CONFIG)
    status.add_argument("--out", type=Path, default=Path("report"), help="folder of the report")
    status.add_argument("extra", nargs="*", help="after --: arguments for every training, as for run")
    verify = commands.add_parser("verify", help="make some runs again and compare each number")
    verify.set_defaults(command=_verify)
    verify.add_argument("report", type=Path, nargs="?", default=Path("report"), help="folder of the report")
    verify.add_argument("--sample", type=int, default=3, help="how many runs")
    verify.add_argument("--seed", type=int, default=0, help="of their choice")
    verify.add_argument("--jobs", type=int, help="runs side by side")
    return parser


def _run(args: argparse.Namespace) -> int:
    begin = time.perf_counter()
    grid = Grid.load(args.config, tuple(args.extra))
    outcome = run_grid(grid, args.out, executor(args.executor, args.jobs, args.address))
    for name, said in outcome.failed.items():
        print(f"failed: {name}: {said}")
    if outcome.done:
        write(args.out)
    print(f"{duration(time.perf_counter() - begin)} in all")
    return 1 if outcome.failed else 0


def write(out: Path) -> None:
    """Write the report of the runs in a folder, and print its verdicts."""
    from mmattn.report import write_report
    from mmattn.report.claims import judge
    from mmattn.report.runs import load_runs

    page = write_report(out / "runs", out)
    print(f"\nReport: {page}")
    for claim in judge(load_runs(out / "runs")).claims:
        domains = ", ".join(f"{each.domain} {each.verdict}" for each in claim.domains)
        print(f"  {claim.title}: {claim.verdict}" + (f" ({domains})" if domains else ""))


def _status(args: argparse.Namespace) -> int:
    progress = standing(Grid.load(args.config, tuple(args.extra)), args.out)
    print("\n".join(progress.standing()))
    return 0


def _verify(args: argparse.Namespace) -> int:
    from tasks.compare.verify import table, verify

    found = verify(args.report, args.sample, args.seed, args.jobs)
    print(table(found))
    return 0 if found.holds else 1


if __name__ == "__main__":
    sys.exit(main())
