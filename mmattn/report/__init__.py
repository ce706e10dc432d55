"""Reports: run records -> one self-contained page, Markdown with figures, and JSON.

Reading and writing records needs Python alone; :func:`write_report` needs matplotlib and jinja2 (extra
``tasks``).
"""

from __future__ import annotations

from pathlib import Path

from mmattn.report.examples import (
    AttentionExample,
    AttentionLayer,
    ExampleFile,
    Picture,
    Sentence,
    Spectrogram,
)
from mmattn.report.gather import gather
from mmattn.report.records import (
    ATTENTION,
    LINEAR,
    MAJORITY,
    UNIFORM,
    Aim,
    DataRecord,
    DomainReport,
    ReportInput,
    ResultRow,
    RunRecord,
)

__all__ = [
    "ATTENTION",
    "LINEAR",
    "MAJORITY",
    "UNIFORM",
    "Aim",
    "AttentionExample",
    "AttentionLayer",
    "DataRecord",
    "DomainReport",
    "ExampleFile",
    "Picture",
    "ReportInput",
    "ResultRow",
    "RunRecord",
    "Sentence",
    "Spectrogram",
    "gather",
    "write_report",
]


def write_report(input: ReportInput, out_dir: str | Path) -> Path:
    """Write ``index.html``, ``report.md``, ``report.json`` and ``figures/*.png`` to ``out_dir``.

    The page asks nothing of the network. Equal input gives equal bytes, and ``report.json`` holds all of it.

    Returns:
        The path of ``index.html``.

    Raises:
        ModuleNotFoundError: without matplotlib or jinja2.
    """
    # A training run writes its record on machines that may have no plotting library.
    from mmattn.report.page import write

    return write(input, out_dir)
