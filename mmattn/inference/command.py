"""``mmattn``: export a checkpoint, predict with it, look into it, and report on runs."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from mmattn.inference.ensemble import Ensemble
from mmattn.inference.inputs import Inputs
from mmattn.inference.predictor import export, open_model
from mmattn.inference.sources import Source, sources
from mmattn.inference.stream import first_line, rows
from mmattn.observation import RecordTooLarge

if TYPE_CHECKING:
    from typing import TextIO


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``mmattn export``, ``mmattn predict``, ``mmattn explore`` or ``mmattn report``.

    Args:
        argv: the arguments; ``None`` takes those of the process.

    Returns:
        0; 1 when some inputs could not be read; 2, with a sentence on stderr, when nothing was done.
    """
    args = _parser().parse_args(argv)
    try:
        code: int = args.run(args)
    except BrokenPipeError:  # whoever reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, ValueError, ImportError, RecordTooLarge) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return code


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="mmattn", description="Use what was trained.", allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="{export,predict,explore,report}")
    prepared = _Parser(add_help=False)
    group = prepared.add_argument_group("pictures, where a checkpoint does not say how they were prepared")
    group.add_argument("--mean", type=_numbers, metavar="R,G,B", help="mean of each channel, in 0..1")
    group.add_argument("--std", type=_numbers, metavar="R,G,B", help="deviation of each channel")
    group.add_argument("--size", type=_size, metavar="HxW", help="height and width to resize to")
    group.add_argument("--longer-side", type=_count, metavar="N", help="length to resize the longer side to")
    prepared.add_argument("--sense", help="of a checkpoint with several: vision, speech or text")

    one = commands.add_parser(
        "export", parents=[prepared], help="a checkpoint -> a folder that needs no pickle", allow_abbrev=False,
        description="Write config.json, model.safetensors and, where it can be traced, model.pt2 (torch.export).",
    )  # fmt: skip
    one.add_argument("checkpoint", type=Path, help="that a task wrote")
    one.add_argument("--out", type=Path, required=True, help="folder to write to")
    one.add_argument("--no-program", action="store_true", help="leave out model.pt2")
    one.set_defaults(run=_export)

    two = commands.add_parser(
        "predict", parents=[prepared], help="files or lines -> JSON lines", allow_abbrev=False,
        description="Write a JSON object a line for each picture, sound or line of text, in the order of the inputs.",
    )  # fmt: skip
    two.add_argument("model", type=Path, help="an exported folder, or a checkpoint")
    two.add_argument(
        "input",
        nargs="+",
        help="files, folders, globs in quotes, or - for lines of standard input (texts or paths)",
    )
    two.add_argument(
        "--ensemble", type=Path, nargs="+", default=[], metavar="MODEL",
        help="further classifiers of the same classes: probabilities are the mean of all",
    )  # fmt: skip
    two.add_argument("--out", type=Path, help="file to write to (default: standard output)")
    two.add_argument("--top", type=_count, default=5, metavar="N", help="probabilities to give (default: 5)")
    two.add_argument(
        "--attention", type=Path, metavar="FOLDER", help="also draw where the model looked, as PNG"
    )
    two.add_argument("--batch-size", type=_count, default=16, metavar="N", help="items at once (default: 16)")
    two.add_argument("--device", default="auto", help="cpu, cuda, ... (default: auto, cuda if there is one)")
    two.set_defaults(run=_predict)

    three = commands.add_parser(
        "explore", parents=[prepared], help="files or lines -> a page where one sees attention", allow_abbrev=False,
        description="Write one HTML file in which to choose layers, heads and tokens and see where they look.",
    )  # fmt: skip
    three.add_argument(
        "model", type=Path, help="an exported folder, a checkpoint, or a folder of transformers or timm"
    )
    three.add_argument("input", nargs="+", help="as of predict")
    three.add_argument("--out", type=Path, required=True, metavar="FILE", help="HTML file to write to")
    three.add_argument(
        "--device", default="auto", help="cpu, cuda, ... (default: auto, cuda if there is one)"
    )
    three.set_defaults(run=_explore)

    four = commands.add_parser(
        "report", help="folders of runs -> the cross-domain report", allow_abbrev=False,
        description="Write index.html, report.md, report.json and CSV files of the runs of a grid.",
    )  # fmt: skip
    four.add_argument("runs", type=Path, nargs="+", help="folders of runs, of several machines perhaps")
    four.add_argument("--out", type=Path, default=Path("report"), help="folder to write to (default: report)")
    four.set_defaults(run=_report)
    return parser


def _export(args: argparse.Namespace) -> int:
    bundle = export(
        args.checkpoint, args.out, program=not args.no_program, prepared=_prepared(args), sense=args.sense
    )
    numbers = sum(x.numel() for x in bundle.tensors.values())
    print(f"{args.out}: {bundle.kind} of {bundle.inputs.kind}, {numbers:,} numbers")
    if "absent" in bundle.program and not args.no_program:
        print(f"no model.pt2: {bundle.program['absent']}", file=sys.stderr)
    return 0


def _predict(args: argparse.Namespace) -> int:
    device, prepared = _device(args.device), _prepared(args)
    models = [open_model(path, device, prepared, args.sense) for path in (args.model, *args.ensemble)]
    predictor = Ensemble(models) if args.ensemble else models[0]
    problems: list[Source] = []
    found = rows(
        predictor, sources(args.input, predictor.inputs, sys.stdin), problems,
        top=args.top, batch_size=args.batch_size, attention=args.attention,
    )  # fmt: skip
    written = 0
    with ExitStack() as stack:
        out: TextIO = sys.stdout
        for row in found:
            if args.out is not None and not written:
                args.out.parent.mkdir(parents=True, exist_ok=True)
                out = stack.enter_context(args.out.open("w", encoding="utf-8"))
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
            out.flush()
            written += 1
    if not written and not any(source.path for source in problems):
        raise ValueError(_nothing(predictor.inputs, problems, args.input))
    return _reported(problems)


def _explore(args: argparse.Namespace) -> int:
    from mmattn.inference import exploring  # only now: the others do not look

    subject = exploring.open_subject(args.model, _device(args.device), _prepared(args), args.sense)
    problems: list[Source] = []
    found = exploring.explored(
        subject, list(sources(args.input, subject.inputs, sys.stdin)), problems, args.model.name
    )
    if not found and not any(source.path for source in problems):
        raise ValueError(_nothing(subject.inputs, problems, args.input))
    if found:
        exploring.write(found, args.out, args.model.name)
        print(f"{args.out}: {len(found)} explored, {args.out.stat().st_size / 1e6:.1f} MB")
    return _reported(problems)


def _report(args: argparse.Namespace) -> int:
    from mmattn.report import write_report  # only now: the others need none of its libraries

    print(write_report(args.runs[0], args.out, *args.runs[1:]))
    return 0


def _nothing(inputs: Inputs, problems: list[Source], given: list[str]) -> str:
    """Why nothing was read."""
    named = [f"{source.name} ({source.problem})" for source in problems] or given
    return f"there must be at least one {inputs.noun} ({', '.join(inputs.suffixes)}): got {', '.join(named)}"


def _reported(problems: list[Source]) -> int:
    """The exit status, once all that cannot be read is named."""
    for source in problems:
        print(f"cannot read {source.name}: {source.problem}", file=sys.stderr)
    return 1 if problems else 0


def _prepared(args: argparse.Namespace) -> dict[str, Any]:
    given = {"mean": args.mean, "std": args.std, "size": args.size, "longer_side": args.longer_side}
    return {name: value for name, value in given.items() if value is not None}


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"a device must be there: got {name!r} ({first_line(error)})") from error
    return device


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"it must be numbers with commas between: got {text}") from error


def _size(text: str) -> list[int]:
    height, _, width = text.partition("x")
    try:
        return [int(height), int(width or height)]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"it must be HEIGHTxWIDTH or one number: got {text}") from error


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"it must be at least 1: got {text}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
