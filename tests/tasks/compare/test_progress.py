"""What the table says, and when."""

from __future__ import annotations

import io

import pytest

from tasks.compare.executors import Event
from tasks.compare.grid import Grid
from tasks.compare.jobs import Job
from tasks.compare.progress import Progress, duration

JOBS = [
    Job(domain, arm, seed) for domain in ("vision", "text") for arm in ("attention", "mlp") for seed in (0, 1)
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def progress(stream: io.StringIO | None = None) -> Progress:
    return Progress(JOBS, places=2, stream=stream or io.StringIO(), now=0.0)


def test_time_left_follows_what_finished_runs_of_the_kind_took():
    shown = progress()
    assert shown.left(0.0) is None
    shown.hear(Event("start", "vision-mlp-0"), 0.0)
    shown.hear(Event("done", "vision-mlp-0", 10.0), 10.0)
    assert shown.left(10.0) == pytest.approx(7 * 10 / 2)  # all are thought to be like the one that is known
    shown.known("text-attention-0", "done", seconds=40.0)
    # vision: 3 of 10 s; text: 3 of 40 s
    assert shown.left(10.0) == pytest.approx((3 * 10 + 3 * 40) / 2)
    shown.hear(Event("start", "text-mlp-1"), 20.0)
    shown.hear(Event("share", "text-mlp-1", 0.5), 30.0)
    assert shown.left(30.0) == pytest.approx((3 * 10 + 2 * 40 + 10) / 2)


def test_the_last_run_is_not_shared_by_two_workers():
    shown = progress()
    for job in JOBS[:-1]:
        shown.hear(Event("done", job.name, 10.0), 1.0)
    assert shown.left(1.0) == 10.0


def test_the_table_has_a_sign_for_each_seed():
    shown = progress()
    shown.hear(Event("done", "vision-attention-0", 3.0), 3.0)
    shown.hear(Event("start", "vision-attention-1"), 3.0)
    shown.hear(Event("share", "vision-attention-1", 0.25), 4.0)
    shown.hear(Event("failed", "text-mlp-1", text="ValueError: no"), 4.0)
    lines = shown.lines(65.0)
    assert lines[0].startswith("1 done, 1 running, 1 failed, 5 waiting; 1 min 05 s gone, about ")
    assert lines[1] == "[########----------------------] 28 %"
    assert lines[2].split() == ["attention", "mlp"]
    assert lines[3].split() == ["vision", "=>", "··"]
    assert lines[4].split() == ["text", "··", "·!"]
    assert lines[5].split() == ["vision-attention-1", "25", "%", "1", "min", "02", "s"]
    assert lines[6].split() == ["text-mlp-1", "failed:", "ValueError:", "no"]
    assert all(len(line) < 30 for line in shown.lines(65.0, 30))


def test_a_wide_table_stands_in_pieces():
    jobs = [*JOBS, *(Job("joint", arm, 0) for arm in ("joint", "separate_vision", "separate_speech"))]
    shown = Progress(jobs, places=2, stream=io.StringIO(), now=0.0)
    shown.hear(Event("done", "joint-separate_speech-0", 3.0), 3.0)
    rows = [line.split() for line in shown.standing(36)[2:]]
    assert rows == [
        ["attention", "mlp"], ["vision", "··", "··"], ["text", "··", "··"],
        ["joint", "separate_vision"], ["joint", "·", "·"], ["separate_speech"], ["joint", "="],
    ]  # fmt: skip
    assert max(map(len, shown.standing(36)[2:])) <= 36


@pytest.mark.parametrize("config", ["quick", "standard"])
def test_every_run_of_a_grid_is_in_its_table(config):
    jobs = Grid.load(config).jobs()
    table = "\n".join(Progress(jobs, places=2, stream=io.StringIO(), now=0.0).standing(80)[2:])
    assert table.count("·") == len(jobs)
    assert max(map(len, table.splitlines())) < 80


def test_many_failures_do_not_outgrow_the_terminal():
    shown = progress()
    for job in JOBS:
        shown.hear(Event("failed", job.name, text="ValueError: no"), 1.0)
    assert len(shown.lines(2.0)) == 2 + 3 + 5 + 1
    assert shown.lines(2.0)[-1] == "  and 3 more failed"
    assert len(shown.standing()) == 2 + 3 + len(JOBS)


def test_without_a_terminal_there_is_a_line_for_each_run_that_ends():
    stream = io.StringIO()
    shown = progress(stream)
    shown.hear(Event("start", "vision-mlp-0"), 0.0)
    shown.hear(Event("tick"), 0.5)
    shown.hear(Event("done", "vision-mlp-0", 2.0), 2.0)
    shown.hear(Event("there", "vision-mlp-1"), 2.0)
    shown.hear(Event("failed", "text-mlp-1", text="ValueError: no"), 2.0)
    assert stream.getvalue().splitlines() == [
        "[1/8] vision-mlp-0 done in 2 s, about 7 s left",
        "[2/8] vision-mlp-1 was done by another process, about 6 s left",
        "[3/8] text-mlp-1 failed: ValueError: no, about 5 s left",
    ]


def test_on_a_terminal_the_table_is_drawn_over_itself():
    stream = Terminal()
    shown = progress(stream)
    shown.hear(Event("start", "vision-mlp-0"), 0.0)
    first = stream.getvalue()
    assert "\x1b[6A" not in first
    shown.hear(Event("tick"), 0.5)
    assert stream.getvalue()[len(first) :].startswith("\x1b[6A")


@pytest.mark.parametrize(("seconds", "said"), [(3.4, "3 s"), (185, "3 min 05 s"), (7290, "2 h 01 min")])
def test_times_are_said_as_a_reader_says_them(seconds, said):
    assert duration(seconds) == said
