"""Small models of five libraries, weights drawn anew so that attention is far from uniform, against their hosts."""

from __future__ import annotations

import warnings
from dataclasses import asdict

from benchmarks.bars import Bar
from benchmarks.plugins.topic import Topic
from benchmarks.plugins.zoo.sweep import sweep, table

#: Models that the zoo must have.
MODELS = 150


def run() -> Topic:
    """Every model of the zoo through every check."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = sweep()
    bars = [
        Bar("conformance: models in the zoo", len(results), MODELS),
        Bar("conformance: models that fail a check", sum(not r.holds for r in results), 0, at_least=False),
    ]
    return Topic("Conformance of the zoo", table(results), bars, {"models": [asdict(r) for r in results]})
