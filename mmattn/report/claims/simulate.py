"""Simulated grids: does the report find what is there, and only that?

A grid is drawn as real ones come out: questions are easy or hard for all arms alike, harder for some arms, and a seed
makes a model better or worse by an amount that differs between arms and domains. Effects are planted at will.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from mmattn.report.claims.hypotheses import CORE, SENSES, Trunks
from mmattn.report.claims.judge import judge
from mmattn.report.claims.results import Comparison, Judgement
from mmattn.report.measures import Measures
from mmattn.report.runs import StoredRun

#: Standard deviation over seeds in the unit of the comparison, on average; single ones are drawn around it.
_SPREADS = {
    "focus": 0.12,
    "deletion-random": 1.5,
    "apart": 0.02,
    "all-best": 1.5,
    "pairs": 0.6,
    "pruning": 1.2,
}
_ACCURACIES = ("attention-uniform", "attention-convolution", "4-1", "joint-separate")
_TIMES = (("loop", "fused"), ("lstm", "attention"), ("gru", "attention"))


@dataclass(frozen=True)
class Design:
    """A grid to simulate.

    Attributes:
        seeds: of each arm.
        examples: of each test set.
        accuracy: fraction that the attention arm gets right, the others too where nothing is planted.
        spread: standard deviation of an arm's accuracy over seeds, in points.
        variety: standard deviation of the logarithm of each spread, which differs between arms and measures.
        rounds: of timings.
        lengths: that are timed.
    """

    seeds: int = 5
    examples: int = 500
    accuracy: float = 0.85
    spread: float = 1.2
    variety: float = 0.5
    rounds: int = 9
    lengths: tuple[int, ...] = (64, 256, 1024)


def simulate(
    design: Design, rng: np.random.Generator, effects: Mapping[str, float] | None = None
) -> list[StoredRun]:
    """The runs of one grid, with all that primary comparisons need.

    Args:
        design: of the grid.
        rng: all chance comes from it.
        effects: true effect by id of the comparison, in its unit; for what is not named the one that has to be ruled
            out, which mostly is none.

    Raises:
        ValueError: if an effect would need an accuracy outside (0, 1).
    """
    planted = dict(effects or {})
    measures = [run for domain in SENSES for run in _domain(design, rng, domain, planted)]
    measures += _joint(design, rng, planted)
    measures.append(_speed(design, rng, planted))
    return [StoredRun(f"{run.domain}-{run.arm}-{run.seed}", None, run) for run in measures]


def _domain(
    design: Design, rng: np.random.Generator, domain: str, planted: Mapping[str, float]
) -> list[Measures]:
    hard = rng.standard_normal(design.examples)
    behind = {
        "attention": 0.0,
        "uniform": planted.get(f"focus/{domain}/attention-uniform", 0.0),
        "convolution": planted.get(f"focus/{domain}/attention-convolution", 0.0),
        "heads_1": planted.get(f"heads/{domain}/4-1", 0.0),
    }
    values = {key: _seeds(design, rng, spread) for key, spread in _SPREADS.items()}
    claims = {key: "focus" if key in ("focus", "deletion-random") else "complement" for key in values}
    effects = {key: values[key] + planted.get(f"{claims[key]}/{domain}/{key}", 0.0) for key in values}
    return [
        Measures(
            domain,
            arm,
            seed,
            test=f"simulated {domain}",
            correct={"3": text},
            standard="3",
            values=_values({key: float(value[seed]) for key, value in effects.items()})
            if arm == "attention"
            else {},
        )
        for arm, points in behind.items()
        for seed, text in enumerate(_answers(design, rng, hard, design.accuracy - points / 100))
    ]


def _joint(design: Design, rng: np.random.Generator, planted: Mapping[str, float]) -> list[Measures]:
    """One trunk, and one of each sense's own beside it, which is better by the margin where nothing is planted."""
    one: list[dict[str, str]] = [{} for _ in range(design.seeds)]
    out = []
    (plan,) = (plan for plan in CORE.plans if plan.primary)
    assert isinstance(plan.measure, Trunks)
    for sense in SENSES:
        hard = rng.standard_normal(design.examples)
        points = planted.get(f"core/{sense}/{plan.key}", plan.null)
        for seed, text in enumerate(_answers(design, rng, hard, design.accuracy)):
            one[seed][sense] = text
        for seed, text in enumerate(_answers(design, rng, hard, design.accuracy - points / 100)):
            out.append(_asked(plan.measure.arms(sense)[1], seed, {sense: text}))
    return [_asked("joint", seed, correct) for seed, correct in enumerate(one)] + out


def _asked(arm: str, seed: int, correct: dict[str, str]) -> Measures:
    test = " ".join(f"{sense}=simulated" for sense in correct)
    return Measures("joint", arm, seed, test=test, correct=correct, standard=next(iter(correct)))


def _seeds(design: Design, rng: np.random.Generator, spread: float) -> NDArray[np.float64]:
    """What each seed adds, with a spread around the given one."""
    own = spread * float(np.exp(design.variety * rng.standard_normal()))
    return own * rng.standard_normal(design.seeds)


def _answers(
    design: Design, rng: np.random.Generator, hard: NDArray[np.float64], accuracy: float
) -> list[str]:
    """Right or wrong for each seed: a threshold on the sum of what the example, the arm and chance add."""
    if not 0 < accuracy < 1:
        raise ValueError(f"a planted accuracy must be a fraction in (0, 1): got {accuracy:.3g}")
    place = float(special.ndtri(accuracy))
    # a step of the threshold moves the accuracy by the density there
    slope = 100 * np.exp(-(place**2) / 2) / np.sqrt(2 * np.pi)
    sigma = design.spread * np.exp(design.variety * rng.standard_normal()) / slope
    shared = np.sqrt(0.5) * hard + np.sqrt(0.2) * rng.standard_normal(design.examples)
    out = []
    for shift in sigma * rng.standard_normal(design.seeds):
        rest = np.sqrt(0.3) * rng.standard_normal(design.examples)
        right = place * np.sqrt(1 + sigma**2) + shift + shared + rest > 0
        out.append((right + np.uint8(48)).tobytes().decode())
    return out


def _values(effect: Mapping[str, float]) -> dict[str, float | None]:
    """Values of a run whose differences are ``effect``; fractions where the unit is points."""
    return {
        "focus/log_ratio": effect["focus"],
        "focus_untrained/log_ratio": 0.0,
        "deletion/attention": 0.4,
        "deletion/random": 0.4 + effect["deletion-random"] / 100,
        "heads/js": 0.1 + effect["apart"],
        "heads_untrained/js": 0.1,
        "heads/all": 0.8,
        "heads/best_alone": 0.8 - effect["all-best"] / 100,
        "heads/pair_gain": effect["pairs"] / 100,
        "pruning/importance": 0.6 + effect["pruning"] / 100,
        "pruning/random": 0.6,
    }


def _speed(design: Design, rng: np.random.Generator, planted: Mapping[str, float]) -> Measures:
    repeats: dict[str, list[float]] = {}
    for length in design.lengths:
        for slower, faster in _TIMES:
            base = repeats.setdefault(f"{faster}/train/{length}", _rounds(design, rng, 0.0))
            effect = planted.get(f"parallel/speed/{slower}-{faster}-train-{length}", 0.0)
            noise = _rounds(design, rng, effect)
            repeats[f"{slower}/train/{length}"] = [b * n for b, n in zip(base, noise, strict=True)]
    return Measures("speed", "speed", 0, repeats=repeats)


def _rounds(design: Design, rng: np.random.Generator, effect: float) -> list[float]:
    """A factor for each round; single rounds are disturbed, as on a machine that does other things."""
    return [float(2.0 ** (effect + 0.04 * value)) for value in rng.standard_t(4, design.rounds)]


@dataclass(frozen=True)
class Calibration:
    """What came of many simulated grids.

    Attributes:
        grids: number of grids.
        false: number of grids without any effect in which a primary comparison came out supported.
        found: share of the planted effects that came out supported, over all grids and primary comparisons.
        least: that share for the comparison with the smallest, by its id; of comparisons alike in several domains or
            lengths together.
        covered: share of the primary intervals that hold the true effect, without any effect.
        planted: share with effects planted that hold them.
    """

    grids: int
    false: int
    found: float
    least: tuple[str, float]
    covered: float
    planted: float


def calibrate(design: Design, grids: int = 200, seed: int = 0, most: float = 70.0) -> Calibration:
    """Judge ``grids`` null grids, and as many with effects of the size that each null grid says it detects.

    Every null grid names the smallest effects it would find; another grid of the same make, with all of these
    planted, tells whether that is so.

    Args:
        design: of every grid.
        grids: number of each kind.
        seed: of all chance here; equal seeds give equal results.
        most: points that are planted at most in an accuracy; grids of three seeds ask for more than there is.
    """
    false, null_hits, planted_hits = 0, [], []
    kinds: dict[str, list[bool]] = {}
    for index in range(grids):
        null = judge(simulate(design, np.random.default_rng([seed, index, 0])))
        primary = _primary(null)
        false += any(part.verdict == "supported" for part in primary)
        null_hits += [_holds(part, part.null) for part in primary]
        sizes = {part.id: part.estimate.detectable for part in primary if part.estimate is not None}
        sizes = {key: min(size, most) if _limited(key) else size for key, size in sizes.items()}
        after = judge(simulate(design, np.random.default_rng([seed, index, 1]), sizes))
        for part in _primary(after):
            kinds.setdefault(_kind(part.id), []).append(part.verdict == "supported")
            planted_hits.append(_holds(part, sizes[part.id]))
    shares = {kind: float(np.mean(found)) for kind, found in kinds.items()}
    least = min(shares, key=lambda kind: shares[kind])
    every = [found for kind in kinds.values() for found in kind]
    return Calibration(
        grids,
        false,
        float(np.mean(every)),
        (least, shares[least]),
        float(np.mean(null_hits)),
        float(np.mean(planted_hits)),
    )


def _primary(judgement: Judgement) -> list[Comparison]:
    return [part for part in judgement.comparisons if part.primary and part.estimate is not None]


def _holds(part: Comparison, effect: float) -> bool:
    return part.estimate is not None and part.estimate.low <= effect <= part.estimate.high


def _limited(key: str) -> bool:
    return not key.startswith("parallel") and key.rsplit("/", 1)[1] in _ACCURACIES


def _kind(key: str) -> str:
    claim, _, what = key.split("/")
    return f"{claim}/{what.rsplit('-', 1)[0] if claim == 'parallel' else what}"
