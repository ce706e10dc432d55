"""The attention of a model over one item, in terms of the item's tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mmattn.explore.exploration import Layer, TokenMap
from mmattn.explore.groups import columns_in_groups, in_groups
from mmattn.explore.packing import packed_weights
from mmattn.explore.subjects import Item
from mmattn.explore.titles import layer_titles
from mmattn.observation import observe, relevance
from mmattn.observation.attribution import first_tensor
from mmattn.observation.follower import follow


@dataclass(frozen=True, eq=False)
class Call:
    """One attention call, and where the tokens of the item stand in it.

    Attributes:
        name: of the module.
        weights: ``[W, H, n, m]``, windows first.
        q, k: ``[U]``: the place of each token among the W * n queries and W * m keys, -1 = none.
    """

    name: str
    weights: Tensor
    q: Tensor
    k: Tensor

    @property
    def pools(self) -> bool:
        """Whether the queries are no tokens of the item."""
        return bool((self.q < 0).all())


@dataclass(frozen=True, eq=False)
class Seen:
    """What a model did with one item.

    Attributes:
        count: tokens of the item.
        calls: of attention, in their order.
        output: of the model.
        maps: ``rollout`` and ``relevance`` of the tokens, ``[U]``, as far as there are any.
        notes: why something is missing.
    """

    count: int
    calls: list[Call]
    output: Any
    maps: list[tuple[str, Tensor]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def seen_by(module: nn.Module, item: Item, why_no_maps: str = "") -> Seen:
    """Run a model on an item and look.

    Raises:
        ValueError: the model has no attention, or none of it is over the tokens of the item.
    """
    with torch.no_grad(), observe(module, weights=True) as record:
        output = item.run()
    observed = [(name, call.weights.float().cpu()) for name, each in record.items() for call in each.calls]
    if not observed:
        raise ValueError(f"the model must attend to something in the item: got {type(module).__name__}")
    notes = [why_no_maps] if why_no_maps else []
    placed = None
    if item.inputs is not None:
        try:
            placed = _followed(module, item.inputs, dict(_by_call(observed)))
        except (ValueError, RuntimeError) as error:
            notes += [f"There is no rollout: {_sentence(error)}", "Tokens are taken to stand in their order."]
    if placed is None:
        count = observed[0][1].shape[-1]
        return Seen(count, [_straight(name, weights, count) for name, weights in observed], output, [], notes)
    count, calls = placed
    maps, why = _maps(module, item.inputs)
    return Seen(count, calls, output, maps, [*notes, *why])


def _by_call(observed: Sequence[tuple[str, Tensor]]) -> list[tuple[tuple[str, int], Tensor]]:
    """Weights by the name of the module and the number of its call."""
    seen: Counter[str] = Counter()
    found = []
    for name, weights in observed:
        found.append(((name, seen[name]), weights))
        seen[name] += 1
    return found


def _run(module: nn.Module, inputs: Any) -> Any:
    return module(**inputs) if isinstance(inputs, Mapping) else module(*inputs)


def _followed(
    module: nn.Module, inputs: Any, weights: Mapping[tuple[str, int], Tensor]
) -> tuple[int, list[Call]]:
    """How many tokens there are, and all calls with the places of the tokens that enter the first."""
    with torch.inference_mode(False), torch.enable_grad():
        flow = follow(module, lambda: _run(module, inputs), first_tensor)
    mine = flow.source == 0
    count = int(mine.sum())
    order = flow.position[mine].argsort()
    seen: Counter[str] = Counter()
    calls = []
    for call in flow.calls:
        key = (call.name, seen[call.name])
        seen[call.name] += 1
        if key not in weights or weights[key].shape != call.shape:
            raise ValueError(f"all calls must be observed: got {call.name!r} otherwise the second time")
        calls.append(Call(call.name, weights[key], call.q[mine][order], call.k[mine][order]))
    return count, calls


def _straight(name: str, weights: Tensor, count: int) -> Call:
    """A call in which tokens are taken to stand in their order, where their number is right."""
    windows, _, n, m = weights.shape
    none, all_of_them = torch.full((count,), -1), torch.arange(count)
    fits = windows == 1 and m == count
    return Call(name, weights, all_of_them if fits and n == count else none, all_of_them if fits else none)


def _maps(module: nn.Module, inputs: Any) -> tuple[list[tuple[str, Tensor]], list[str]]:
    """Rollout, and relevance for the answer where the model scores classes."""
    found, notes = [], []
    for name, method in (("rollout", "rollout"), ("relevance", "gradient")):
        try:
            scores = relevance(module, inputs, method=method).scores[0]  # type: ignore[arg-type]  # one of two
        except (ValueError, RuntimeError) as error:
            notes.append(f"There is no {name}: {_sentence(error)}")
            continue
        found.append((name, scores.detach().float().cpu()))
    return found, notes


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if text.endswith(".") else text + "."


def layers_of(
    seen: Seen, groups: Tensor, relevant: Tensor | None, importance: Mapping[str, Sequence[float]]
) -> tuple[list[Layer], list[str]]:
    """Layers over groups of tokens, and sentences on those that cannot be shown.

    Raises:
        ValueError: none can be shown.
    """
    calls = [call for call in seen.calls if bool((call.k >= 0).any()) and _rows(call)]
    hidden = [call.name for call in seen.calls if call not in calls]
    if not calls:
        raise ValueError(
            f"attention must be over the {seen.count} tokens of the item to be shown: got that of {hidden[0]!r}"
        )
    titles = layer_titles([call.name for call in calls], [call.pools for call in calls])
    layers = []
    for call, title in zip(calls, titles, strict=True):
        if call.pools:
            weights = columns_in_groups(call.weights, call.k, groups)
        else:
            weights = in_groups(call.weights, call.q, call.k, groups)
        layers.append(_layer(call, title, weights, relevant, importance.get(call.name)))
    names = ", ".join(dict.fromkeys(hidden))
    notes = (
        [f"Not shown, as it is not between the tokens of the item: attention of {names}."] if hidden else []
    )
    return layers, notes


def _layer(
    call: Call, title: str, weights: Tensor, relevant: Tensor | None, importance: Sequence[float] | None
) -> Layer:
    """A call by its weights ``[H, N, G]``."""
    heads, rows, columns = weights.shape
    mass = None if relevant is None else weights[..., relevant].sum(-1).mean(1).tolist()
    return Layer(
        call.name,
        title,
        (heads, rows, columns),
        packed_weights(weights),
        _queries(rows) if call.pools else [],
        [_short(x) for x in importance] if importance is not None and len(importance) == heads else None,
        None if mass is None else [_short(x) for x in mass],
    )


def _rows(call: Call) -> bool:
    """Whether the queries are tokens of the item, or few that are none, for the whole item."""
    return not call.pools or len(call.weights) == 1


def _queries(count: int) -> list[str]:
    return ["pooling query"] if count == 1 else [f"query {i + 1}" for i in range(count)]


def map_of(found: tuple[str, Tensor], groups: Tensor, predicted: str) -> TokenMap:
    """Scores of tokens ``[U]`` as shares of their groups."""
    name, scores = found
    sums = torch.zeros(int(groups.max()) + 1).index_add(0, groups, scores.clamp(min=0))
    shares = sums / sums.sum().clamp(min=1e-12)
    return TokenMap(name, [_short(x) for x in shares.tolist()], predicted if name == "relevance" else "")


def _short(x: float) -> float:
    """Six digits that count."""
    return float(f"{x:.6g}")
