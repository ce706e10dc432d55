"""What must hold for each model of the zoo; a check that does not hold raises ``AssertionError``."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from fnmatch import fnmatch
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.plugins.tracing import Tracer, traced
from benchmarks.plugins.zoo.case import Case
from benchmarks.plugins.zoo.subject import Subject, zeroed
from mmattn.plugins.calls import weights_of
from mmattn.plugins.site import Seen, sites

#: Of the largest number in what is compared: outputs, gradients; and of 1: weights.
OUTPUTS, GRADIENTS, WEIGHTS = 1e-5, 1e-4, 5e-5
#: The mean entropy of the weights stays under this share of what uniform weights have.
SHARP = 0.8


def outputs_agree(subject: Subject) -> float:
    """The outputs of the plugged model are the host's; gives the largest difference over the scale."""
    with torch.no_grad():
        before = subject.run()
        with subject.plugged():
            after = subject.run()
    error = max(_distance(a, b) for a, b in zip(before, after, strict=True))
    assert error <= OUTPUTS, f"outputs differ by {error:.1e} of their scale"
    return error


def gradients_agree(subject: Subject) -> float:
    """The gradients of parameters and inputs are the host's; gives the largest difference over the scale."""
    if not subject.case.gradients:
        return 0.0
    before = _gradients(subject)
    with subject.plugged():
        after = _gradients(subject)
    assert before.keys() == after.keys(), (
        f"gradients of {sorted(before.keys() ^ after.keys())[:3]} come or go"
    )
    assert before, "the model has no gradients"
    # some gradients are 0 but for rounding, as that of the bias of all keys
    floor = 1e-2 * max(float(g.abs().max()) for g in before.values())
    errors = {
        name: _ratio(float((g - after[name]).abs().max()), max(float(g.abs().max()), floor))
        for name, g in before.items()
    }
    worst = max(errors, key=lambda name: errors[name])
    assert errors[worst] <= GRADIENTS, f"the gradient of {worst} differs by {errors[worst]:.1e} of its scale"
    return errors[worst]


def through_core(subject: Subject) -> float:
    """The core computes all calls over tokens but those that the case names; gives how many those are."""
    case, wanted = subject.case, subject.weights
    with torch.no_grad(), subject.plugged() as report:
        subject.run()
        routed = {site.name: site.routed_calls for _, site in sites(subject.model)}
        hosts = {site.name: site.host_calls for _, site in sites(subject.model)}
    for name, calls in wanted.items():
        if any(fnmatch(name, pattern) for pattern in case.host_made):
            assert hosts[name] == len(calls), f"{name} was seen {hosts[name]} times, not {len(calls)}"
        else:
            assert routed[name] == len(calls), (
                f"{name} reached the core {routed[name]} times, not {len(calls)}"
            )
            assert not hosts[name], f"{name} made {hosts[name]} calls itself as well"
    assert set(case.left_alone) <= set(report.skipped), f"{case.left_alone} should be skipped with a reason"
    if not case.mixes:
        assert not any(routed.values()), f"nothing is to be routed: got {routed}"
        assert not any(hosts.values()), f"nothing is to be observed: got {hosts}"
    else:
        assert wanted, "no attention was found"
    return float(len(case.host_made))


def weights_agree(subject: Subject) -> float:
    """What watchers are shown are the weights that an independent computation gives; routed and not."""
    wanted = subject.weights
    worst = 0.0
    for routed in (True, False):
        shown: dict[str, list[Tensor]] = defaultdict(list)
        with torch.no_grad():
            before = subject.run()
            with subject.plugged(routed):
                for _, site in sites(subject.model):
                    site.watchers.append(_keeper(shown[site.name]))
                after = subject.run()
        if not routed:
            same = all(map(torch.equal, before, after))
            assert same, "looking on changed the outputs"
        for name, calls in wanted.items():
            assert len(shown[name]) == len(calls), (
                f"{name}: {len(shown[name])} of {len(calls)} calls were shown"
            )
            for given, call in zip(shown[name], calls, strict=True):
                worst = max(worst, _weights_differ(name, given, call, subject.case))
    return worst


def entropy_agrees(subject: Subject) -> float:
    """The weights are far from uniform, in the host's own terms; gives their mean share of the largest entropy."""
    shares = []
    for calls in subject.weights.values():
        for w in calls:
            open_keys = (w > 0).sum(-1)
            entropy = -torch.special.xlogy(w, w).sum(-1)
            several = open_keys > 1
            shares.append((entropy[several] / open_keys[several].log()).flatten())
    found = torch.cat(shares) if shares else torch.zeros(0)
    if not len(found):
        return 0.0
    share = float(found.mean())
    assert share < SHARP, f"weights are too even to tell: {share:.2f} of the largest entropy"
    return share


def head_masks_agree(subject: Subject) -> float:
    """A masked head gives what the host gives where its weights are zeroed by hand; gives the largest difference."""
    wanted = subject.weights
    worst = 0.0
    for name in list(wanted)[:: max(1, len(wanted) // 3)]:
        heads = wanted[name][0].shape[1]
        head = heads // 2
        with torch.no_grad():
            with traced(subject.open, Tracer(change=zeroed(subject, name, head, heads))):
                by_hand = subject.run(subject.open)
            with subject.plugged():
                site = next(s for _, s in sites(subject.model) if s.name == name)
                site.head_mask = torch.ones(heads)
                site.head_mask[head] = 0.0
                masked = subject.run()
            whole = subject.run()
        error = max(_distance(a, b) for a, b in zip(by_hand, masked, strict=True))
        assert error <= OUTPUTS * 3, f"{name}, head {head}: masked differs from zeroed by hand by {error:.1e}"
        assert not all(map(torch.equal, whole, masked)), f"{name}, head {head}: masking changed nothing"
        worst = max(worst, error)
    return worst


def unplugging_restores(subject: Subject) -> float:
    """Unplugged, the model is the one it was: outputs bit for bit, classes, attributes, names of its state."""
    model = subject.model
    facts = _facts(model)
    keys = list(model.state_dict())
    with torch.no_grad():
        before = subject.run()
        with subject.plugged():
            subject.run()
            assert list(model.state_dict()) == keys, "plugging changed the names of the state"
        after = subject.run()
    assert all(map(torch.equal, before, after)), "outputs are not what they were"
    assert _facts(model) == facts, "classes or attributes are not what they were"
    assert list(model.state_dict()) == keys, "the names of the state are not what they were"
    return 0.0


CHECKS: dict[str, Callable[[Subject], float]] = {
    "core": through_core,
    "outputs": outputs_agree,
    "gradients": gradients_agree,
    "weights": weights_agree,
    "entropy": entropy_agrees,
    "head masks": head_masks_agree,
    "unplug": unplugging_restores,
}


def _keeper(kept: list[Tensor]) -> Callable[[Seen], None]:
    return lambda seen: kept.append(weights_of(seen) if seen.weights is None else seen.weights.clone())


def _weights_differ(name: str, given: Tensor, host: Tensor, case: Case) -> float:
    assert given.shape == host.shape, f"{name}: weights are {list(given.shape)}, not {list(host.shape)}"
    blind = given.sum(-1, keepdim=True) == 0  # some hosts spread a query that sees no key evenly over all
    assert (host.amax(-1, keepdim=True) - host.amin(-1, keepdim=True))[blind].abs().sum() <= WEIGHTS
    error = float((given - host).masked_fill(blind, 0.0).abs().max())
    assert error <= WEIGHTS, f"{name}: weights differ by {error:.1e}"
    return error


def _gradients(subject: Subject) -> dict[str, Tensor]:
    model = subject.model
    leaves: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
    args = []
    for i, x in enumerate(subject.inputs.args):
        if isinstance(x, Tensor) and x.is_floating_point():
            x = leaves[f"input {i}"] = x.detach().clone().requires_grad_()
        args.append(x)
    out = subject.case.outputs(model(*args, **subject.inputs.kwargs))
    generator = torch.Generator().manual_seed(2)
    loss = sum((x * torch.randn(x.shape, generator=generator)).sum() for x in out if x.requires_grad)
    assert isinstance(loss, Tensor), "no output depends on the parameters"
    grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return {name: g for name, g in zip(leaves, grads, strict=True) if g is not None}


def _facts(model: nn.Module) -> list[Any]:
    return [
        (name, type(m), sorted(m.__dict__), getattr(m, "fused_attn", None))
        for name, m in model.named_modules()
    ]


def _distance(a: Tensor, b: Tensor) -> float:
    """The largest difference over the largest number; NaN, which hosts give for rows without keys, is left out."""
    a, b = a[real := ~a.isnan()], b[real]
    if not a.numel():
        return 0.0
    scale = float(a.abs().max())
    return _ratio(float((a - b).abs().max()), scale)


def _ratio(error: float, scale: float) -> float:
    if math.isnan(error):
        return math.inf  # which no comparison passes by
    return error / scale if scale else (0.0 if error == 0 else math.inf)
