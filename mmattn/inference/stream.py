"""From what a user names to rows, as they come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mmattn.inference.ensemble import Ensemble
from mmattn.inference.predictor import Predictor
from mmattn.inference.sources import Source


def rows(
    predictor: Predictor | Ensemble,
    sources: Iterable[Source],
    problems: list[Source],
    *,
    top: int = 5,
    batch_size: int = 16,
    attention: Path | None = None,
) -> Iterator[dict[str, Any]]:
    """A row of plain data for each source that can be read, in their order, as soon as a batch is full.

    Args:
        predictor: an exported model, or several.
        sources: see :func:`mmattn.inference.sources.sources`.
        problems: takes those that cannot be read.
        top: how many classes with their probabilities.
        batch_size: items that the model takes at once; rows do not depend on it.
        attention: folder for drawings of where the model looked; ``None`` draws nothing. Rows then name their file.

    Yields:
        ``input``: name of the source; ``source``: the text, of a line; and what the model gives, see
        :meth:`~mmattn.inference.Predictor.predict`.
    """
    batch: list[tuple[Source, Any]] = []
    count = 0
    for source in sources:
        if source.problem:
            problems.append(source)
            continue
        try:
            item = source.line if source.path is None else predictor.read(source.path)
        except (OSError, ValueError) as error:
            problems.append(source._replace(problem=first_line(error)))
            continue
        batch.append((source, item))
        if len(batch) == batch_size:
            yield from _of_batch(predictor, batch, top, attention, count)
            count += len(batch)
            batch = []
    if batch:
        yield from _of_batch(predictor, batch, top, attention, count)


def _of_batch(
    predictor: Predictor | Ensemble,
    batch: list[tuple[Source, Any]],
    top: int,
    attention: Path | None,
    count: int,
) -> Iterator[dict[str, Any]]:
    found = predictor.predict([item for _, item in batch], top)
    for number, ((source, item), row) in enumerate(zip(batch, found, strict=True), count + 1):
        shown = {"input": source.name} | ({} if source.line is None else {"source": source.line}) | row
        if attention is not None:
            from mmattn.inference.drawing import save  # only now: Matplotlib is slow to load

            attention.mkdir(parents=True, exist_ok=True)
            stem = "line" if source.path is None else source.path.stem
            path = attention / f"{number:05d}-{stem}.png"
            save(predictor.draw(item, row, source.path), path)
            shown["attention"] = str(path)
        yield shown


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
