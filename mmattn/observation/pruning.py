"""Taking heads out of a model for good."""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from mmattn.attention import MultiHeadAttention
from mmattn.observation.heads import attention_modules, set_head_mask
from mmattn.plugins.cuts import Cut, Heads, Layout, NoLayoutError
from mmattn.plugins.find import class_name
from mmattn.plugins.gaps import put_gaps
from mmattn.plugins.layouts import layout_of
from mmattn.plugins.site import HEADS, site_of
from mmattn.plugins.verify import Sample, VerificationError, take
from mmattn.positions.bias import ALiBi


@torch.no_grad()
def prune_heads(
    model: nn.Module, heads: Mapping[str, Sequence[int]], *, verify: Sample | None = None
) -> None:
    """Take heads out of a model, in place: their parameters are gone.

    The model then computes what it did with these heads masked by zeros (:func:`~mmattn.set_head_mask`). Where the
    class of a module takes any number of heads, it computes the remaining ones alone; where its shapes come from the
    width of the model (``torch.nn.MultiheadAttention``, T5, Swin v2, ...), the missing ones count as zeros, which
    saves parameters and most of the projections. Biases that layers share stay whole.

    A pruned model can be copied, pickled, exported and trained. Its ``state_dict`` fits a new model that was pruned
    alike: ``prune_heads(fresh, pruned_heads(model))``. Parameters are new objects, so an optimizer made before
    holds the old ones: make a new one. The same goes for what was compiled before.

    Args:
        model: ours, or one of torch.nn, timm, torchvision, torchaudio or transformers; plugged in or not.
        heads: by name of an attention module, the numbers of the heads to take out, counted from 0 as in the
            model before it lost any. Heads that are gone already may be named again.
        verify: a sample, as in :func:`~mmattn.plug_in`, to compare with masks by zeros beforehand, on a copy. Classes
            whose parameters were not looked into before can only be pruned with one.

    Raises:
        ValueError: a name or a number does not exist, a module would have no head left, heads that share keys would
            be left in groups of different size, or the heads of a module cannot be told apart or do not act
            on their own. The model is then as it was, here and below.
        VerificationError: without the heads the model computes something else than with their masks.

    Example:
        >>> from mmattn import build_encoder
        >>> encoder = build_encoder(embed_dim=12, depth=2, num_heads=3)
        >>> prune_heads(encoder, {"blocks.0.attention": [1]})
        >>> prune_heads(encoder, {"blocks.0.attention": [2], "blocks.1.attention": [0]})
        >>> pruned_heads(encoder)
        {'blocks.0.attention': [1, 2], 'blocks.1.attention': [0]}
        >>> encoder.blocks[0].attention.qkv_proj
        Linear(in_features=12, out_features=12, bias=True)
    """
    plans = [_plan(model, name, numbers, verify is None) for name, numbers in heads.items()]
    _check_shared(model, [layout for _, layout, _ in plans])
    if verify is not None:
        _try(model, heads, verify)
    for name, layout, kept in plans:
        _apply(model.get_submodule(name), layout, kept)


def pruned_heads(model: nn.Module) -> dict[str, list[int]]:
    """The heads that :func:`prune_heads` took out, by module name, in the numbers that they had at first.

    Example:
        >>> attention = MultiHeadAttention(embed_dim=8, num_heads=4)
        >>> prune_heads(attention, {"": [3, 0]})
        >>> pruned_heads(attention)
        {'': [0, 3]}
    """
    return {name: m.__dict__[HEADS].gone for name, m in model.named_modules() if HEADS in m.__dict__}


def _plan(model: nn.Module, name: str, numbers: Sequence[int], sure: bool) -> tuple[str, Layout, Heads]:
    known = attention_modules(model)
    if name not in known:
        raise ValueError(
            f"heads must be those of an attention module: got {name!r}, known are {sorted(known)}"
        )
    try:
        layout = layout_of(model, name)
    except NoLayoutError as error:
        kind = class_name(type(known[name]))
        raise ValueError(f"{name!r} cannot lose heads, since {error}: got a {kind}") from error
    if sure and not layout.checked:
        kind = class_name(type(known[name]))
        raise ValueError(
            f"heads of {name!r} need a sample to verify, since its class is not known: got a {kind}"
        )
    now = layout.heads
    wrong = [n for n in numbers if not 0 <= n < now.total]
    if wrong:
        raise ValueError(f"heads of {name!r} must be numbers from 0 to {now.total - 1}: got {wrong}")
    rest = [n for n in now.rest if n not in set(numbers)]
    if not rest:
        raise ValueError(
            f"at least one head of {name!r} must remain: got {sorted(set(numbers))} of {now.total}"
        )
    return name, layout, replace(now, rest=rest, rest_kv=_kept_keys(name, now, rest))


def _kept_keys(name: str, now: Heads, rest: list[int]) -> list[int]:
    """The heads of keys that the remaining heads of queries still need."""
    group = now.total // now.total_kv
    left = Counter(head // group for head in rest)
    if len(set(left.values())) > 1:
        raise ValueError(
            f"of the {group} heads of {name!r} that share keys, the same number must remain wherever any does: "
            f"got {[left[kv] for kv in range(now.total_kv)]}"
        )
    return sorted(left)


def _try(model: nn.Module, heads: Mapping[str, Sequence[int]], sample: Sample) -> None:
    """Compare on a copy what masks and what pruning make of a model."""
    trial = copy.deepcopy(model)
    masks: dict[str, Tensor | None] = {}
    for name, numbers in heads.items():
        mask = torch.ones(layout_of(trial, name).heads.total)
        mask[list(numbers)] = 0
        masks[name] = mask
    set_head_mask(trial, masks)
    masked = take(trial, sample).outputs
    set_head_mask(trial, dict.fromkeys(masks))
    for name, numbers in heads.items():
        _apply(trial.get_submodule(name), *_plan(trial, name, numbers, False)[1:])
    for place, out in take(trial, sample).outputs.items():
        worst = (out - masked[place]).abs().max() / masked[place].abs().max()
        if not worst <= 1e-5:
            raise VerificationError(
                f"a pruned model must compute what masks make of it: got {place} different by {worst:.1e} "
                f"of its scale"
            )


def _check_shared(model: nn.Module, layouts: list[Layout]) -> None:
    """Refuse to cut a tensor that modules share which do not lose heads together."""
    owners: defaultdict[int, set[tuple[int, str]]] = defaultdict(set)
    users: Counter[int] = Counter()
    for module in model.modules():
        for name, tensor in module._parameters.items():
            if tensor is not None:
                owners[id(tensor)].add((id(module), name))
        if isinstance(module, MultiHeadAttention) and module.position_bias is not None:
            users[id(module.position_bias)] += 1
    for cut in (cut for layout in layouts for cut in layout.cuts):
        if len(owners[id(cut.tensor)]) > 1 or users[id(cut.owner)] > 1:
            raise ValueError(
                f"tensors of pruned heads must belong to one module: got a {cut.name} of "
                f"{type(cut.owner).__name__} that several share"
            )


def _apply(module: nn.Module, layout: Layout, kept: Heads) -> None:
    now = layout.heads
    if kept.rest == now.rest:
        return
    for cut in layout.cuts:
        if kept.narrow or cut.is_parameter:
            _cut(cut, now, kept)
    for name, what in layout.counts.items():
        groups = len(kept.rest) // len(kept.rest_kv)
        known = {"heads": len(kept.rest), "kv": len(kept.rest_kv), "groups": groups}
        setattr(module, name, len(kept.rest) * what if isinstance(what, int) else known[what])
    module.__dict__[HEADS] = kept
    site = site_of(module)
    if site is not None:
        site.num_heads = kept.num_heads
        if site.head_mask is not None and kept.narrow:
            site.head_mask = site.head_mask[[now.rest.index(head) for head in kept.rest]]


def _cut(cut: Cut, now: Heads, kept: Heads) -> None:
    tensor, owner = cut.tensor, cut.owner
    assert tensor is not None
    places = cut.places(now, kept)
    chosen = tensor.index_select(cut.dim, torch.tensor(places, device=tensor.device))
    if not cut.is_parameter:
        owner._buffers[cut.name] = chosen
    else:
        assert isinstance(tensor, nn.Parameter)
        owner._parameters[cut.name] = nn.Parameter(chosen, tensor.requires_grad)
    if kept.narrow:
        _resize(cut, kept)
        return
    first = Heads.all(now.total, now.total_kv)
    put_gaps(owner, cut.name, cut.dim, cut.places(first, kept), cut.size(now.total, now.total_kv))


def _resize(cut: Cut, kept: Heads) -> None:
    """What a projection or a bias says of its size."""
    owner, size = cut.owner, cut.size(len(kept.rest), len(kept.rest_kv))
    turned = hasattr(owner, "nx")
    for name, dim in (("out_features", 0), ("in_features", 1), ("out_channels", 0), ("in_channels", 1)):
        if name in owner.__dict__ and cut.name == "weight" and dim == cut.dim:
            setattr(owner, name, size)
    if turned and cut.name == "weight":
        setattr(owner, "nf" if cut.dim == 1 else "nx", size)
    if isinstance(owner, ALiBi):
        owner.num_heads, owner.__class__ = kept.total, RemainingSlopes
        owner.__dict__["rest"] = list(kept.rest)
    elif cut.name == "table":
        setattr(owner, "num_heads", size)  # noqa: B010  # torch types attributes of modules as modules


class RemainingSlopes(ALiBi):
    """ALiBi for the heads that are left: slopes as they were with all ``num_heads``."""

    rest: list[int]

    def fill_buffers(self) -> None:
        """Set the slopes of the heads that are left."""
        self.slopes = self.slopes.new_empty(self.num_heads)
        super().fill_buffers()
        self.slopes = self.slopes[self.rest]
