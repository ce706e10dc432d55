"""Verdicts follow from the numbers by the rules on the page, and every number names its runs."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from mmattn.report import codec
from mmattn.report.claims import Comparison, Judgement, amount, judge
from mmattn.report.claims.hypotheses import CLAIMS
from mmattn.report.measures import Measures
from mmattn.report.runs import StoredRun


def answers(right: float, seed: int, n: int = 200) -> str:
    """``right`` of ``n`` answers right; every seed has one of them elsewhere."""
    text = ["1" if index < right * n else "0" for index in range(n)]
    text[seed], text[n - 1 - seed] = text[n - 1 - seed], text[seed]
    return "".join(text)


def run(domain: str, arm: str, seed: int, right: float | None = None, path: str = "", **fields) -> StoredRun:
    correct = {} if right is None else {"0": "1" * 200, "3": answers(right, seed)}
    measures = Measures(domain, arm, seed, test="same", correct=correct, standard="3", **fields)
    return StoredRun(path or f"{domain}-{arm}-{seed}", None, measures)


def arms(seeds: int = 4, domain: str = "vision", **right: float) -> list[StoredRun]:
    return [run(domain, arm, seed, share) for arm, share in right.items() for seed in range(seeds)]


def valued(*values: dict[str, float], domain: str = "vision") -> list[StoredRun]:
    return [run(domain, "attention", seed, values=dict(each)) for seed, each in enumerate(values)]


def timed(**repeats: list[float]) -> list[StoredRun]:
    names = {name.replace("__", "/"): seconds for name, seconds in repeats.items()}
    return [run("speed", "speed", 0, repeats=names)]


def find(judgement: Judgement, id: str) -> Comparison:
    (found,) = [part for part in judgement.comparisons if part.id == id]
    return found


def test_a_clear_difference_is_supported():
    part = find(judge(arms(attention=0.9, uniform=0.6)), "focus/vision/attention-uniform")
    assert part.verdict == "supported"
    assert part.estimate.mean == pytest.approx(30.0)
    assert part.estimate.low < 30 < part.estimate.high
    assert part.estimate.examples == 200
    assert part.estimate.holm < 0.05
    assert [sample.seed for sample in part.samples] == [0, 1, 2, 3]
    assert part.samples[1].runs == ["vision-attention-1", "vision-uniform-1"]
    assert part.runs == sorted(
        f"vision-{arm}-{seed}" for arm in ("attention", "uniform") for seed in range(4)
    )


def test_equal_arms_are_not_supported():
    part = find(judge(arms(attention=0.9, uniform=0.9)), "focus/vision/attention-uniform")
    assert part.verdict == "not supported"
    assert part.estimate.high < part.delta


def test_an_effect_below_delta_is_not_supported_however_sure():
    part = find(
        judge(valued(*({"heads/pair_gain": 0.002 + 1e-5 * k} for k in range(6)))), "complement/vision/pairs"
    )
    assert part.estimate.holm < 0.001
    assert part.verdict == "not supported"


def test_a_sure_estimate_that_may_reach_delta_is_inconclusive():
    values = [0.0040, 0.0046, 0.0052, 0.0043, 0.0055]
    part = find(judge(valued(*({"heads/pair_gain": value} for value in values))), "complement/vision/pairs")
    assert part.estimate.holm < 0.05
    assert part.estimate.mean < part.delta < part.estimate.high
    assert part.verdict == "inconclusive"
    assert "stays below 0.5 points" in part.reason


def test_seeds_that_disagree_are_inconclusive():
    values = [{"focus/log_ratio": value, "focus_untrained/log_ratio": 0.0} for value in (3.0, 0.1, 1.2)]
    part = find(judge(valued(*values)), "focus/vision/focus")
    assert part.verdict == "inconclusive"
    assert "this grid would find" in part.reason


def test_one_seed_is_no_test():
    judged = judge(arms(seeds=1, attention=0.9, uniform=0.2))
    part = find(judged, "focus/vision/attention-uniform")
    assert (part.verdict, part.estimate, len(part.samples)) == ("inconclusive", None, 1)
    assert "single seed" in part.reason
    assert judged.family == 0


def test_the_same_number_every_time_is_no_test():
    values = {"heads/js": 0.5, "heads_untrained/js": 0.1}
    part = find(judge(valued(values, values, values)), "complement/vision/apart")
    assert (part.verdict, part.estimate) == ("inconclusive", None)
    assert "very same number" in part.reason


def test_what_no_run_measures_is_said():
    judged = judge(arms(attention=0.9, uniform=0.6))
    assert find(judged, "focus/vision/attention-convolution").verdict == "not measured"
    claims = {claim.id: claim for claim in judged.claims}
    assert list(claims) == ["focus", "heads", "complement", "parallel", "core"]
    assert claims["core"].verdict == claims["parallel"].verdict == "not measured"
    # one of four primary comparisons holds, the others are open
    assert claims["focus"].domains[0].verdict == "inconclusive"
    assert claims["focus"].domains[0].reason == "Of 4 primary comparisons: 1 supported, 3 not measured."


def test_missing_values_count_as_not_measured():
    part = find(judge(valued({"heads/pair_gain": math.nan}, {})), "complement/vision/pairs")
    assert part.verdict == "not measured"


def test_a_claim_is_as_good_as_its_weakest_domain():
    good, bad = {"attention": 0.9, "heads_1": 0.6}, {"attention": 0.6, "heads_1": 0.9}
    runs = [*arms(domain="vision", **good), *arms(domain="speech", **good), *arms(domain="text", **bad)]
    heads = judge(runs).claims[1]
    assert [part.verdict for part in heads.domains] == ["supported", "supported", "not supported"]
    assert heads.verdict == "not supported"
    assert heads.reason == "Supported in vision and speech; not supported in text."
    assert judge(runs[:16]).claims[1].verdict == "supported"


def test_secondary_comparisons_carry_no_weight():
    judged = judge(arms(attention=0.9, heads_1=0.6, heads_2=0.5))
    assert find(judged, "heads/vision/2-1").verdict == "not supported"
    assert find(judged, "heads/vision/2-1").estimate.holm is None
    assert judged.claims[1].verdict == "supported"
    assert [part.primary for part in judged.claims[1].domains[0].comparisons] == [True, False, False, False]
    # attention against one head alone; nothing else of these runs is primary
    assert judged.family == 1


def test_of_doubles_the_first_by_path_counts():
    runs = arms(attention=0.9, uniform=0.6)
    double = run("vision", "uniform", 2, 0.1, path="other/vision-uniform-2")
    judged = judge([*runs, double])
    part = find(judged, "focus/vision/attention-uniform")
    assert part.estimate.mean == pytest.approx((3 * 30 + 80) / 4)
    assert part.samples[2].runs == ["vision-attention-2", "other/vision-uniform-2"]
    assert judged.warnings == [
        "other/vision-uniform-2 is there 2 times: only it counts for verdicts, not vision-uniform-2."
    ]


def test_only_seeds_of_both_arms_are_paired():
    runs = arms(attention=0.9, uniform=0.6)
    part = find(
        judge([each for each in runs if each.path != "vision-uniform-2"]), "focus/vision/attention-uniform"
    )
    assert [sample.seed for sample in part.samples] == [0, 1, 3]


def test_one_run_of_a_control_stands_beside_every_seed():
    part = find(
        judge([*arms(attention=0.9), run("vision", "linear", 0, 0.5)]), "focus/vision/attention-linear"
    )
    assert len(part.samples) == 4
    assert part.samples[3].runs == ["vision-attention-3", "vision-linear-0"]
    assert part.verdict == "supported"


def test_other_questions_are_not_compared_answer_by_answer():
    runs = arms(attention=0.9, uniform=0.6)
    other = [replace(each, measures=replace(each.measures, test=str(each.measures.seed))) for each in runs]
    other[0] = run("vision", "attention", 0, 0.87)
    part = find(judge(other), "focus/vision/attention-uniform")
    assert part.estimate.examples == 0
    assert part.estimate.mean == pytest.approx(29.25)


def test_times_are_compared_round_by_round_at_each_length():
    # both slow down by the same in the second round, as on a busy machine
    runs = timed(
        loop__train__64=[4.0, 40.0, 4.1, 4.2],
        fused__train__64=[1.0, 10.0, 1.0, 1.0],
        loop__train__128=[1.0, 1.01, 1.02],
        fused__train__128=[1.0, 1.0, 1.0],
    )
    judged = judge(runs)
    part = find(judged, "parallel/speed/loop-fused-train-64")
    assert part.verdict == "supported"
    assert part.words.endswith("length 64")
    assert part.estimate.mean == pytest.approx((2 + 2 + math.log2(4.1) + math.log2(4.2)) / 4)
    assert find(judged, "parallel/speed/loop-fused-train-128").verdict == "not supported"
    assert find(judged, "parallel/speed/gru-attention-train").verdict == "not measured"
    assert judged.claims[3].verdict == "not supported"


def trunks(seeds: int = 4, n: int = 200, **right: float) -> list[StoredRun]:
    """One trunk with 0.9 in vision and text, and others beside it."""
    one = [Measures("joint", "joint", seed, test="vision=a text=b", standard="vision",
                    correct={"vision": answers(0.9, seed, n), "text": answers(0.9, seed, n)})
           for seed in range(seeds)]  # fmt: skip
    names = {"vision": "a", "text": "b"}
    for arm, share in right.items():
        sense = arm.rpartition("_")[2]
        one += [Measures("joint", arm, seed, test=f"{sense}={names[sense]}", standard=sense,
                         correct={sense: answers(share, seed, n)}) for seed in range(seeds)]  # fmt: skip
    return [StoredRun(f"joint-{each.arm}-{each.seed}", None, each) for each in one]


@pytest.mark.parametrize(
    ("own", "n", "verdict", "said"),
    [
        (
            0.9,
            2000,
            "supported",
            "A loss of 2.0 points or more is ruled out (p = 0.0001 or less after Holm's",
        ),
        (0.99, 2000, "not supported", "a loss of more than 2.0 points."),
        (0.915, 200, "inconclusive", "this grid would do so where the true difference is"),
        (0.85, 2000, "supported", "A loss of 2.0 points or more is ruled out"),
    ],
)
def test_a_trunk_may_be_behind_by_less_than_a_margin(own, n, verdict, said):
    part = find(judge(trunks(n=n, separate_vision=own)), "core/vision/joint-separate")
    assert part.verdict == verdict
    assert said in part.reason
    assert part.estimate.mean == pytest.approx(100 * (0.9 - own))
    assert part.null == part.delta == -2.0
    assert part.samples[0].runs == ["joint-joint-0", "joint-separate_vision-0"]


@pytest.mark.parametrize(("linear", "verdict"), [(0.8, "supported"), (0.95, "inconclusive")])
def test_being_no_worse_than_what_did_not_learn_says_nothing(linear, verdict):
    runs = [*trunks(n=2000, separate_vision=0.9), run("vision", "linear", 0, linear)]
    part = find(judge(runs), "core/vision/joint-separate")
    assert part.verdict == verdict
    if verdict == "inconclusive":
        assert part.reason == (
            "What it is set beside lies 5.0 points behind a linear model, so that being no worse says nothing."
        )


def test_trunks_are_compared_on_the_questions_of_a_sense():
    judged = judge(trunks(separate_vision=0.9, separate_text=0.8, third_text=0.7))
    assert find(judged, "core/text/joint-separate").estimate.mean == pytest.approx(10.0)
    assert find(judged, "core/text/joint-separate").estimate.examples == 200
    assert find(judged, "core/speech/joint-separate").verdict == "not measured"
    assert not find(judged, "core/text/joint-third").primary
    assert judged.claims[-1].verdict == "inconclusive"  # one sense is missing
    assert judged.warnings == []


def test_the_order_of_runs_does_not_matter_and_json_holds_all(tmp_path):
    runs = [*arms(attention=0.9, uniform=0.6, heads_1=0.88), *valued({"heads/js": 0.1}, domain="text")]
    judged = judge(runs)
    assert codec.to_json(judge(runs[::-1])) == codec.to_json(judged)
    assert codec.load(Judgement, codec.save(judged, tmp_path / "judgement.json")) == judged


def test_comparisons_have_ids_of_their_own_and_plans_are_whole():
    for claim in CLAIMS:
        keys = [plan.key for plan in claim.plans]
        assert len(set(keys)) == len(keys)
        assert claim.hypothesis.endswith(".")
        assert all(plan.words for plan in claim.plans)
        assert all(plan.delta > plan.null == 0 or plan.delta == plan.null < 0 for plan in claim.plans)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (12.345, "points", "12.3 points"),
        (-0.01, "points", "0.0 points"),
        (-2.5, "distance", "−2.500"),
        (3.0, "log2", "8.00 times"),
        (-1.0, "log2", "0.50 times"),
        (10.0, "log2", "1024 times"),
    ],
)  # fmt: skip
def test_amounts_have_units(value, unit, text):
    assert amount(value, unit) == text
