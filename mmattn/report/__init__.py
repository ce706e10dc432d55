"""Reports: the runs of a grid -> one page that stands alone, with its twins in Markdown, JSON and CSV.

Reading and writing records needs Python alone; :func:`write_report` needs numpy, scipy and jinja2 (extra ``tasks``).
"""

from __future__ import annotations

from pathlib import Path

from mmattn.report.measures import HeadMeasure, Measures
from mmattn.report.records import DataRecord, RunRecord

__all__ = ["DataRecord", "HeadMeasure", "Measures", "RunRecord", "write_report"]


def write_report(runs: str | Path, out: str | Path, *more: str | Path) -> Path:
    """Judge the claims by all runs below ``runs`` and write the report to ``out``.

    What lands there: ``index.html``, ``report.md``, ``report.json`` and four CSV files. The page asks nothing of the
    network. Equal runs give equal bytes.

    Args:
        runs: folder with ``measures.json`` in the folder of each run, ``record.json`` beside it where something was
            trained, and ``exploration.json`` where there is something to look into.
        out: folder to write to; other files in it are left alone.
        more: further folders of runs, such as those of other machines.

    Returns:
        The path of ``index.html``.

    Raises:
        ValueError: there is no run, or a file does not fit; it is named.
        ModuleNotFoundError: numpy, scipy or jinja2 is missing.
    """
    # A training run writes its record on machines that may have none of what a page needs.
    from mmattn.report.gather import gather
    from mmattn.report.page import write

    return write(*gather(runs, *more), Path(out))
