"""The claims of the material, and what each means in numbers. Written down before the first run of a grid.

Every comparison is a difference that is positive where the claim holds, with the smallest difference that would
matter to someone who builds a model (``delta``). Primary comparisons carry the verdict, secondary ones are
reported beside it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from mmattn.report.claims.results import Unit

#: Domains of the claims about senses, in the order of the page.
SENSES = ("vision", "speech", "text")

#: Domain of the runs on all senses, and arm of those of one trunk for all.
JOINT = "joint"


@dataclass(frozen=True)
class Answers:
    """Accuracy of one arm minus another's, answer by answer on the same questions.

    Attributes:
        first: arm.
        second: arm.
        level: number of distractors as text; None for the level of the verdicts.
    """

    first: str
    second: str
    level: str | None = None


@dataclass(frozen=True)
class Trunks(Answers):
    """The same of joint runs, on the questions of a sense.

    The arms are kinds of runs: ``joint``, which is asked in every sense, or one with a run for each, such as
    ``separate`` for ``separate_vision``.
    """

    def arms(self, sense: str) -> tuple[str, str]:
        """The two arms in a sense.

        >>> Trunks("joint", "separate").arms("text")
        ('joint', 'separate_text')
        """
        first, second = (kind if kind == JOINT else f"{kind}_{sense}" for kind in (self.first, self.second))
        return first, second


@dataclass(frozen=True)
class Values:
    """A value of one run minus another value of the same run, or the value alone.

    Attributes:
        first: name in :attr:`Measures.values`.
        second: name; None for nothing to subtract.
        arm: whose runs.
    """

    first: str
    second: str | None = None
    arm: str = "attention"


@dataclass(frozen=True)
class Times:
    """Logarithm of a ratio of times, round by round, at each length that was timed.

    Attributes:
        slower: what is said to take longer.
        faster: what is said to take less.
        mode: ``train`` or ``infer``.
    """

    slower: str
    faster: str
    mode: Literal["train", "infer"]


@dataclass(frozen=True)
class Plan:
    """A comparison as planned.

    Attributes:
        key: tells it from the others of its claim.
        words: what is compared.
        measure: where the numbers come from.
        unit: see :mod:`mmattn.report.claims.results`.
        delta: smallest effect of interest, in ``unit``.
        primary: whether the verdict rests on it.
        null: effect that has to be ruled out, in ``unit``: none, unless the claim is that something is worse by less
            than a margin, as in a test of non-inferiority.
    """

    key: str
    words: str
    measure: Answers | Values | Times
    unit: Unit
    delta: float
    primary: bool = True
    null: float = 0.0


@dataclass(frozen=True)
class Claim:
    """A claim and its comparisons, the same in each of ``domains``.

    Attributes:
        id: for ids and links.
        title: for headings.
        sentence: what the material says.
        hypothesis: what that means in numbers.
        domains: in which it is judged.
        plans: the comparisons.
        runs: domain of the runs, where it is not that of the verdict.
    """

    id: str
    title: str
    sentence: str
    hypothesis: str
    domains: tuple[str, ...]
    plans: tuple[Plan, ...]
    runs: str | None = None


def _accuracy(first: str, second: str, delta: float, primary: bool = True) -> Plan:
    words = f"{first} − {second}: accuracy among distractors"
    return Plan(f"{first}-{second}", words, Answers(first, second), "points", delta, primary)


def _time(slower: str, faster: str, mode: Literal["train", "infer"], words: str) -> Plan:
    what = "training step" if mode == "train" else "inference"
    # 10 % of the time is the least that a user would notice
    return Plan(
        f"{slower}-{faster}-{mode}",
        f"{words}: time of a {what}" if mode == "train" else f"{words}: time of {what}",
        Times(slower, faster, mode),
        "log2",
        math.log2(1.1),
        primary=mode == "train",
    )


FOCUS = Claim(
    "focus",
    "Attention focuses on what matters",
    "Attention lets a model concentrate on the parts of its input that matter for the task.",
    "Among distractors a model with attention is at least 2 points more accurate than the same model with "
    "uniform mixing and than one with convolutions of equal size. Training raises the share of attention "
    "on the relevant tokens, over their share of all tokens, by a factor of at least 1.4. Deleting the "
    "most attended tokens first costs at least 2 points more accuracy, on average over the curve, than "
    "deleting tokens in random order.",
    SENSES,
    (
        _accuracy("attention", "uniform", 2.0),
        _accuracy("attention", "convolution", 2.0),
        Plan(
            "focus",
            "trained / untrained: attention on the relevant tokens over their share of all",
            Values("focus/log_ratio", "focus_untrained/log_ratio"),
            "log2",
            0.5,
        ),
        Plan(
            "deletion-random",
            "random − most attended first: accuracy while tokens are deleted",
            Values("deletion/random", "deletion/attention"),
            "points",
            2.0,
        ),
        _accuracy("attention", "mlp", 2.0, primary=False),
        _accuracy("attention", "linear", 2.0, primary=False),
        Plan(
            "plain",
            "attention − uniform: accuracy without distractors",
            Answers("attention", "uniform", "0"),
            "points",
            2.0,
            primary=False,
        ),
        Plan(
            "deletion-gradient",
            "gradient order − most attended first: accuracy while tokens are deleted",
            Values("deletion/gradient", "deletion/attention"),
            "points",
            2.0,
            primary=False,
        ),
    ),
)

HEADS = Claim(
    "heads",
    "Several heads beat one",
    "Several heads see more than one head does.",
    "Four heads are at least 1 point more accurate among distractors than one head of the same total "
    "width, in a model of equal depth, parameters and computation.",
    SENSES,
    (
        Plan(
            "4-1",
            "4 heads − 1 head: accuracy among distractors",
            Answers("attention", "heads_1"),
            "points",
            1.0,
        ),
        Plan(
            "2-1",
            "2 heads − 1 head: accuracy among distractors",
            Answers("heads_2", "heads_1"),
            "points",
            1.0,
            primary=False,
        ),
        Plan(
            "8-1",
            "8 heads − 1 head: accuracy among distractors",
            Answers("heads_8", "heads_1"),
            "points",
            1.0,
            primary=False,
        ),
        Plan(
            "4-deep",
            "4 heads − 1 head with one block more: accuracy among distractors",
            Answers("attention", "deep_1"),
            "points",
            1.0,
            primary=False,
        ),
    ),
)

COMPLEMENT = Claim(
    "complement",
    "Heads complement one another",
    "Each head looks at something of its own, and together they are worth more than one by one.",
    "Training drives the heads of a layer apart: their Jensen-Shannon distance grows by at least 0.02. All "
    "heads together are at least 2 points more accurate than the best head left alone in its layer; two "
    "heads gain at least 0.5 points more together than the sum of what each gains alone; and removing "
    "heads by importance, the least important first, keeps at least 1 point more accuracy, on average over "
    "the curve, than removing them in random order.",
    SENSES,
    (
        Plan(
            "apart",
            "trained − untrained: Jensen-Shannon distance between heads",
            Values("heads/js", "heads_untrained/js"),
            "distance",
            0.02,
        ),
        Plan(
            "all-best",
            "all heads − the best head alone: accuracy among distractors",
            Values("heads/all", "heads/best_alone"),
            "points",
            2.0,
        ),
        Plan(
            "pairs",
            "pair − sum of its parts: gain in accuracy",
            Values("heads/pair_gain"),
            "points",
            0.5,
        ),
        Plan(
            "pruning",
            "by importance − in random order: accuracy while heads are removed",
            Values("pruning/importance", "pruning/random"),
            "points",
            1.0,
        ),
        Plan(
            "all-mean",
            "all heads − a head alone, on average: accuracy among distractors",
            Values("heads/all", "heads/mean_alone"),
            "points",
            2.0,
            primary=False,
        ),
        Plan(
            "all-none",
            "all heads − no head: accuracy among distractors",
            Values("heads/all", "heads/none"),
            "points",
            2.0,
            primary=False,
        ),
    ),
)

PARALLEL = Claim(
    "parallel",
    "Heads are parallel work",
    "Heads, and all places of a sequence, can be computed at the same time.",
    "A training step takes at least 1.1 times as long when heads are computed one after another as when "
    "they are computed in one fused step, and at least 1.1 times as long with an LSTM or a GRU of equal "
    "parameters as with attention, at each length that was timed.",
    ("speed",),
    (
        _time("loop", "fused", "train", "heads in a loop / fused"),
        _time("lstm", "attention", "train", "LSTM / attention"),
        _time("gru", "attention", "train", "GRU / attention"),
        _time("loop", "fused", "infer", "heads in a loop / fused"),
        _time("lstm", "attention", "infer", "LSTM / attention"),
        _time("gru", "attention", "infer", "GRU / attention"),
        Plan(
            "threads",
            "attention on 1 thread / on 2: time of a training step",
            Times("attention_threads1", "attention_threads2", "train"),
            "log2",
            math.log2(1.1),
            primary=False,
        ),
    ),
)

#: Points that one trunk may be behind a trunk of each sense's own.
_MARGIN = 2.0


def _trunk(kind: str, words: str, primary: bool = True) -> Plan:
    return Plan(
        f"{JOINT}-{kind}",
        f"one trunk for all − {words}: accuracy among distractors",
        Trunks(JOINT, kind),
        "points",
        -_MARGIN,
        primary,
        null=-_MARGIN,
    )


CORE = Claim(
    "core",
    "One core serves all senses",
    "The same attention core serves pictures, speech and text.",
    "One trunk trained on all senses at once is less than 2 points less accurate in each of them than a "
    "trunk of its own, as large and trained in as many steps.",
    SENSES,
    (
        _trunk("separate", "a trunk of its own"),
        _trunk("third", "a trunk of its own with a third of the blocks", primary=False),
    ),
    runs=JOINT,
)

#: In the order of the page.
CLAIMS = (FOCUS, HEADS, COMPLEMENT, PARALLEL, CORE)
