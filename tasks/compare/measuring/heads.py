"""Heads without one another: each removed, each alone, each two together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations
from statistics import fmean

import torch
from torch import Tensor

from mmattn.report.measures import HeadMeasure
from tasks.compare.measuring.findings import Findings
from tasks.compare.measuring.trunk import Trials


def add_trials(found: Findings, trials: Trials, importances: Mapping[str, Tensor]) -> None:
    """Add ``heads/...``, and one :class:`~mmattn.report.measures.HeadMeasure` for each head.

    In one layer after the other heads are masked while all other layers stay whole. With ``a(S)`` the accuracy when
    of the layer only the heads S are left:

    - ``heads/all``: nothing is masked;
    - ``heads/none``: ``a({})``; ``heads/mean_alone`` and ``heads/best_alone``: the mean and the highest of the
      ``a({h})``, of which the highest flatters the single head, since it is chosen on the same scenes;
    - ``heads/pair_gain``: the mean over pairs of ``g({i, j}) - g({i}) - g({j})`` with ``g(S) = a(S) - a({})``:
      above 0 where two heads give more together than one by one, below where either can stand in for the other.

    All but the first are means over the layers.
    """
    whole = trials.accuracy({})
    none, mean, best, gain = [], [], [], []
    for layer, count in trials.heads.items():
        empty = trials.accuracy({layer: mask(count, ())})
        alone = [trials.accuracy({layer: mask(count, (head,))}) for head in range(count)]
        for head in range(count):
            rest = set(range(count)) - {head}
            removed = trials.accuracy({layer: mask(count, rest)})
            importance = float(importances[layer][head])
            found.heads.append(HeadMeasure(layer, head, removed, alone[head], importance))
        none.append(empty)
        mean.append(fmean(alone))
        best.append(max(alone))
        for i, j in combinations(range(count), 2):
            both = trials.accuracy({layer: mask(count, (i, j))})
            gain.append(both - alone[i] - alone[j] + empty)
    found.values |= {
        "heads/all": whole,
        "heads/none": fmean(none),
        "heads/mean_alone": fmean(mean),
        "heads/best_alone": fmean(best),
        "heads/pair_gain": fmean(gain),
    }


def mask(count: int, kept: Iterable[int]) -> Tensor:
    """``[H]``: 1 for the heads that are kept, 0 for the others."""
    factors = torch.zeros(count)
    factors[list(kept)] = 1.0
    return factors
