"""Rotary positions: products depend on differences alone, in every layout, dtype and way of running."""

from __future__ import annotations

import math
import shutil
import warnings

import pytest
import torch
from torch.utils import _pytree as pytree

from mmattn.positions import RotaryPositions, ntk_base

B, N, H, K = 2, 7, 3, 14
LAYOUTS = pytest.mark.parametrize("interleaved", [True, False], ids=["neighbours", "halves"])


def product(rotary, q, k, q_place, k_place) -> torch.Tensor:
    """``[H]``: products of one query and one key at their places."""
    turned = [
        rotary.rotate(x[None], rotary.tables(torch.tensor([place]), x.shape[-1], x.dtype))
        for x, place in ((q, q_place), (k, k_place))
    ]
    return (turned[0] * turned[1]).sum(-1)[0]


@LAYOUTS
@pytest.mark.parametrize(
    ("q_place", "k_place", "shift"),
    [([3], [17], [101]), ([5, 2], [1, 7], [31, 53]), ([1, 2, 3], [3, 2, 7], [11, 0, 5])],
    ids=["1-D", "2-D", "3-D"],
)
def test_products_depend_on_the_difference_alone(q_place, k_place, shift, interleaved):
    rotary = RotaryPositions(base=100.0, interleaved=interleaved)
    q, k = torch.randn(2, H, K, dtype=torch.float64)
    here = product(rotary, q, k, q_place, k_place)
    there = product(
        rotary, q, k, [a + s for a, s in zip(q_place, shift, strict=True)],
        [a + s for a, s in zip(k_place, shift, strict=True)],
    )  # fmt: skip
    torch.testing.assert_close(here, there, rtol=1e-11, atol=1e-11)
    for axis in range(len(q_place)):
        moved = list(k_place)
        moved[axis] += 1
        assert (product(rotary, q, k, q_place, moved) - here).abs().min() > 1e-3


def test_large_coordinates_keep_small_differences():
    rotary, (q, k) = RotaryPositions(), torch.randn(2, H, K)
    near = product(rotary, q, k, [3], [8])
    far = product(rotary, q, k, [1_000_003], [1_000_008])
    # what is left is the rounding of q, k and tables to float32; float32 angles were off by 0.1 here
    torch.testing.assert_close(near, far, rtol=1e-5, atol=1e-5)
    far = product(rotary, q, k, [1_000_000_003], [1_000_000_008])  # no float32 holds these two
    torch.testing.assert_close(near, far, rtol=1e-5, atol=1e-5)
    exact = [product(rotary, q.double(), k.double(), [at + 3], [at + 8]) for at in (0, 1_000_000)]
    torch.testing.assert_close(*exact, rtol=1e-8, atol=1e-8)
    fractions = [product(rotary, q.double(), k.double(), [at + 0.25], [at + 0.75]) for at in (0, 1_000_000)]
    torch.testing.assert_close(*fractions, rtol=1e-8, atol=1e-8)


@LAYOUTS
@pytest.mark.parametrize(("head_dim", "rotary_dim"), [(14, None), (14, 10), (13, 10)])
@pytest.mark.parametrize("axes", [1, 2])
def test_rotation_of_each_pair_by_a_plain_loop(interleaved, head_dim, rotary_dim, axes):
    base, stretch = 50.0, 2.5
    rotary = RotaryPositions(base, rotary_dim=rotary_dim, interpolation=stretch, interleaved=interleaved)
    x, coords = torch.randn(N, H, head_dim, dtype=torch.float64), torch.randint(0, 13, (N, axes))
    out = rotary.rotate(x, rotary.tables(coords, head_dim, torch.float64))
    features = rotary_dim or head_dim
    pairs = features // 2 // axes  # of each axis; what is left over stays
    want = x.clone()
    for t in range(N):
        for p in range(axes * pairs):
            axis, step = divmod(p, pairs)
            angle = float(coords[t, axis]) / stretch * base ** -(step / pairs)
            i, j = (2 * p, 2 * p + 1) if interleaved else (p, p + features // 2)
            for h in range(H):
                a, b = x[t, h, i], x[t, h, j]
                want[t, h, i] = a * math.cos(angle) - b * math.sin(angle)
                want[t, h, j] = a * math.sin(angle) + b * math.cos(angle)
    torch.testing.assert_close(out, want, rtol=1e-12, atol=1e-12)
    assert torch.equal(out[..., features:], x[..., features:])


@LAYOUTS
def test_rotation_keeps_norms_dtype_and_shape(interleaved):
    rotary = RotaryPositions(interleaved=interleaved)
    coords = torch.arange(N)[:, None]
    tables = rotary.tables(coords, K)
    assert tables.shape == (N, K // 2, 2)
    assert tables.dtype == torch.float32
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-6), (torch.bfloat16, 2**-7)):
        x = torch.randn(B, N, H, K).to(dtype)
        out = rotary.rotate(x, tables)
        assert out.dtype == dtype
        assert out.shape == x.shape
        torch.testing.assert_close(out.norm(dim=-1), x.norm(dim=-1), rtol=tolerance, atol=tolerance)
    assert torch.equal(rotary.rotate(x, rotary.tables(torch.zeros(N, 1), K)), x)


@LAYOUTS
def test_half_precision_is_turned_in_float32_and_rounded_once(interleaved):
    rotary = RotaryPositions(interleaved=interleaved)
    x, coords = torch.randn(N, H, K).bfloat16(), torch.arange(N)[:, None]
    tables = rotary.tables(coords, K, x.dtype)
    assert tables.dtype == torch.float32
    assert torch.equal(rotary.rotate(x, tables), rotary.rotate(x.float(), tables).bfloat16())


@LAYOUTS
def test_each_batch_row_has_its_own_coordinates(interleaved):
    rotary, x = RotaryPositions(interleaved=interleaved), torch.randn(B, N, H, K)
    coords = torch.randint(0, 50, (B, N, 2))
    out = rotary.rotate(x, rotary.tables(coords, K))
    rows = [rotary.rotate(row, rotary.tables(at, K)) for row, at in zip(x, coords, strict=True)]
    torch.testing.assert_close(out, torch.stack(rows), rtol=0, atol=0)


@LAYOUTS
def test_no_token_and_one_token(interleaved):
    rotary = RotaryPositions(interleaved=interleaved)
    assert rotary.rotate(torch.zeros(0, H, K), rotary.tables(torch.zeros(0, 1), K)).shape == (0, H, K)
    one = torch.randn(1, H, K)
    assert torch.equal(rotary.rotate(one, rotary.tables(torch.zeros(1, 1), K)), one)


@LAYOUTS
@pytest.mark.parametrize("rotary_dim", [None, 6])
def test_gradients(interleaved, rotary_dim):
    rotary = RotaryPositions(rotary_dim=rotary_dim, interleaved=interleaved)
    x = torch.randn(3, 2, 10, dtype=torch.float64, requires_grad=True)
    tables = rotary.tables(torch.tensor([[0, 5], [2, 3], [7, 1]]), 10, torch.float64)
    assert torch.autograd.gradcheck(lambda x: rotary.rotate(x, tables), (x,))
    assert torch.autograd.gradgradcheck(lambda x: rotary.rotate(x, tables), (x,))


@LAYOUTS
def test_any_layout_in_memory(interleaved):
    """Slices and transposed tensors, in which pairs may not lie beside each other."""
    rotary, coords = RotaryPositions(interleaved=interleaved, rotary_dim=6), torch.arange(N)[:, None]
    tables = rotary.tables(coords, 7)
    wide = torch.randn(N, H, 8)
    every_other = torch.randn(N, H, 14)[..., ::2]
    across = torch.randn(7, H, N).transpose(0, 2)
    for x in (wide[..., 1:], across, every_other, wide[:, :1, :7].expand(N, H, 7)):
        assert torch.equal(rotary.rotate(x, tables), rotary.rotate(x.contiguous(), tables))


@LAYOUTS
@pytest.mark.parametrize("rotary_dim", [None, 6])
def test_compiled_graph_is_whole_and_real(interleaved, rotary_dim):
    """Compilers fuse real arithmetic and know no complex one."""
    rotary, graphs = RotaryPositions(rotary_dim=rotary_dim, interleaved=interleaved), []

    def keep(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    x, coords = torch.randn(N, H, K), torch.randint(0, 13, (N, 2))
    want = rotary.rotate(x, rotary.tables(coords, K))

    def turn(x, coords):
        return rotary.rotate(x, rotary.tables(coords, K))

    torch.testing.assert_close(torch.compile(turn, backend="aot_eager", fullgraph=True)(x, coords), want)
    torch.testing.assert_close(torch.compile(turn, backend=keep, fullgraph=True)(x, coords), want)
    tables = rotary.tables(coords, K)  # made outside of what is compiled
    torch.testing.assert_close(torch.compile(rotary.rotate, backend=keep, fullgraph=True)(x, tables), want)
    assert len(graphs) == 2
    values = [node.meta.get("example_value") for graph in graphs for node in graph.graph.nodes]
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    assert tensors
    assert not any(value.is_complex() for value in tensors)


@LAYOUTS
@pytest.mark.parametrize("strict", [True, False])
def test_exported_graph_is_real(interleaved, strict):
    class Turn(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rotary = RotaryPositions(interleaved=interleaved)

        def forward(self, x, coords):
            return self.rotary.rotate(x, self.rotary.tables(coords, K))

    turn, x, coords = Turn(), torch.randn(N, H, K), torch.arange(N)[:, None]
    program = torch.export.export(turn, (x, coords), strict=strict)
    values = pytree.tree_leaves([node.meta.get("val") for node in program.graph.nodes])
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    assert tensors
    assert not any(value.is_complex() for value in tensors)
    torch.testing.assert_close(program.module()(x, coords), turn(x, coords))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="Inductor compiles C++ for the CPU")
def test_inductor_has_nothing_to_warn_about():
    rotary, x, coords = RotaryPositions(), torch.randn(N, H, K), torch.arange(N)[:, None]
    want = rotary.rotate(x, rotary.tables(coords, K))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*complex")
        turn = torch.compile(lambda x, coords: rotary.rotate(x, rotary.tables(coords, K)), fullgraph=True)
        torch.testing.assert_close(turn(x, coords), want)


def test_ntk_base_stretches_the_slowest_pair_alone():
    base, factor, width = 10_000.0, 4.0, 14
    plain = RotaryPositions(base).tables(torch.tensor([[1.0]]), width, torch.float64)[0]
    scaled = RotaryPositions(ntk_base(base, factor, width)).tables(
        torch.tensor([[1.0]]), width, torch.float64
    )[0]
    speeds, slower = (torch.atan2(table[:, 1], table[:, 0]) for table in (plain, scaled))
    torch.testing.assert_close(slower[0], speeds[0], rtol=1e-14, atol=0.0)
    torch.testing.assert_close(slower[-1], speeds[-1] / factor, rtol=1e-12, atol=0.0)


def test_rotary_has_no_state():
    assert not RotaryPositions().state_dict()
    assert repr(RotaryPositions(50)) == "RotaryPositions(base=50)"
    assert repr(RotaryPositions(50, rotary_dim=6, interpolation=2.5, interleaved=False)) == (
        "RotaryPositions(base=50, rotary_dim=6, interpolation=2.5, interleaved=False)"
    )


@pytest.mark.parametrize(
    ("text", "make"),
    [
        (r"^base must be above 1: got 1$", lambda: RotaryPositions(1)),
        (r"^rotary_dim must be even and at least 2: got 7$", lambda: RotaryPositions(rotary_dim=7)),
        (r"^rotary_dim must be even and at least 2: got 0$", lambda: RotaryPositions(rotary_dim=0)),
        (r"^interpolation must be above 0: got 0$", lambda: RotaryPositions(interpolation=0)),
        (
            r"^head_dim must be even and at least 2 for each axis: got head_dim=7, axes=1$",
            lambda: RotaryPositions().tables(torch.zeros(5, 1), 7),
        ),
        (r"got head_dim=2, axes=2$", lambda: RotaryPositions().tables(torch.zeros(5, 2), 2)),
        (r"got rotary_dim=4, axes=3$", lambda: RotaryPositions(rotary_dim=4).tables(torch.zeros(5, 3), 14)),
        (
            r"^rotary_dim must be at most head_dim: got rotary_dim=16, head_dim=14$",
            lambda: RotaryPositions(rotary_dim=16).tables(torch.zeros(5, 1), 14),
        ),
        (
            r"^tables must turn at most the K=2 features of x: got 14$",
            lambda: RotaryPositions().rotate(torch.zeros(5, H, 2), torch.zeros(5, 7, 2)),
        ),
        (r"^rotary_dim must be even and at least 4: got 2$", lambda: ntk_base(10_000.0, 2.0, 2)),
        (r"^factor must be above 0: got -1.0$", lambda: ntk_base(10_000.0, -1.0, 14)),
    ],
)
def test_errors(text, make):
    with pytest.raises(ValueError, match=text):
        make()
