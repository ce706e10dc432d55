"""A made-up judgement for tests of the page: every verdict, every unit, a name that wants to be markup."""

from __future__ import annotations

import random

from mmattn.report.claims.results import (
    ClaimResult,
    Comparison,
    DomainVerdict,
    Estimate,
    Judgement,
    Sample,
    Unit,
    Verdict,
)

NASTY = "<script>alert('x')</script>"
SENSES = ("vision", "speech", "text")

#: claim -> (words, unit, delta, mean by domain, error, arms, primary)
_Made = tuple[str, Unit, float, tuple[float, ...], float, tuple[str, ...], bool]
_OWN, _CROWDED = ("attention",), "accuracy among distractors"
MADE: dict[str, list[_Made]] = {
    "focus": [
        (f"attention − uniform: {_CROWDED}", "points", 2, (31, 28, 23), 1.6, ("attention", "uniform"), True),
        (
            f"attention − convolution: {_CROWDED}",
            "points",
            2,
            (19, 17, 2.4),
            1.5,
            ("attention", "convolution"),
            True,
        ),
        ("trained / untrained: attention on what matters", "log2", 0.5, (1.9, 1.7, 1.5), 0.08, _OWN, True),
        ("random − most attended first: deletion", "points", 2, (14, 13, 11), 0.9, _OWN, True),
        (f"attention − no mixing: {_CROWDED}", "points", 2, (35, 33, 30), 1.9, ("attention", "mlp"), False),
    ],
    "heads": [
        (f"4 heads − 1 head: {_CROWDED}", "points", 1, (1.4, -0.3, 0.9), 0.8, ("attention", "heads_1"), True),
        (f"2 heads − 1 head: {_CROWDED}", "points", 1, (0.9, 0.1, 0.5), 0.8, ("heads_2", "heads_1"), False),
        (f"8 heads − 1 head: {_CROWDED}", "points", 1, (1.6, -0.4, 1.1), 0.9, ("heads_8", "heads_1"), False),
        (f"4 heads − {NASTY}", "points", 1, (1.1, 0.4, 0.9), 0.9, ("attention", "deep_1"), False),
    ],
    "complement": [
        ("trained − untrained: distance", "distance", 0.02, (0.23, 0.22, 0.24), 0.012, _OWN, True),
        ("all heads − the best alone: accuracy", "points", 2, (11, 9, 1), 1.2, _OWN, True),
        ("a pair − the sum of its parts: accuracy", "points", 0.5, (1.4, -1.2, -2), 0.4, _OWN, True),
        ("by importance − at random: pruning", "points", 1, (6.1, 5.5, 4.9), 0.7, _OWN, True),
    ],
}


def verdict(estimate: Estimate | None, delta: float, primary: bool) -> tuple[Verdict, str]:
    """The made-up rule of this file."""
    if estimate is None:
        return "inconclusive", "There are fewer than two seeds."
    if estimate.low > 0 and estimate.mean >= delta:
        return "supported", "The estimate exceeds what counts, and its interval excludes zero."
    if estimate.high < delta:
        return "not supported", "The whole interval lies below the smallest effect that counts."
    return "inconclusive", "The interval holds both nothing and an effect that counts."


def comparison(
    claim: str, domain: str, number: int, words: str, unit: Unit, delta: float, mean: float, error: float,
    arms: tuple[str, ...], primary: bool, seeds: int = 3, path: str = "{domain}-{arm}-{seed}",
) -> Comparison:  # fmt: skip
    """One made-up comparison around ``mean``."""
    rng = random.Random(f"{claim}{domain}{number}")
    samples = [
        Sample(
            seed, mean + rng.gauss(0, error), [path.format(domain=domain, arm=arm, seed=seed) for arm in arms]
        )
        for seed in range(seeds)
    ]
    average = sum(sample.value for sample in samples) / seeds
    p = 0.0004 if average > 3 * error else 0.21
    estimate = (
        Estimate(
            average, average - 2.6 * error, average + 2.6 * error, error, p, min(1.0, 20 * p) if primary else None,
            average / error, 3.1 * error, 400 if unit == "points" else 0,
        )
        if seeds > 1
        else None
    )  # fmt: skip
    found, reason = verdict(estimate, delta, primary)
    return Comparison(
        f"{claim}/{domain}/{number}", claim, domain, words, unit, delta, primary, found, reason, samples, estimate
    )  # fmt: skip


def timings() -> DomainVerdict:
    """Made-up ratios of times."""
    parts = []
    for number, (words, means) in enumerate(
        {
            "heads one after another against all at once": (0.9, 1.2, 1.4),
            "LSTM against attention, training step": (2.0, 1.5, 0.4),
        }.items()
    ):
        for length, mean in zip((64, 256, 1024), means, strict=True):
            parts.append(
                comparison(
                    "parallel", "speed", 10 * number + length, f"{words}, {length} tokens", "log2", 0.14, mean, 0.05,
                    ("speed",), True, 9, "speed-speed-0",
                )
            )  # fmt: skip
    return DomainVerdict("speed", "supported", "All primary comparisons are supported.", parts)


def overall(verdicts: list[Verdict]) -> Verdict:
    """The made-up rule over parts."""
    if not verdicts:
        return "not measured"
    if all(found == "supported" for found in verdicts):
        return "supported"
    return "not supported" if "not supported" in verdicts else "inconclusive"


def judgement(seeds: int = 3, domains: tuple[str, ...] = SENSES) -> Judgement:
    """The whole made-up judgement."""
    titles = {
        "focus": ("Attention focuses on what matters", "Attention lets a model look at what matters."),
        "heads": ("Several heads beat one", "Several attention heads are better than a single one."),
        "complement": ("Heads complement one another", "Each head sees something else, and together they see more."),
    }  # fmt: skip
    claims = []
    for claim, made in MADE.items():
        found = []
        for place, domain in enumerate(SENSES):
            if domain not in domains:
                continue
            parts = [
                comparison(claim, domain, index, w, u, d, means[place], e, arms, primary, seeds)
                for index, (w, u, d, means, e, arms, primary) in enumerate(made)
            ]
            word = overall([part.verdict for part in parts if part.primary])
            found.append(
                DomainVerdict(domain, word, "As the primary comparisons say, taken together.", parts)
            )
        title, sentence = titles[claim]
        word = overall([part.verdict for part in found])
        hypothesis = "If that holds, then each comparison below differs from nothing by at least what counts."
        claims.append(
            ClaimResult(
                claim, title, sentence, hypothesis, word, "As the domains say, taken together.", found
            )
        )
    claims.append(
        ClaimResult(
            "parallel", "Heads are parallel work", "All heads and all tokens are computed at the same time.",
            "If that holds, then one step over all heads takes less time than the heads one after another.",
            "supported", "It is supported in the only domain.", [timings()],
        )
    )  # fmt: skip
    claims.append(
        ClaimResult(
            "core", "One core serves all three", "Pictures, speech and text can share one attention core.",
            "If that holds, then one shared trunk loses less than what counts against three of their own.",
            "not measured", "The grid holds no runs of a joint trunk.", [],
        )
    )  # fmt: skip
    family = sum(p.primary for c in claims for d in c.domains for p in d.comparisons)
    rules = [
        "A comparison is supported where it is significant and large enough.",
        "A claim is supported in a domain where all of its primary comparisons are.",
    ]
    return Judgement(claims, rules, family, (seeds, seeds), ["text-heads_8-2 is missing."])
