"""A whole pre-norm block as one node of the autograd graph, for training on a CPU.

Between the matrix products of a small transformer most of the time goes into copies, casts and calls. Here the
backward pass is written out, so that tokens are gathered twice instead of a dozen times, dropout multiplies in
place, its scale rides on the products, and weights are cast once.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmattn.backends.cpu import packed_self
from mmattn.backends.cpu.packed_self import SelfAttention
from mmattn.dropout import draw_keep, drop_
from mmattn.fused.saved import restore, save


class Recipe(NamedTuple):
    """What the block does besides its parameters.

    Attributes:
        attention: the attention call.
        dtype: of the matrix products.
        eps: of the two norms.
        hidden, branch: dropout of hidden features and of the branches, in 1/256.
        paths: ``[T, 1]`` factors of the two branches, from dropping paths; None where none is.
        turns: complex ``[T, 1, P]`` by which neighbouring features of queries and keys are turned, or None.
    """

    attention: SelfAttention
    dtype: torch.dtype
    eps: tuple[float, float]
    hidden: int
    branch: int
    paths: tuple[Tensor | None, Tensor | None]
    turns: Tensor | None


class FusedBlock(torch.autograd.Function):
    """``x + attention(norm(x))``, then ``x + feed_forward(norm(x))``, over packed tokens ``[T, D]``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, recipe: Recipe, *parameters: Tensor | None) -> Tensor:
        """Parameters: weight and bias of attention norm, qkv, out, feed-forward norm and its two layers."""
        g1, b1, qkv, qkv_bias, out, out_bias, g2, b2, up, up_bias, down, down_bias = parameters
        assert qkv is not None
        assert out is not None
        assert up is not None
        assert down is not None
        dtype = recipe.dtype
        weights = [w.to(dtype) for w in (qkv, out, up, down)]
        normed, *stats1 = torch.native_layer_norm(x, [x.shape[1]], g1, b1, recipe.eps[0])
        total = len(x)
        h1 = _rounded(normed, dtype)
        fused = _linear(h1, weights[0], qkv_bias)
        fused[total:] = 0.0
        if recipe.turns is not None:
            _turn(fused[:total], recipe)
        attended, kept = packed_self.forward(fused, recipe.attention)
        y1 = _linear(attended, weights[1], out_bias)
        keep1 = _drop(y1, recipe.branch)
        x1 = _join(x, y1[:total], _raise(recipe.branch), recipe.paths[0])
        normed, *stats2 = torch.native_layer_norm(x1, [x.shape[1]], g2, b2, recipe.eps[1])
        h2 = _rounded(normed, dtype)
        hidden, y2 = _feed_forward(h2, weights[2:], (up_bias, down_bias), recipe.hidden)
        keep3 = _drop(y2, recipe.branch)
        x2 = _join(x1, y2[:total], _raise(recipe.branch) * _raise(recipe.hidden), recipe.paths[1])
        ctx.recipe = recipe._replace(paths=(None, None), turns=None)  # tensors are saved, not hung on it
        activations = (x, stats1, h1, kept, attended, keep1, x1, stats2, h2, hidden, keep3)
        save(ctx, (parameters, weights, activations, recipe.paths, recipe.turns))
        return x2

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x and the parameters."""
        parameters, weights, activations, paths, turns = restore(ctx)
        recipe: Recipe = ctx.recipe._replace(paths=paths, turns=turns)
        x, stats1, h1, kept, attended, keep1, x1, stats2, h2, hidden, keep3 = activations
        g1, b1, _, qkv_bias, _, out_bias, g2, b2, _, up_bias, _, down_bias = parameters
        w_qkv, w_out, w_up, w_down = weights
        grad, factor = grads[0], _raise(recipe.branch)
        of_y2 = _into_branch(grad, recipe.dtype, keep3, recipe.paths[1])
        of_h2, of_u = _of_feed_forward(of_y2, hidden, (w_up, w_down), factor * _raise(recipe.hidden))
        of_down, of_down_bias = _of_layer(of_y2, hidden.after, down_bias, factor, _raise(recipe.hidden))
        of_up, of_up_bias = _of_layer(of_u, h2, up_bias)
        of_x1, of_g2, of_b2 = _of_norm(of_h2, x1, stats2, g2, b2)
        of_x1.add_(grad)
        of_y1 = _into_branch(of_x1, recipe.dtype, keep1, recipe.paths[0])
        of_out, of_out_bias = _of_layer(of_y1, attended, out_bias, factor)
        # zero behind the tokens, like that of the branch
        of_attended = _product(of_y1, w_out, factor)
        of_fused = packed_self.backward(of_attended, kept, recipe.attention)
        if recipe.turns is not None:
            _turn(of_fused[: len(x)], recipe, back=True)
        of_qkv, of_qkv_bias = _of_layer(of_fused, h1, qkv_bias)
        of_x, of_g1, of_b1 = _of_norm(torch.mm(of_fused, w_qkv), x, stats1, g1, b1)
        of_x.add_(of_x1)
        found = (
            of_g1, of_b1, of_qkv, of_qkv_bias, of_out, of_out_bias,
            of_g2, of_b2, of_up, of_up_bias, of_down, of_down_bias,
        )  # fmt: skip
        pairs = zip(found, parameters, strict=True)
        return of_x, None, *(None if g is None else g.to(p.dtype) for g, p in pairs)


def _pointwise() -> Any:
    """oneDNN's product with its bias in bfloat16; ``None`` where it refuses that: on processors without AVX-512."""
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None) if supported and supported() else None


_POINTWISE = _pointwise()
#: Rows of hidden features that stay in the cache of a core that works alone; several share all rows. In float32
#: chunks cost a ViT's training step a twentieth.
_ROWS = 512


class Hidden(NamedTuple):
    """Hidden features: before the GELU and what was kept of them, for each chunk of rows, and what went on."""

    rows: int
    before: list[Tensor]
    keep: list[Tensor]
    after: Tensor


def _feed_forward(
    h: Tensor, weights: list[Tensor], biases: tuple[Tensor | None, Tensor | None], threshold: int
) -> tuple[Hidden, Tensor]:
    """The hidden features, and the result over the scale of their dropout."""
    up, down = weights
    rows = _ROWS if torch.get_num_threads() == 1 and h.dtype != torch.float32 else len(h)
    hidden = Hidden(rows, [], [], h.new_empty(len(h), len(up)))
    bias = biases[1] if biases[1] is None else biases[1] / _raise(threshold)
    results = []
    for begin in range(0, len(h), rows):
        u, a = _linear(h[begin : begin + rows], up, biases[0]), hidden.after[begin : begin + rows]
        torch.ops.aten.gelu.out(u, out=a)
        if threshold:
            hidden.keep.append(draw_keep(a, threshold))
            drop_(a, hidden.keep[-1])
        hidden.before.append(u)
        results.append(_linear(a, down, bias))
    return hidden, results[0] if len(results) == 1 else torch.cat(results)


def _of_feed_forward(
    of_y: Tensor, hidden: Hidden, weights: tuple[Tensor, Tensor], factor: float
) -> tuple[Tensor, Tensor]:
    """Gradients of the input and of the hidden features before the GELU."""
    up, down = weights
    of_u, of_h = torch.empty_like(hidden.after), of_y.new_empty(len(of_y), up.shape[1])
    for index, u in enumerate(hidden.before):
        rows = slice(index * hidden.rows, (index + 1) * hidden.rows)
        of_a = _product(of_y[rows], down, factor)
        if hidden.keep:
            drop_(of_a, hidden.keep[index])
        torch.ops.aten.gelu_backward.grad_input(of_a, u, grad_input=of_u[rows])
        torch.mm(of_u[rows], up, out=of_h[rows])
    return of_h, of_u


#: Totals of tokens are rounded up, so that products of the same shapes recur, whose kernels are made already.
_ROUND = 32


def _rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    """A copy of ``[T, D]`` with at least one row of zeros behind it."""
    rows = (len(x) // _ROUND + 1) * _ROUND
    wide = x.new_empty(rows, x.shape[1], dtype=dtype)
    wide[: len(x)] = x
    wide[len(x) :] = 0.0
    return wide


def _raise(threshold: int) -> float:
    return 256 / (256 - threshold)


def _of_norm(
    grad: Tensor, x: Tensor, stats: list[Tensor], weight: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    wanted = [True, weight is not None, bias is not None]
    found: tuple[Tensor, Tensor | None, Tensor | None] = torch.ops.aten.native_layer_norm_backward(
        grad[: len(x)].to(x.dtype), x, [x.shape[1]], *stats, weight, bias, wanted
    )
    return found


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``x @ weight.T + bias``."""
    if bias is None:
        return torch.mm(x, weight.t())
    if x.dtype == torch.bfloat16 and _POINTWISE is not None:
        # unlike addmm it does not write the bias into the result first
        made: Tensor = _POINTWISE(x, weight, bias.to(x.dtype), "none", [], "")
        return made
    return torch.addmm(bias.to(x.dtype), x, weight.t())


def _product(a: Tensor, b: Tensor, factor: float, out: Tensor | None = None) -> Tensor:
    if factor == 1.0:
        return torch.mm(a, b, out=out)
    return torch.addmm(a.new_zeros(()), a, b, beta=0, alpha=factor, out=out)


def _of_layer(
    grad: Tensor, x: Tensor, bias: Tensor | None, factor: float = 1.0, of_weight: float = 1.0
) -> tuple[Tensor, Tensor | None]:
    """Gradients of the weight and the bias of a linear layer; ``factor`` belongs to grad, ``of_weight`` to x."""
    of_bias = None if bias is None else grad.sum(0).mul_(factor)
    return _product(grad.t(), x, factor * of_weight), of_bias


def _drop(x: Tensor, threshold: int) -> Tensor | None:
    """Zero elements of x in place; what is kept, as factors 0 and 1."""
    if not threshold:
        return None
    keep = draw_keep(x, threshold)
    drop_(x, keep)
    return keep


def _join(x: Tensor, branch: Tensor, factor: float, path: Tensor | None) -> Tensor:
    if path is not None:
        branch = branch * path.to(branch.dtype)
    return torch.add(x, branch, alpha=factor).to(x.dtype)


def _into_branch(grad: Tensor, dtype: torch.dtype, keep: Tensor | None, path: Tensor | None) -> Tensor:
    """The gradient of a branch, from that of its sum with x, over the scale of its dropout; rounded rows."""
    if path is not None:
        grad = grad * path.to(grad.dtype)
    grad = _rounded(grad, dtype)
    return grad if keep is None else drop_(grad, keep)


def _turn(fused: Tensor, recipe: Recipe, back: bool = False) -> None:
    """Turn queries and keys ``[T, (q, k, v) H K]`` in place."""
    assert recipe.turns is not None
    heads = recipe.attention.heads
    turned = fused.unflatten(1, (3 * heads, -1))[:, : 2 * heads, : 2 * recipe.turns.shape[-1]]
    wide = turned if turned.dtype == torch.float64 else turned.float()
    pairs = torch.view_as_complex(wide.unflatten(-1, (-1, 2)).contiguous())
    pairs = pairs * (recipe.turns.conj() if back else recipe.turns)
    turned.copy_(torch.view_as_real(pairs).flatten(-2))
