"""The attention benchmark: its arithmetic on clocks and times that are made up, and every topic on tiny shapes."""

from __future__ import annotations

import gc
import json
import math
import time
from itertools import chain
from statistics import mean

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import mmattn
from benchmarks.attention import (
    __main__ as command,
)
from benchmarks.attention import (
    best,
    data,
    dense,
    encoder,
    explain,
    learnable,
    machine,
    peers,
    scaling,
    steps,
    tables,
    windows,
)
from benchmarks.attention.settings import Race, Report, Settings
from benchmarks.attention.timing import Timing, fastest, geometric_mean, race, ratio
from benchmarks.bars import Bar

QUICK = Settings(quick=True)


class FakeClock:
    """Time that passes only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def __call__(self) -> float:
        return self.now

    def work(self, name, *seconds):
        """A piece of work that takes the given seconds, one after another, the last for ever."""
        left = list(seconds)

        def run():
            self.log.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return run


def once(*seconds: float) -> Timing:
    """One item, one round for each number."""
    return Timing(tuple((s,) for s in seconds))


# timing ---------------------------------------------------------------------------------------------------------


def test_a_race_gives_each_contender_its_own_seconds_without_the_warm_up():
    clock = FakeClock()
    contenders = {
        "a": [clock.work("a", 100.0, 2.0), clock.work("a'", 50.0, 3.0)],
        "b": [clock.work("b", 7.0)] * 2,
    }
    timings = race(contenders, repeats=4, clock=clock)
    assert timings["a"].rounds == ((2.0, 3.0),) * 4
    assert timings["b"].rounds == ((7.0, 7.0),) * 4
    assert timings["a"].seconds == 5.0


def test_a_race_runs_everybody_once_an_item_in_changing_order():
    clock = FakeClock()
    race({name: [clock.work(name, 1.0)] for name in "abc"}, repeats=19, warmup=1, clock=clock)
    rounds = ["".join(clock.log[i : i + 3]) for i in range(0, 60, 3)]
    assert len(clock.log) == 60
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert {order[0] for order in rounds} == {order[2] for order in rounds} == {"a", "b", "c"}
    again = FakeClock()
    race({name: [again.work(name, 1.0)] for name in "abc"}, repeats=19, warmup=1, clock=again)
    assert again.log == clock.log


@pytest.mark.parametrize(("budget", "rounds"), [(math.inf, 11), (50.0, 6), (0.0, 3)])
def test_a_race_ends_with_its_budget_but_not_before_the_least_rounds(budget, rounds):
    clock = FakeClock()
    timings = race({"a": [clock.work("a", 10.0)]}, repeats=11, least=3, budget=budget, warmup=5, clock=clock)
    assert len(timings["a"].rounds) == rounds


def test_a_race_waits_for_the_device_before_it_reads_the_clock():
    clock = FakeClock()

    def wait():
        clock.now += 1000.0 if clock.log and clock.log[-1] == "launch" else 0.0
        clock.log.append("wait")

    timings = race({"a": [clock.work("launch", 1.0)]}, repeats=3, clock=clock, wait=wait)
    assert timings["a"].rounds == ((1001.0,),) * 3


def test_garbage_is_not_collected_while_the_clock_runs():
    seen = []
    assert gc.isenabled()
    race({"a": [lambda: seen.append(gc.isenabled())]}, repeats=3, warmup=0)
    assert seen == [False] * 3
    assert gc.isenabled()


@pytest.mark.parametrize("contenders", [{}, {"a": []}, {"a": [print], "b": [print, print]}])
def test_contenders_must_have_equally_many_items(contenders):
    with pytest.raises(ValueError, match="contenders must have equally many items, at least one: got"):
        race(contenders)


def test_seconds_are_medians_of_items_and_quartiles_are_of_rounds():
    timing = Timing(((1.0, 10.0), (3.0, 30.0), (2.0, 50.0), (9.0, 20.0), (8.0, 40.0)))
    assert timing.seconds == 3.0 + 30.0
    assert timing.totals == (11.0, 33.0, 52.0, 29.0, 48.0)
    assert timing.quartiles == (29.0, 48.0)
    assert timing.divided(2.0).seconds == 16.5
    assert once(4.0).quartiles == (4.0, 4.0)


def test_ratios_of_medians_and_of_rounds():
    slower, faster = once(2.0, 40.0, 9.0), once(1.0, 10.0, 3.0)
    compared = ratio(slower, faster)
    assert compared.of_medians == 9.0 / 3.0
    assert (compared.by_round, compared.low, compared.high) == (3.0, 2.5, 3.5)
    assert str(compared) == "3.00 by round, 2.50 to 3.50"
    with pytest.raises(ValueError, match="both timings must have equally many rounds: got 3 and 1"):
        ratio(slower, once(1.0))


def test_the_fastest_has_the_smallest_median():
    assert fastest({"a": once(5.0, 5.0, 5.0), "b": once(1.0, 6.0, 6.0), "c": once(4.0, 4.0, 99.0)}) == "c"
    assert geometric_mean([0.5, 2.0, 8.0]) == pytest.approx(2.0)


# data -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "measured"), [("SST-2", 18.5), ("FSDD", 44.2), ("connected digits", 242.0), ("Multi30k", 16.1)]
)
def test_drawn_lengths_have_the_mean_of_the_data(name, measured):
    lengths = data.draw_lengths(name, 20_011)
    assert mean(lengths) == pytest.approx(measured, rel=0.02)
    assert min(lengths) >= data.LENGTHS[name][0]
    assert max(lengths) <= data.LENGTHS[name][-1]
    assert lengths == data.draw_lengths(name, 20_011) != data.draw_lengths(name, 20_011, seed=1)


def test_each_table_has_a_rising_length_for_each_percentage():
    for table in data.LENGTHS.values():
        assert len(table) == len(data.PERCENT)
        assert list(table) == sorted(table)


def test_buckets_hold_the_same_sequences_with_little_padding():
    lengths = data.draw_lengths("FSDD", 7 * 16)
    random, bucketed = data.random_batches(lengths, 7), data.bucketed_batches(lengths, 7)
    assert sorted(chain(*random)) == sorted(chain(*bucketed))
    assert bucketed != sorted(bucketed)

    def padding(groups):
        return mean(batch.padding for batch in data.batches_of(groups, 3, 10))

    assert padding(bucketed) < 0.08 < 0.3 < padding(random)


def test_spread_takes_batches_of_all_sizes():
    assert data.spread([[n] for n in (5, 1, 8, 2, 7, 3, 6, 4)], 4) == [[2], [4], [6], [8]]
    assert data.spread([[3], [1], [2]], 3) == [[1], [2], [3]]


def test_a_batch_is_the_same_packed_and_padded():
    (batch,) = data.batches_of([[2, 5, 3]], 7, classes=10)
    values, mask = batch.padded
    assert values.shape == (3, 5, 7)
    assert mask.sum(1).tolist() == [2, 5, 3]
    assert torch.equal(values[mask], batch.values)
    assert batch.padding == pytest.approx(1 - 10 / 15)
    assert data.tokens([batch, batch]) == 20


def test_the_floor_of_the_learnable_task_is_the_entropy_of_its_labels():
    others = learnable.WRONG / steps.CLASSES
    shares = torch.tensor([1 - learnable.WRONG + others] + [others] * (steps.CLASSES - 1))
    assert shares.sum().item() == pytest.approx(1.0)
    assert learnable.floor() == pytest.approx(
        torch.distributions.Categorical(shares).entropy().item(), rel=1e-6
    )


def test_the_classes_of_the_learnable_task_are_the_same_for_training_and_test():
    def means(seed):
        (batch,) = learnable.pictures(8, 1, 1009, seed)
        return torch.stack([batch.values[batch.labels == c].mean(0) for c in range(steps.CLASSES)]).flatten(1)

    alike = F.cosine_similarity(means(1)[:, None], means(2), dim=-1)
    assert alike.argmax(1).tolist() == list(range(steps.CLASSES))


# peers ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def fused_calls(monkeypatch):
    """Counts the calls of torch's fused attention."""
    calls, genuine = [], F.scaled_dot_product_attention

    def counted(*args, **kwargs):
        calls.append(kwargs.get("attn_mask"))
        return genuine(*args, **kwargs)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counted)
    return calls


def needed(name: str) -> None:
    pytest.importorskip({"x-transformers": "x_transformers", "torch.nn": "torch"}.get(name, name))


@pytest.mark.parametrize("name", peers.ATTENTION_LAYERS)
def test_every_layer_has_four_products_of_weights_and_fused_attention(name, fused_calls):
    if not name.startswith("mmattn"):
        needed(name)
    layer = peers.ATTENTION_LAYERS[name](12, 3).train()
    assert sum(p.numel() for p in layer.parameters() if p.ndim == 2) == 4 * 12**2
    assert layer(torch.randn(2, 5, 12)).shape == (2, 5, 12)
    if not name.startswith("mmattn"):
        assert len(fused_calls) == 1


@pytest.mark.parametrize("name", peers.ENCODERS)
def test_peers_compute_the_same_fused_and_plain_and_ignore_padding(name, fused_calls):
    needed(name)
    (batch,) = data.batches_of([[2, 7, 3]], 12, classes=10)
    values, mask = batch.padded
    outs = {}
    for how, fused in (("sdpa", 2), ("plain", 0)):
        fused_calls.clear()
        model = peers.seeded(peers.ENCODERS[name], 12, 2, 3, 0.0, how).train()
        outs[how] = model(values, mask)
        assert len(fused_calls) == fused
    torch.testing.assert_close(outs["sdpa"][mask], outs["plain"][mask], rtol=1e-4, atol=1e-5)
    elsewhere = model(values.masked_fill(~mask[..., None], 5.0), mask)
    torch.testing.assert_close(elsewhere[mask], outs["plain"][mask], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", peers.ENCODERS)
def test_peers_drop_out_where_they_can(name):
    needed(name)
    model = peers.ENCODERS[name](12, 1, 3, 0.1, "plain")
    dropouts = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    assert dropouts.count(0.1) >= 3
    probabilities = {getattr(module, "dropout", None) for module in model.modules()}
    in_attention = [p for p in probabilities if isinstance(p, float)]
    assert 0.1 in in_attention or dropouts.count(0.1) >= 4


def test_timm_is_fused_or_plain_as_asked_and_its_global_switch_stays(fused_calls):
    needed("timm")
    from timm.layers import use_fused_attn

    before = use_fused_attn()
    sizes = {"img_size": 8, "patch_size": 4, "embed_dim": 12, "depth": 1, "num_heads": 3}
    for how, calls in (("sdpa", 1), ("plain", 0)):
        fused_calls.clear()
        peers.vision_transformer(how, **sizes)(torch.randn(2, 3, 8, 8))
        assert len(fused_calls) == calls
    assert use_fused_attn() == before


def test_our_encoder_has_the_sizes_of_the_peers():
    ours = peers.count_parameters(mmattn.build_encoder(24, 4, 4, positions="none"))
    assert peers.count_parameters(peers.TorchEncoder(24, 4, 4, 0.0, "sdpa")) == ours


def test_a_step_moves_the_weights_and_gives_the_loss():
    batches = data.batches_of([[2, 5, 3]], 8, steps.CLASSES)
    for step in (steps.ours(8, 0.0, False), steps.peer("torch.nn", 8, 0.0)):
        losses = [step(batches[0]).item() for _ in range(30)]
        assert losses[0] == pytest.approx(math.log(steps.CLASSES), abs=1.0)
        assert losses[-1] < losses[0]


def test_a_missing_peer_ends_the_run_with_its_name():
    with pytest.raises(SystemExit, match="the benchmark needs no-such-peer, which is not installed"):
        peers.load("no_such_peer.module")


# topics, with times that are made up ----------------------------------------------------------------------------


def test_dense_compares_with_the_fastest_peer_and_takes_the_geometric_mean(monkeypatch):
    timings = {"mmattn": once(2.0, 2.0), "timm": once(4.0, 4.0), "torch.nn": once(1.0, 1.0)}
    quick = {"mmattn": once(1.0, 1.0), "timm": once(2.0, 2.0), "torch.nn": once(3.0, 3.0)}
    monkeypatch.setattr(dense, "measure", lambda shape, settings: {"forward": timings, "step": quick})
    bars = dense.run(Settings()).bars
    assert [bar.value for bar in bars[:-1]] == [2.0, 0.5] * 5
    assert bars[-1].value == pytest.approx(1.0)
    assert [bar.limit for bar in bars] == [1.03] * 10 + [1.0]
    assert [bar.holds for bar in bars] == [False, True] * 5 + [True]
    assert bars[0].note.startswith("against torch.nn;")
    assert bars[1].note.startswith("against timm;")


def test_x_transformers_is_compared_with_ours_without_bias():
    timings = {
        "mmattn": once(3.0), "mmattn, no bias": once(2.0), "x-transformers": once(1.9), "timm": once(3.2),
    }  # fmt: skip
    peer, compared = dense.against_fastest(timings)
    assert peer == "x-transformers"
    assert compared.of_medians == pytest.approx(2.0 / 1.9)


def test_bert_is_compared_with_ours_without_hidden_dropout():
    timings = {
        "transformers bf16": once(3.0), "torch.nn bf16": once(3.3),
        "mmattn bf16": once(2.5), "mmattn bf16, no hidden dropout": once(2.0),
    }  # fmt: skip
    assert steps.nearest(timings) == ("torch.nn bf16", "mmattn bf16")
    timings["transformers bf16"] = once(2.4)
    assert steps.nearest(timings) == ("transformers bf16", "mmattn bf16, no hidden dropout")


def test_encoder_takes_the_fastest_on_both_sides(monkeypatch):
    timings = {
        "torch.nn": once(9.0), "transformers": once(6.0), "x-transformers": once(8.0),
        "mmattn fp32, random": once(3.0), "mmattn bf16, bucketed": once(2.0),
    }  # fmt: skip
    monkeypatch.setattr(encoder, "measure", lambda *args: (timings, 0.5))
    bars = encoder.run(Settings()).bars
    assert len(bars) == 16
    assert {(bar.value, bar.limit, bar.holds) for bar in bars} == {(3.0, 3.0, True)}
    assert bars[0].note.startswith("mmattn bf16, bucketed against transformers;")


@pytest.mark.parametrize(
    ("embed_dim", "dropout", "times"), [(144, 0.1, 1.5), (256, 0.1, 1.5), (144, 0.0, 1.2), (256, 0.0, 1.5)]
)
def test_what_is_promised_against_the_peers_at_their_best(embed_dim, dropout, times):
    assert best.promised(embed_dim, dropout) == times


def test_the_growth_of_windows_is_measured_against_the_growth_of_the_length(monkeypatch):
    seconds = {"mmattn": 1.0, "SDPA with a dense mask": 4.2, "L=2048": 1.0, "L=32768": 16.8}

    def fake(self, contenders, *args, **kwargs):
        return {name: once(seconds[name]) for name in contenders}

    monkeypatch.setattr(Settings, "race", fake)
    monkeypatch.setattr(windows, "tensors", lambda *args: [torch.zeros(1)] * 4)
    monkeypatch.setattr(windows, "masked_sdpa", lambda *args: None)
    bars = windows.run(Settings(compile=False)).bars
    assert [(bar.value, bar.holds) for bar in bars] == [
        (4.2, False), (4.2, True), (pytest.approx(1.05), True), (pytest.approx(1.05), True),
    ]  # fmt: skip


def test_a_situation_checks_the_choice_and_the_words():
    class Answer:
        chosen, reason, others = "sdpa", "it is fused", {"math": "it is slow"}

    def refuse(device):
        raise ValueError("cannot: no gradients")

    def problem(*args, **kwargs):
        return explain.Situation("s", *args, **kwargs).problem("cpu")

    assert problem(lambda d: Answer, "sdpa", "fused") is None
    assert problem(lambda d: Answer, "math", "fused") == "chose sdpa, not math"
    assert problem(lambda d: Answer, "sdpa", "quick") == "said 'it is fused', without 'quick'"
    assert problem(lambda d: Answer, "sdpa", "slow", other="math") is None
    assert problem(refuse, None, "no gradients") is None
    assert problem(refuse, "flex", "no gradients") == "chose None, not flex"


def test_a_time_limit_stops_what_catches_exceptions():
    def stubborn():
        while True:
            try:
                time.sleep(5)
            except Exception:
                continue

    with pytest.raises(best.OutOfTime, match=r"more than 0\.05 s"), best.time_limit(0.05):
        stubborn()
    with best.time_limit(0.05):
        pass
    time.sleep(0.08)  # nothing is raised later


def test_peak_memory_counts_what_is_held_at_once():
    events = [
        {"name": "[memory]", "ts": 3, "args": {"Bytes": -5}},
        {"name": "[memory]", "ts": 1, "args": {"Bytes": 5}},
        {"name": "other", "ts": 1, "args": {}},
        {"name": "[memory]", "ts": 4, "args": {"Bytes": 7}},
        {"name": "[memory]", "ts": 2, "args": {"Bytes": 4}},
    ]
    assert scaling.highest(events) == 11
    numbers = 2**18

    def work():
        x = torch.zeros(numbers)
        y = x + 1
        del x
        return y + 1

    assert scaling.peak_bytes(work) == pytest.approx(2 * 4 * numbers, rel=0.01)


# the command ----------------------------------------------------------------------------------------------------


def test_a_table_has_a_row_for_each_contender_fastest_first():
    timings = {"mmattn": once(0.002, 0.002), "other": once(0.001, 0.001)}
    report = Report("t", "Title", [Race("here", timings, "mmattn")], notes=["- note"])
    lines = tables.markdown(report).splitlines()
    assert lines[1] == "## Title"
    assert lines[5] == "| here | other | 1 | 1 to 1 | 0.500 | 0.500 (0.500 to 0.500) |"
    assert lines[6].startswith("| here | **mmattn** | 2 | 2 to 2 | 1.000 |")
    assert lines[-1] == "- note"


def test_plots_are_drawn_for_each_quantity(tmp_path):
    report = Report("t", "Title", curves={"seconds": {"a": [(1, 1.0), (2, 2.0)]}, "bytes": {"a": [(1, 3.0)]}})
    paths = tables.plot(report, tmp_path / "new")
    assert [path.name for path in paths] == ["t_seconds.png", "t_bytes.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    assert tables.plot(Report("t", "Title"), tmp_path / "none") == []


def _with_bars(monkeypatch, values):
    def runner(topic, device):
        bar = Bar(f"{topic} figure", values[topic], 1.0)
        return lambda settings: Report(topic, topic, bars=[bar])

    monkeypatch.setattr(command, "_runner", runner)


@pytest.mark.parametrize(("second", "status", "held"), [(1.0, 0, 2), (0.9, 1, 1)])
def test_the_status_is_zero_only_if_all_bars_hold(monkeypatch, capsys, tmp_path, second, status, held):
    _with_bars(monkeypatch, {"dense": 1.0, "windows": second})
    out = tmp_path / "deep" / "out.json"
    assert command.main(["--only", "dense", "windows", "--out", str(out)]) == status
    assert capsys.readouterr().out.splitlines()[-1] == f"bars: {held} of 2 hold"
    written = json.loads(out.read_text())
    assert [(bar["topic"], bar["value"], bar["holds"]) for bar in written["bars"]] == [
        ("dense", 1.0, True),
        ("windows", second, second >= 1.0),
    ]


@pytest.mark.parametrize("options", [[], ["--quick"]])
def test_a_topic_that_fails_lets_the_others_run_and_the_status_be_one(monkeypatch, capsys, options):
    def runner(topic, device):
        def fail(settings):
            raise RuntimeError("no luck\nat all")

        return (
            fail if topic == "dense" else lambda settings: Report(topic, topic, bars=[Bar("good", 1.0, 1.0)])
        )

    monkeypatch.setattr(command, "_runner", runner)
    assert command.main(["--only", "dense", "windows", *options]) == 1
    out = capsys.readouterr().out
    if not options:
        assert "| dense runs | 0 | >= 1 | no | RuntimeError: no luck |" in out
        assert out.splitlines()[-1] == "bars: 1 of 2 hold"


def test_cuda_is_refused_where_there_is_none(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command.main(["--device", "cuda"]) == 2
    assert capsys.readouterr().err == "--device cuda needs a CUDA device: found none\n"


def test_an_unknown_topic_is_refused(capsys):
    with pytest.raises(SystemExit):
        command.main(["--only", "sparse"])
    assert "invalid choice: 'sparse'" in capsys.readouterr().err


def test_on_cuda_some_topics_have_other_opponents():
    from benchmarks.attention import cuda

    assert command._runner("dense", "cpu") is dense.run
    assert command._runner("dense", "cuda") is cuda.dense
    assert command._runner("scaling", "cuda") is scaling.run
    assert set(cuda.RUNS) < set(command.TOPICS)


def test_the_machine_is_described(tmp_path):
    facts = machine.facts()
    assert torch.__version__.startswith(facts["packages"]["torch"])
    assert facts["threads"] == torch.get_num_threads()
    listed = tmp_path / "cpuinfo"
    listed.write_text("model name\t: Some CPU\nflags\t\t: fpu avx512f amx_bf16\n\nmodel name\t: Some CPU\n")
    assert machine._processor(listed) == {"processor": "Some CPU", "flags": ["avx512f", "amx_bf16"]}


BARS = {
    "dense": 3, "encoder": 1, "best": 2, "windows": 4, "bf16": 6, "decoding": 2, "explain": 2, "scaling": 0,
}  # fmt: skip


@pytest.mark.parametrize("topic", command.TOPICS)
def test_every_topic_runs_on_tiny_shapes(topic, capsys, tmp_path):
    if topic in ("dense", "encoder", "best"):
        for package in ("timm", "transformers", "x_transformers"):
            pytest.importorskip(package)
    if topic == "bf16":
        pytest.importorskip("timm")
    if topic == "decoding" and not hasattr(mmattn, "build_decoder"):
        pytest.skip("there is no decoder yet")
    out = tmp_path / "out.json"
    assert command.main(["--quick", "--only", topic, "--out", str(out), "--plots", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert f"nothing is concluded from its {BARS[topic]} figures" in printed.splitlines()[-1]
    written = json.loads(out.read_text())
    assert set(written) == {"machine", "options", "seconds", "topics", "bars"}
    assert len(written["bars"]) == BARS[topic]
    assert all(bar["holds"] is None and bar["topic"] == topic for bar in written["bars"])
    assert list(written["seconds"]) == [topic]
    for timed in written["topics"][topic]["races"]:
        contenders = timed["contenders"]
        assert contenders[timed["reference"]]["over_reference"]["of_medians"] == 1.0
        assert all(contender["seconds"] > 0 for contender in contenders.values())
        assert all(f"| {timed['setting']} |" in printed for _ in contenders)
    assert len(list(tmp_path.glob("*.png"))) == (2 if topic == "scaling" else 0)
