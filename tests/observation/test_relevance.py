"""Relevance against loops written by hand, brute-force windows and planted answers."""

from __future__ import annotations

import math
from contextlib import contextmanager

import numpy as np
import pytest
import timm
import torch
import torchvision
import transformers
from torch import nn

from mmattn import (
    MultiHeadAttention,
    TokenBatch,
    attention_weights,
    build_classifier,
    build_decoder,
    build_encoder,
)
from mmattn.observation.attribution import relevance
from mmattn.observation.token_maps import MIXED, places
from mmattn.plugins.site import sites
from mmattn.plugins.swap import plug_in, unplug


def sharpened(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights drawn so that attention is far from uniform."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                spread = 1.5 / math.sqrt(parameter[0].numel())
                parameter.copy_(spread * torch.randn(parameter.shape, generator=draw))
            elif bool((parameter == 0).all()):
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=draw))
    return model.eval()


def rollout(layers: list[torch.Tensor]) -> np.ndarray:
    """Abnar and Zuidema, as they write it: ``[B, N, N]`` of weights ``[B, H, N, N]``."""
    joint: np.ndarray | None = None
    for layer in layers:
        weights = layer.detach().double().numpy().mean(1)
        weights = weights + np.eye(weights.shape[-1])
        weights = weights / weights.sum(-1, keepdims=True)
        joint = weights if joint is None else weights @ joint
    assert joint is not None
    return joint


def weights_of_linear(x: torch.Tensor, qkv: torch.Tensor, bias: torch.Tensor, heads: int) -> torch.Tensor:
    q, k, _ = nn.functional.linear(x, qkv, bias).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    return (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1)


@contextmanager
def weights_kept(model: nn.Module):
    """By module of ours, weights ``[H, N, M]`` for each sequence, from its inputs."""
    kept: dict[str, list[torch.Tensor]] = {}

    def keeper(name):
        def keep(part, args, kwargs, out):
            context = args[1] if len(args) > 1 else kwargs.get("context")
            q, k, _ = part.project(args[0], context, kwargs.get("tables"))
            if isinstance(args[0], TokenBatch):
                of_k = args[0] if context is None else context
                pairs = zip(q.split(args[0].sizes), k.split(of_k.sizes), strict=True)
            else:
                pairs = zip(q, k, strict=True)
            kept[name] = [
                attention_weights(a.transpose(0, 1)[None], b.transpose(0, 1)[None], mask=kwargs.get("mask"))[
                    0
                ]
                for a, b in pairs
            ]

        return keep

    handles = [
        part.register_forward_hook(keeper(name), with_kwargs=True)
        for name, part in model.named_modules()
        if isinstance(part, MultiHeadAttention)
    ]
    with torch.no_grad():
        yield kept
    for handle in handles:
        handle.remove()


def close(found: torch.Tensor, wanted: np.ndarray | torch.Tensor, atol: float = 1e-5) -> bool:
    return np.allclose(found.detach().numpy(), np.asarray(wanted), atol=atol, rtol=0)


# rollout


@pytest.mark.parametrize("plugged", [False, True])
def test_rollout_of_a_timm_vit_is_that_of_its_class_token(plugged):
    model = sharpened(timm.create_model("vit_tiny_patch16_224", img_size=48, depth=3, num_classes=5))
    x, layers = torch.randn(2, 3, 48, 48), []
    for block in model.blocks:
        block.attn.register_forward_pre_hook(
            lambda m, a: layers.append(weights_of_linear(a[0], m.qkv.weight, m.qkv.bias, 3))
        )
    model(x)
    wanted = rollout(layers)[:, 0]
    if plugged:
        plug_in(model)
    found = relevance(model, x)
    assert close(found.scores, wanted)
    assert found.modules == ["blocks.0.attn", "blocks.1.attn", "blocks.2.attn"]
    assert torch.equal(found.grid(), found.scores[:, 1:].unflatten(1, (3, 3)))
    assert close(relevance(model, x, rows="mean").scores, rollout(layers[:3]).mean(1))
    assert close(relevance(model, x, rows=4).scores, rollout(layers[:3])[:, 4])


@pytest.mark.parametrize("batch_first", [True, False])
def test_rollout_of_a_torch_encoder(batch_first):
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=batch_first)
    model = sharpened(nn.TransformerEncoder(layer, 3, enable_nested_tensor=False))
    x, layers = torch.randn(2, 7, 16), []
    y = x
    for part in model.layers:
        attention = part.self_attn
        layers.append(weights_of_linear(y, attention.in_proj_weight, attention.in_proj_bias, 4))
        y = part(y if batch_first else y.transpose(0, 1))
        y = y if batch_first else y.transpose(0, 1)
    found = relevance(model, x if batch_first else x.transpose(0, 1))
    assert close(found.scores, rollout(layers).mean(1))


def test_rollout_of_bert_leaves_padding_out():
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=40,
        max_position_embeddings=16, attn_implementation="eager",
    )  # fmt: skip
    model = sharpened(transformers.BertForSequenceClassification(config))
    ids, mask = torch.randint(3, 50, (2, 9)), torch.ones(2, 9, dtype=torch.long)
    mask[1, 6:] = 0
    layers = model(ids, attention_mask=mask, output_attentions=True).attentions
    found = relevance(model, {"input_ids": ids, "attention_mask": mask})
    assert close(found.scores, rollout(list(layers))[:, 0])
    assert found.scores[1, 6:].abs().max() == 0


class Ours(nn.Module):
    def __init__(self, pool: str) -> None:
        super().__init__()
        self.encoder = build_encoder(24, depth=3, num_heads=3)
        self.head = build_classifier(24, 5, pool=pool, num_heads=2)

    def forward(self, tokens):
        return self.head(self.encoder(tokens))


@pytest.mark.parametrize("pool", ["mean", "attention"])
def test_rollout_of_our_packed_model_ends_in_its_pool(pool):
    model = sharpened(Ours(pool))
    lengths = [5, 2, 2, 7]
    tokens = TokenBatch(torch.randn(16, 24), lengths)
    with weights_kept(model) as weights:
        model(tokens)
    found = relevance(model, tokens)
    assert found.scores.shape == (4, 7)
    for index, length in enumerate(lengths):
        joint = rollout([weights[f"encoder.blocks.{i}.attention"][index][None] for i in range(3)])[0]
        row = joint.mean(0)
        if pool == "attention":
            row = (weights["head.pool.attention"][index].mean(0).numpy() @ joint)[0]
        assert close(found.scores[index, :length], row)
        assert found.scores[index, length:].abs().sum() == 0
    assert list(found.parts) == [next(iter(found.parts))]


def test_rows_of_rollout_add_up_to_one():
    encoder = sharpened(build_encoder(16, depth=4, num_heads=4, num_kv_heads=2))
    for heads in ("mean", "max", "min"):
        scores = relevance(encoder, torch.randn(3, 11, 16), rows=2, heads=heads).scores
        assert torch.allclose(scores.sum(-1), torch.ones(3), atol=1e-5)


def test_a_bare_attention_has_no_residual_path():
    attention, x = MultiHeadAttention(12, 3).eval(), torch.randn(2, 5, 12)
    with weights_kept(attention) as weights:
        attention(x)
    wanted = torch.stack(weights[""]).mean(1)[:, 2]
    assert close(relevance(attention, x, rows=2).scores, wanted)


# gradient x attention


class Explicit(nn.Module):
    """Two layers of attention with the weights kept, to be derived by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.ModuleList(nn.Linear(12, 36) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(12) for _ in range(2))
        self.head = nn.Linear(12, 4)
        self.kept: list[torch.Tensor] = []

    def forward(self, x):
        self.kept = []
        for qkv, norm in zip(self.qkv, self.norms, strict=True):
            q, k, v = qkv(norm(x)).unflatten(-1, (3, 3, 4)).permute(2, 0, 3, 1, 4)
            weights = (q @ k.transpose(-2, -1) / 2).softmax(-1)
            self.kept.append(weights)
            x = x + (weights @ v).transpose(1, 2).flatten(2)
        return self.head(x[:, 0])


class Fused(Explicit):
    """The same function through the fused kernel, in two modules."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(FusedBlock(q, n) for q, n in zip(self.qkv, self.norms, strict=True)))

    def forward(self, x):
        return self.head(self.blocks(x)[:, 0])


class FusedBlock(nn.Module):
    def __init__(self, qkv, norm) -> None:
        super().__init__()
        self.qkv, self.norm = qkv, norm

    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 3, 4)).permute(2, 0, 3, 1, 4)
        return x + nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


@pytest.mark.parametrize("target", [None, 2, [1, 3, 0]])
def test_gradient_follows_the_published_rule(target):
    fused = sharpened(Fused())
    x = torch.randn(3, 6, 12)
    logits = Explicit.forward(fused, x)
    kept = fused.kept
    classes = logits.argmax(-1) if target is None else torch.as_tensor(target).expand(3)
    gradients = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), kept)
    matrix = torch.eye(6).expand(3, 6, 6)
    for weights, gradient in zip(kept, gradients, strict=True):
        matrix = matrix + (weights * gradient).clamp(min=0).mean(1) @ matrix
    found = relevance(fused, x, target, method="gradient")
    assert close(found.scores, matrix[:, 0].detach())
    by_function = relevance(fused, x, lambda out: out.gather(1, classes[:, None])[:, 0], method="gradient")
    assert torch.equal(found.scores, by_function.scores)


def test_cross_attention_takes_from_both_normalised_maps():
    decoder = sharpened(build_decoder(12, depth=2, num_heads=3, context=True))
    y, memory = torch.randn(1, 5, 12), torch.randn(1, 4, 12)
    names = [f"blocks.{i}.{kind}" for i in range(2) for kind in ("attention", "cross_attention")]

    def score(out):
        return out[:, 4, 0]

    with weights_kept(decoder) as weights:
        decoder(y, memory)
    made = [weights[name][0] for name in names]
    found = relevance(decoder, (y, memory), score, method="gradient", rows=4)
    assert found.modules == names
    gradients = numeric_gradients(decoder, (y, memory), score, names)
    qq, qk, kk = torch.eye(5), torch.zeros(5, 4), torch.eye(4)
    for name, weight in zip(names, made, strict=True):
        mixing = (gradients[name] * weight).clamp(min=0).mean(0)
        if "cross" in name:
            above = qq - torch.eye(5)
            total = above.sum(-1, keepdim=True)
            normal = above / torch.where(total == 0, torch.ones(()), total) + torch.eye(5)
            qk = qk + normal.T @ mixing @ kk
        else:
            qq, qk = qq + mixing @ qq, qk + mixing @ qk
    of_y, of_memory = found.parts.values()
    assert close(of_y[0], qq[4], 1e-4)
    assert close(of_memory[0], qk[4], 1e-4)


def numeric_gradients(model, args, score, names):
    """Gradients by the weights, of attention computed by this very function inside our modules."""
    kept: dict[str, torch.Tensor] = {}
    parts = dict(model.named_modules())

    def replaced(name):
        part = parts[name]

        def forward(query, context=None, **_):
            q, k, v = (x.transpose(-3, -2) for x in part.project(query, context))
            logits = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
            if context is None:
                logits = logits.masked_fill(torch.ones(logits.shape[-2:]).triu(1).bool(), -math.inf)
            kept[name] = logits.softmax(-1)
            out = part.out_proj((kept[name] @ v).transpose(-3, -2).flatten(-2))
            return query.replace(out) if isinstance(query, TokenBatch) else out

        return forward

    for name in names:
        parts[name].forward = replaced(name)
    # blocks that think themselves fused would pass the attention by
    handles = [parts[name].register_forward_hook(lambda *_: None) for name in names]
    made = score(model(*args)).sum()
    found = torch.autograd.grad(made, [kept[name] for name in names])
    for name in names:
        del parts[name].forward
    for handle in handles:
        handle.remove()
    return {name: gradient.reshape(gradient.shape[-3:]) for name, gradient in zip(names, found, strict=True)}


# windows


def dense_window_weights(
    seen: torch.Tensor, side: int, window: int, shift: int, pads_first: bool
) -> torch.Tensor:
    """``[B, H, N, N]`` over the grid, of weights ``[B * windows, H, w * w, w * w]``: by whose window holds whom.

    timm rolls the grid and then pads it, the others pad it and then roll it.
    """
    per_row = math.ceil(side / window)
    padded = per_row * window
    of_windows = seen.unflatten(0, (-1, per_row * per_row))
    dense = torch.zeros(of_windows.shape[0], seen.shape[1], side * side, side * side, dtype=seen.dtype)
    round_trip = padded if pads_first else side
    place = []
    for i in range(side):
        for j in range(side):
            r, c = (i - shift) % round_trip, (j - shift) % round_trip
            place.append(((r // window) * per_row + c // window, (r % window) * window + c % window))
    for a, (window_a, in_a) in enumerate(place):
        for b, (window_b, in_b) in enumerate(place):
            if window_a == window_b:
                dense[:, :, a, b] = of_windows[:, window_a, :, in_a, in_b]
    return dense


def merging(side: int) -> torch.Tensor:
    """``[N / 4, N]``: which tokens make up a merged one, in equal parts."""
    half = math.ceil(side / 2)
    matrix = torch.zeros(half * half, side * side, dtype=torch.float64)
    for i in range(side):
        for j in range(side):
            matrix[(i // 2) * half + j // 2, i * side + j] = 1
    return matrix / matrix.sum(-1, keepdim=True)


def swin_of(host: str) -> tuple[nn.Module, object]:
    """A model with two stages of a plain and a shifted block, 12 x 12 tokens and windows of 4."""
    if host == "timm":
        kind = timm.models.swin_transformer.SwinTransformer
        model = kind(
            img_size=24,
            patch_size=2,
            embed_dim=12,
            depths=(2, 2),
            num_heads=(2, 3),
            window_size=4,
            num_classes=5,
        )
    elif host == "torchvision" or host == "torchvision v2":
        v2 = host.endswith("v2")
        block = torchvision.models.swin_transformer.SwinTransformerBlockV2 if v2 else None
        merge = torchvision.models.swin_transformer.PatchMergingV2 if v2 else None
        model = torchvision.models.SwinTransformer(
            [2, 2], 12, [2, 2], [2, 3], [4, 4], num_classes=5,
            **({"block": block, "downsample_layer": merge} if v2 else {}),
        )  # fmt: skip
    elif host == "timm v2":
        kind = timm.models.swin_transformer_v2.SwinTransformerV2
        model = kind(
            img_size=24,
            patch_size=2,
            embed_dim=12,
            depths=(2, 2),
            num_heads=(2, 3),
            window_size=4,
            num_classes=5,
        )
    else:
        part = "Swinv2" if host.endswith("v2") else "Swin"
        config = getattr(transformers, f"{part}Config")(
            image_size=24, patch_size=2, embed_dim=12, depths=[2, 2], num_heads=[2, 3], window_size=4
        )
        model = getattr(transformers, f"{part}ForImageClassification")(config)
    return sharpened(model), (lambda x: {"pixel_values": x} if host.startswith("transformers") else x)


HOSTS = ["timm", "timm v2", "torchvision", "torchvision v2", "transformers", "transformers v2"]


@pytest.mark.parametrize("host", HOSTS)
def test_shifted_windows_are_a_dense_computation(host):
    model, given = swin_of(host)
    model.double()
    x = torch.randn(2, 3, 24, 24, dtype=torch.float64)
    plug_in(model)
    seen: list[torch.Tensor] = []
    watched = list(sites(model))
    for _, site in watched:
        site.on_weights = lambda w: seen.append(w) or w

    def score(out):
        return (
            100 * (out.logits if host.startswith("transformers") else out)[:, 1]
        )  # so that all values count

    out = model(**given(x)) if host.startswith("transformers") else model(given(x))
    gradients = torch.autograd.grad(score(out).sum(), seen)
    for _, site in watched:
        site.on_weights = None
    unplug(model)
    found = relevance(model, given(x))
    by_gradient = relevance(model, given(x), score, method="gradient")
    # 12 x 12 tokens in windows of 4, then 6 x 6 of which windows of 4 need padding to 8 x 8
    shifts = [0, 2, 0, 2]
    matrix = torch.eye(144, dtype=torch.float64)
    positive = matrix
    total_of_layer = []
    for index, (weights, gradient, shift) in enumerate(zip(seen, gradients, shifts, strict=True)):
        side = 12 if index < 2 else 6
        if index == 2:
            matrix, positive = merging(12) @ matrix, merging(12) @ positive
        pads_first = not host.startswith("timm")
        dense = dense_window_weights(weights.detach().double(), side, 4, shift, pads_first).mean(1)
        total_of_layer.append(dense.sum(-1))
        matrix = (dense @ matrix + matrix) / 2  # with what goes to padding, rows of weights add up to 1
        mixing = (weights.detach() * gradient).clamp(min=0).double()
        positive = positive + dense_window_weights(mixing, side, 4, shift, pads_first).mean(1) @ positive
    assert len(seen) == 4
    assert found.scores.shape == (2, 144)
    assert close(found.scores, matrix.mean(1), 1e-10)
    largest = float(positive.mean(1).max())
    assert close(by_gradient.scores / largest, positive.mean(1) / largest, 1e-8)
    assert (positive.mean(1) - 1 / 144).abs().max() > 1e-3  # the identity alone would not pass
    assert (total_of_layer[2] < 0.999).any()  # there was padding, and it took some
    assert found.scores.std() > 1e-4 * found.scores.mean()


def test_grids_of_windows_are_known():
    model, given = swin_of("timm")
    assert relevance(model, given(torch.randn(1, 3, 24, 24))).grid().shape == (1, 12, 12)


def test_a_mean_over_neighbours_is_no_place():
    x = torch.randn(1, 9, 4, requires_grad=True)
    smooth = nn.functional.avg_pool1d(x.transpose(1, 2), 3, 1, 1).transpose(1, 2)
    assert places(smooth, (2,), [x])[0] is MIXED  # though each token's neighbours have its number on average
    pairs = nn.functional.avg_pool1d(x[:, :8].transpose(1, 2), 2).transpose(1, 2).flip(1)
    found = places(pairs, (2,), [x, torch.ones(1, requires_grad=True)])
    assert found[0].slots.tolist() == [3, 3, 2, 2, 1, 1, 0, 0, -1]
    assert found[1] is None


# planted answers


class Reader(nn.Module):
    """Finds the one token that carries a mark and reads the class from it; weights set by hand.

    Channels: 0 the mark, 1 to 3 the class, 4 a constant. The first token asks for marks.
    """

    def __init__(self, sharpness: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(5, 1, bias=False, batch_first=True)
        self.head = nn.Linear(5, 3, bias=False)
        with torch.no_grad():
            weight = torch.zeros(15, 5)
            weight[0, 4] = sharpness
            weight[5, 0] = math.sqrt(5)
            weight[11:14, 1:4] = torch.eye(3)
            self.attention.in_proj_weight.copy_(weight)
            self.attention.out_proj.weight.copy_(torch.eye(5))
            self.head.weight.copy_(torch.eye(5)[1:4])

    def forward(self, x):
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(x[:, 0])


def test_gradient_finds_the_token_that_holds_the_label():
    draw = torch.Generator().manual_seed(3)
    x = 0.1 * torch.randn(60, 10, 5, generator=draw)
    x[..., 0], x[..., 4], x[:, 0, 1:4] = 0, 1, 0
    answer = torch.randint(1, 10, (60,), generator=draw)
    label = torch.randint(0, 3, (60,), generator=draw)
    x[torch.arange(60), answer, 0] = 1
    x[torch.arange(60), answer, 1 + label] = 2
    hits = {}
    for name, sharpness in (("reads", 6.0), ("uniform", 0.0)):
        model = Reader(sharpness).eval()
        for method in ("rollout", "gradient"):
            scores = relevance(
                model, x, label if method == "gradient" else None, method=method, rows=0
            ).scores
            hits[name, method] = float((scores[:, 1:].argmax(-1) + 1 == answer).float().mean())
    assert hits["reads", "gradient"] == 1.0
    assert hits["reads", "rollout"] == 1.0
    assert hits["uniform", "rollout"] < 0.4  # equal weights say nothing
    # the gradient still knows which values matter, without any attention to speak of
    assert hits["uniform", "gradient"] > 0.9


# refusals, and nothing left behind


class Parallel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = MultiHeadAttention(8, 2), MultiHeadAttention(8, 2)

    def forward(self, x):
        return x + self.one(x) + self.two(x)


class Mixing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = MultiHeadAttention(8, 2), MultiHeadAttention(8, 2)
        self.conv = nn.Conv1d(8, 8, 3, padding=1)

    def forward(self, x):
        x = x + self.one(x)
        x = self.conv(x.transpose(1, 2)).transpose(1, 2)
        return x + self.two(x)


class Replacing(Mixing):
    def forward(self, x):
        x = self.one(x)  # no residual path: these are other tokens
        return x + self.two(x)


class Pooling(Mixing):
    def forward(self, x):
        x = x + self.one(x)
        # tokens drop every other one, results are averaged
        x = x[:, ::2] + nn.functional.avg_pool1d(self.one(x).transpose(1, 2), 2).transpose(1, 2)
        return x + self.two(x)


class Late(nn.Module):
    """A class token that is put in front inside the attention module, where nobody can see it enter."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = MultiHeadAttention(8, 2), LateBlock()

    def forward(self, x):
        return self.two(x + self.one(x))[:, : self.two.read]


class LateBlock(nn.Module):
    read = 1

    def __init__(self) -> None:
        super().__init__()
        self.token, self.qkv = nn.Parameter(torch.ones(1, 1, 8)), nn.Linear(8, 24)

    def forward(self, x):
        x = torch.cat([self.token.expand(len(x), 1, 8), x], 1)
        q, k, v = self.qkv(x).unflatten(-1, (3, 1, 8)).permute(2, 0, 3, 1, 4)
        return x + nn.functional.scaled_dot_product_attention(q, k, v)[:, 0]


def test_a_class_token_that_enters_late_is_a_token_of_its_own():
    """As in CaiT: two layers over patches, then a class token that comes in by the front door of a module."""

    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = MultiHeadAttention(8, 2)

        def forward(self, x, token):
            return token + self.attention(token, context=torch.cat([token, x], 1))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.one, self.two = (
                nn.Parameter(torch.ones(1, 1, 8)),
                MultiHeadAttention(8, 2),
                Last(),
            )

        def forward(self, x):
            x = x + self.one(x)
            return self.two(x, self.token.expand(len(x), 1, 8))[:, 0]

    model, x = sharpened(Model()), torch.randn(3, 5, 8)
    with weights_kept(model) as weights:
        model(x)
    first = rollout([torch.stack(weights["one"])])
    row = torch.stack(weights["two.attention"]).mean(1)[:, 0].numpy()
    of_x, of_token = relevance(model, x).parts.values()
    assert close(of_x, (row[:, None, 1:] @ first)[:, 0] / 2)
    assert close(of_token, (row[:, :1] + 1) / 2)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Parallel, r"got 'two', of which the tokens do not hold what 'one' gave them: it runs beside that"),
        (
            Late,
            r"got 'two', of which 2 queries come from no token that enters a module, and the output depends",
        ),
        (Mixing, r"got 'two', of which the keys are not made of one token each"),
        (Replacing, r"got 'two', of which the tokens get the result of 'one' otherwise than on top of"),
        (Pooling, r"got 'two', of which the tokens get the result of 'one' otherwise than on top of"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_name(kind, message):
    model = kind().eval()
    with pytest.raises(ValueError, match=message):
        relevance(model, torch.randn(2, 6, 8))


def test_places_that_nobody_reads_need_no_token():
    model = sharpened(Late())
    model.two.read = 7
    with pytest.raises(ValueError, match="2 queries"):
        relevance(model, torch.randn(2, 6, 8))
    found = relevance(model, torch.randn(2, 6, 8), lambda out: out[:, 1:].sum((1, 2)), method="gradient")
    assert found.scores.shape == (2, 6)


def test_a_grid_of_more_places_than_tokens_is_refused():
    found = relevance(build_encoder(8, depth=1, num_heads=2).eval(), torch.randn(2, 7, 8))
    assert found.grid((2, 3)).shape == (2, 2, 3)
    with pytest.raises(ValueError, match=r"^a grid must have at most 7 places, one per token: got 2 x 4$"):
        found.grid((2, 4))


def test_modules_that_mix_otherwise_are_refused():
    model = timm.create_model("xcit_nano_12_p16_224", img_size=32).eval()
    with pytest.raises(
        ValueError, match=r"to be attention: got blocks\.0\.attn, it mixes channels, not tokens"
    ):
        relevance(model, torch.randn(1, 3, 32, 32))
    assert not list(sites(model))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "flow"}, r"^method must be 'rollout' or 'gradient': got 'flow'$"),
        ({"heads": "sum"}, r"^heads must be 'mean', 'max' or 'min': got 'sum'$"),
        ({"rows": 9}, r"^rows must be numbers of 6 tokens: got \[9\]$"),
        ({"method": "gradient", "target": 4}, r"^a target must be one of 4 classes: got \[4, 4\]$"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        relevance(Fused().eval(), torch.randn(2, 6, 12), **change)


def test_training_mode_and_models_without_attention_are_refused():
    with pytest.raises(ValueError, match=r"eval mode: got 'the model' in training mode$"):
        relevance(Fused(), torch.randn(2, 6, 12))
    with pytest.raises(ValueError, match=r"^the model must have attention: got Linear without any$"):
        relevance(nn.Linear(2, 2).eval(), torch.randn(2, 2))


@pytest.mark.parametrize("plugged", [False, True])
def test_the_model_is_as_it_was(plugged):
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    model, x = sharpened(nn.TransformerEncoder(layer, 2)), torch.randn(2, 5, 16)
    if plugged:
        plug_in(model)
    kinds = [type(part) for part in model.modules()]
    names = [site.name for _, site in sites(model)]

    def state():
        with torch.no_grad():
            return model(x)

    before = state()
    for method in ("rollout", "gradient"):
        relevance(model, x, lambda out: out[:, 0, 0], method=method)

    def fails(out):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match=r"^stop$"):
        relevance(model, x, fails, method="gradient")
    with torch.no_grad(), pytest.raises(RuntimeError):
        relevance(model, torch.randn(2, 5, 3))
    assert torch.equal(before, state())
    assert [type(part) for part in model.modules()] == kinds
    assert [site.name for _, site in sites(model)] == names
    assert all(site.on_weights is None and not site.watchers for _, site in sites(model))
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_our_modules_keep_their_backend_and_frozen_models_work():
    model = sharpened(Ours("mean")).requires_grad_(False)
    tokens = TokenBatch(torch.randn(9, 24), [4, 5])
    before = model(tokens)
    with torch.inference_mode():
        scores = relevance(model, tokens, method="gradient").scores
    assert scores.shape == (2, 5)
    assert torch.equal(before, model(tokens))
    assert all(p.backend == "auto" for p in model.modules() if isinstance(p, MultiHeadAttention))
