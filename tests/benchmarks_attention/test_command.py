"""The command: its tables, plots and status, and every topic on tiny shapes."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks.attention import __main__ as command
from benchmarks.attention import dense, machine, scaling, tables
from benchmarks.attention.settings import Race, Report
from benchmarks.bars import Bar


def test_a_table_has_a_row_for_each_contender_fastest_first(once):
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
