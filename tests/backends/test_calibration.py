"""The table of measured times: saved, loaded, asked, replaced and measured."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from mmattn import Calibration, Causal, attend, explain, use_calibration
from mmattn.backends import CpuBackend
from mmattn.backends.cpu import __main__ as command
from mmattn.backends.cpu.calibration import DTYPES, HEAD_DIMS, KEYS, WAYS, Row, measure, shipped

PLAIN_FIRST = {"flash": 2.0, "plain": 1.0, "flash in float32": 3.0, "plain in float32": 4.0}
FLASH_FIRST = {"flash": 1.0, "plain": 2.0, "flash in float32": 3.0, "plain in float32": 4.0}


def table(*rows: Row, source: str = "a machine") -> Calibration:
    return Calibration(source, rows)


def row(milliseconds, dtype="float32", train=False, dropout=False, keys=64, head_dim=32) -> Row:
    return Row(dtype, train, dropout, keys, head_dim, milliseconds)


def ask(
    found: Calibration,
    allowed=tuple(WAYS),
    dtype=torch.float32,
    train=False,
    dropout=False,
    keys=64,
    head_dim=32,
):
    return found.choose(dtype, train, dropout, keys, head_dim, allowed)


@pytest.fixture(autouse=True)
def _put_back():
    yield
    use_calibration(None)


def test_saved_and_loaded_it_is_the_same(tmp_path):
    found = table(row(PLAIN_FIRST), row(FLASH_FIRST, "bfloat16", True, True, 7, 11), source='some "machine"')
    found.save(tmp_path / "table.json")
    again = Calibration.load(tmp_path / "table.json")
    assert (again.source, again.rows) == (found.source, found.rows)
    json.loads((tmp_path / "table.json").read_text())


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"source": "x", "rows": [{"keys": 3}]}', '{"source": "x", "rows": 3}']
)
def test_another_file_is_refused(tmp_path, text):
    (tmp_path / "table.json").write_text(text)
    with pytest.raises(
        ValueError, match=r"a calibration must be a file written by mmattn's calibration: got .*table"
    ):
        Calibration.load(tmp_path / "table.json")


def test_the_fastest_way_of_the_nearest_row_is_chosen():
    found = table(row(PLAIN_FIRST, keys=32), row(FLASH_FIRST, keys=256))
    assert ask(found, keys=20).way == ask(found, keys=80).way == "plain"
    assert ask(found, keys=100).way == ask(found, keys=5000).way == "flash"
    assert ask(found, keys=0).way == "plain"
    wide = table(row(PLAIN_FIRST, head_dim=32), row(FLASH_FIRST, head_dim=64))
    assert ask(wide, head_dim=8).way == "plain"
    assert ask(wide, head_dim=50).way == ask(wide, head_dim=256).way == "flash"


def test_only_rows_of_the_same_situation_count():
    found = table(
        row(PLAIN_FIRST, keys=8, train=True), row(FLASH_FIRST), row({"plain": 1.0}, train=True, dropout=True)
    )
    assert ask(found, train=True, keys=64).way == "plain"
    assert ask(found, train=False, keys=8).way == "flash"
    missing = ask(found, dtype=torch.float64)
    assert (missing.way, missing.reason) == ("flash", "float64 is not in the table")


def test_ways_that_are_not_allowed_are_passed_over():
    found = table(row(PLAIN_FIRST))
    assert ask(found, allowed=["flash", "flash in float32"]).way == "flash"
    alone = ask(found, allowed=["flash"])
    assert (alone.way, alone.reason) == ("flash", "the only kernel for such a call")
    nothing = ask(table(row({"flash": 1.0})), allowed=["plain", "plain in float32"])
    assert (nothing.way, nothing.reason) == ("plain", "no kernel for such a call is in the table for float32")


def test_the_reason_has_the_times():
    told = ask(table(row({"flash": 2.0, "plain": 1.25})), allowed=["flash", "plain"]).reason
    assert told == "plain 1.2 ms, flash 2 ms at 64 keys of 32 (a machine)"


def called(monkeypatch):
    """Names of the kernels that ran, with the dtype of their queries."""
    seen = []
    for kernel in {id(kernel): kernel for kernel, _ in WAYS.values()}.values():
        original = type(kernel).forward

        def forward(self, q, k, v, extras, original=original):
            seen.append((self.name, q.dtype))
            return original(self, q, k, v, extras)

        monkeypatch.setattr(type(kernel), "forward", forward)
    return seen


@pytest.mark.parametrize(
    ("way", "kernel", "dtype"),
    [
        ("flash", "flash", torch.bfloat16),
        ("plain", "plain", torch.bfloat16),
        ("flash in float32", "flash", torch.float32),
    ],
)
def test_the_table_in_use_decides_and_explain_says_so(monkeypatch, way, kernel, dtype):
    seen = called(monkeypatch)
    times = {name: 1.0 if name == way else 2.0 for name in WAYS}
    x = torch.randn(2, 3, 5, 8).bfloat16()
    use_calibration(table(row(times, "bfloat16"), source="the table of this test"))
    out = attend(x, x, x)
    assert seen == [(kernel, dtype)]
    assert out.dtype == torch.bfloat16
    told = explain(x, x, x)
    assert told.chosen == "cpu"
    assert told.reason.startswith(f"the kernel {way!r}: {way} 1 ms, ")
    assert told.reason.endswith("at 64 keys of 32 (the table of this test)")
    use_calibration(None)
    assert "the table of this test" not in explain(x, x, x).reason


def test_a_backend_may_have_a_table_of_its_own():
    x = torch.randn(2, 3, 5, 8)
    use_calibration(table(row(FLASH_FIRST), source="for all"))
    own = CpuBackend(table(row(PLAIN_FIRST), source="own"))
    assert own.calibration.source == "own"
    assert CpuBackend().calibration.source == "for all"
    torch.testing.assert_close(attend(x, x, x, backend=own), attend(x, x, x))


def test_dropout_and_the_gradient_of_a_bias_write_the_weights_whatever_the_table_says(monkeypatch):
    seen = called(monkeypatch)
    use_calibration(
        table(
            *(row(FLASH_FIRST, train=t, dropout=d) for t, d in ((False, False), (True, False), (True, True)))
        )
    )
    x, bias = torch.randn(2, 3, 5, 8), torch.zeros(5, 5, requires_grad=True)
    attend(x, x, x, dropout=0.5)
    attend(x, x, x, bias=bias)
    assert [name for name, _ in seen] == ["plain", "plain"]
    attend(x, x, x, bias=bias.detach())
    with torch.no_grad():
        attend(x, x, x, bias=bias)
    assert [name for name, _ in seen[2:]] == ["flash", "flash"]


@pytest.mark.parametrize("way", ["flash", "plain", "flash in float32", "plain in float32"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_way_gives_the_same(way, dtype):
    times = {name: 1.0 if name == way else 2.0 for name in WAYS}
    use_calibration(table(*(row(times, str(dtype)[6:], train=t) for t in (False, True))))
    q, k, v = (torch.randn(2, 3, n, 8).to(dtype).requires_grad_() for n in (5, 7, 7))
    bias = torch.zeros(5, 7, requires_grad=way == "plain in float32")
    found = []
    for backend in ("cpu", "math"):
        leaves = [
            x.detach().to(dtype if backend == "cpu" else torch.float64).requires_grad_() for x in (q, k, v)
        ]
        out = attend(
            *leaves, mask=Causal(), bias=bias.detach().requires_grad_(bias.requires_grad), backend=backend
        )
        out.square().sum().backward()
        found.append([out, *(x.grad for x in leaves)])
    room = 1e-5 if dtype == torch.float32 else 0.1
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=room, atol=room)


def test_the_table_shipped_covers_what_is_measured():
    found = shipped()
    situations = {(r.dtype, r.train, r.dropout, r.keys, r.head_dim) for r in found.rows}
    assert len(situations) == len(found.rows)
    for dtype in DTYPES:
        for train, dropout in ((False, False), (True, False), (True, True)):
            for head_dim in HEAD_DIMS:
                for keys in KEYS:
                    assert (str(dtype)[6:], train, dropout, keys, head_dim) in situations
    for r in found.rows:
        assert set(r.milliseconds) <= set(WAYS)
        assert all(ms > 0 and math.isfinite(ms) for ms in r.milliseconds.values())
        assert not (r.dropout and any(name.startswith("flash") for name in r.milliseconds))


def test_measured_here():
    found = measure(seconds=0.0005, keys=(4, 9))
    assert len(found.rows) == 2 * 3 * len(HEAD_DIMS) * 2
    assert f"{torch.get_num_threads()} threads, torch " in found.source
    for r in found.rows:
        half = r.dtype == "bfloat16"
        ways = {"plain", *(["flash"] * (not r.dropout)), *(["plain in float32"] * half)}
        ways |= {"flash in float32"} if half and not r.dropout else set()
        assert set(r.milliseconds) == ways
        assert all(ms > 0 for ms in r.milliseconds.values())


def test_the_command_prints_the_table_and_writes_it(monkeypatch, capsys, tmp_path):
    small = replace(measure(0.0001, (4,)), source="tiny")
    asked = []
    monkeypatch.setattr(command, "measure", lambda seconds: asked.append(seconds) or small)
    threads = torch.get_num_threads()
    command.main(["--seconds", "0.25", "--threads", "1", "--out", str(tmp_path / "made.json")])
    torch.set_num_threads(threads)
    assert asked == [0.25]
    assert Calibration.load(tmp_path / "made.json").rows == small.rows
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "tiny"
    assert told[2] == "| dtype | pass | dropout | keys | head_dim | milliseconds |"
    assert len(told) == 4 + len(small.rows)
    assert told[4].startswith("| float32 | forward | no | 4 | 32 | ")
    best = min(small.rows[0].milliseconds, key=small.rows[0].milliseconds.get)
    assert f"**{best} " in told[4]
    use_calibration(Calibration.load(tmp_path / "made.json"))
    x = torch.randn(1, 2, 4, 32)
    assert "(tiny)" in explain(x, x, x).reason
