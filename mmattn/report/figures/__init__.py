"""The figures of the report as numbers: lines with their bands, dots and tables, and the runs behind them."""

from mmattn.report.figures.heads import dots, redundancy
from mmattn.report.figures.kinds import Dots, Figure, Line, Panel, Table
from mmattn.report.figures.lines import accuracy, deletion, head_counts, learning, pruning
from mmattn.report.figures.speed import loop, recurrent, threads

__all__ = [
    "Dots",
    "Figure",
    "Line",
    "Panel",
    "Table",
    "accuracy",
    "deletion",
    "dots",
    "head_counts",
    "learning",
    "loop",
    "pruning",
    "recurrent",
    "redundancy",
    "threads",
]
