"""All measures together: what is measured on which model, and that nothing is left behind."""

from __future__ import annotations

import copy

import pytest
import torch

from mmattn.report.measures import Measures
from tasks.compare.measuring import Effort, measure
from tasks.compare.measuring.answers import answered, digest
from tasks.compare.measuring.findings import mean_curve, mean_height
from tasks.compare.measuring.scenes import Source, drawn
from tasks.compare.mixing import build_convolution_encoder
from tests.tasks.compare.small import Bright, model

FEW = Effort(
    examples=17, focus_scenes=7, deletion_scenes=11, deletion_steps=3, deletion_orders=2, head_scenes=13,
    redundancy_scenes=5, importance_scenes=3, pruning_steps=4, pruning_orders=2,
)  # fmt: skip
EVERY = {"deletion/gradient", "deletion/random"}
FOCUS = {"focus/mass", "focus/share", "focus/log_ratio"}
LOOKING = {*EVERY, *FOCUS, "deletion/attention", "deletion/rollout"}
HEADS = {
    "heads/js", "heads/cka", "heads/all", "heads/none", "heads/best_alone", "heads/mean_alone", "heads/pair_gain",
    "pruning/importance", "pruning/random",
}  # fmt: skip
UNTRAINED = {"focus_untrained/log_ratio", "heads_untrained/js"}


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({}, LOOKING | HEADS),
        ({"heads": 1, "pool_heads": 1}, LOOKING),
        ({"pool_attention": "uniform"}, {*EVERY, *FOCUS}),
        ({"pool": "mean"}, EVERY),
    ],
)
def test_each_model_is_asked_what_it_can_tell(options, names):
    if options.get("pool") == "mean":
        options = options | {"encoder": build_convolution_encoder(12, 2, mlp_ratio=1.0, axes=2)}
    found = measure(model(**options), Bright(level=2), "some", seed=5, effort=FEW)
    assert set(found.values) == names
    assert (found.domain, found.arm, found.seed, found.standard) == ("vision", "some", 5, "2")
    assert {level: len(marks) for level, marks in found.correct.items()} == {"0": 17, "1": 17, "2": 17}
    assert set(found.curves) == {"accuracy/share"} | {
        name for name in names if name.startswith(("deletion/", "pruning/"))
    }
    layers = ["encoder.blocks.0.attention"] * 3 + ["encoder.blocks.1.attention"] * 3
    expected = [*layers, *["head.pool.attention"] * 2] if "heads/js" in names else []
    assert [head.layer for head in found.heads] == expected
    assert len(found.matrices) == (6 if expected else 0)


def test_an_untrained_model_is_compared():
    data = Bright(level=2)
    trained, untrained = model(1), model(2)
    found = measure(trained, data, "attention", untrained, effort=FEW)
    assert set(found.values) == LOOKING | HEADS | UNTRAINED | {
        "focus_untrained/mass", "focus_untrained/share"
    }  # fmt: skip
    other = measure(untrained, data, "attention", effort=FEW)
    assert found.values["focus_untrained/log_ratio"] == other.values["focus/log_ratio"]
    assert found.values["heads_untrained/js"] == other.values["heads/js"] != found.values["heads/js"]


def test_measures_repeat_leave_no_trace_and_survive_a_file(tmp_path):
    task, data = model(), Bright(level=2)
    task.head.train()
    modes = [part.training for part in task.modules()]
    before = copy.deepcopy(task.state_dict())
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = torch.random.get_rng_state()
        found.append(measure(task, data, "attention", copy.deepcopy(task), effort=FEW))
        assert torch.equal(torch.random.get_rng_state(), state)
    assert found[0] == found[1]
    assert [part.training for part in task.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())
    assert all(parameter.grad is None for parameter in task.parameters())
    assert not any(part._forward_pre_hooks or part._forward_hooks for part in task.modules())
    found[0].save(tmp_path / "measures.json")
    assert Measures.load(tmp_path / "measures.json") == found[0]


def test_answers_are_those_of_one_scene_at_a_time():
    task, data = model(), Bright(level=2)
    with torch.no_grad():
        answers = answered(task, Source(data), Effort(levels=(1,)))
        for level in (0, 1, 2):
            scenes = data.scenes("test", level, 30011)
            expected = [int(task([scenes[i].item]).argmax()) == scenes[i].label for i in range(31)]
            assert answers.correct[str(level)] == "".join(str(int(right)) for right in expected)
    shares, heights = zip(*answers.over_share(), strict=True)
    assert shares == (0, 1 / 2, 2 / 3)
    assert heights[2] == pytest.approx(answers.correct["2"].count("1") / 31)


def test_the_digest_tells_which_questions_were_asked():
    source = Source(Bright(level=2))
    same = digest(source, Effort(examples=7))
    assert digest(Source(Bright(level=2, batch_size=3)), Effort(examples=7, focus_scenes=3)) == same
    assert digest(source, Effort(examples=8)) != same
    assert digest(source, Effort(examples=7, levels=())) != same
    assert digest(Source(Bright(level=1)), Effort(examples=7, levels=())) != same


def test_scenes_are_drawn_by_chance_and_fewer_are_among_more():
    assert drawn(5, None) == drawn(5, 9) == [0, 1, 2, 3, 4]
    few, more = drawn(1000, 100), drawn(1000, 300)
    assert len(set(few)) == 100
    assert set(few) < set(more)
    assert few == sorted(few)
    assert len({index % 10 for index in few}) == 10  # equal steps would meet one class of ten alone


def test_heights_and_means_of_curves():
    assert mean_height([[0, 1.0], [0.5, 0.5], [1, 0.5]]) == pytest.approx(0.625)
    assert mean_height([[0.2, 3.0], [0.6, 3.0]]) == pytest.approx(3.0)
    assert mean_curve([[[0, 1.0], [1, 0.0]], [[0, 0.5], [1, 0.5]]]) == [[0, 0.75], [1, 0.25]]


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"^measures need distractors, level at least 1: got 0$"):
        measure(model(), Bright(level=0), "attention")
    with pytest.raises(ValueError, match=r"^Effort\.head_scenes must be at least 1: got 0$"):
        Effort(head_scenes=0)
    with pytest.raises(ValueError, match=r"^Effort\.levels must not be negative: got \[-1, 2\]$"):
        Effort(levels=(-1, 2))
