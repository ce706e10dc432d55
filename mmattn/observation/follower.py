"""Following every token of the input through all attention calls of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mmattn.observation.explicit import Attended, explicit
from mmattn.observation.token_flow import Flow, Placed, Source, best_source, covered_places, owners, padded
from mmattn.observation.token_maps import MIXED, Entered, Entries, Places, places, tokens_of, watched_entries


def follow(model: nn.Module, run: Callable[[], Any], scores_of: Callable[[Any], Tensor]) -> Flow:
    """Run a model with all attention results set to zero, and see where its tokens stand in each call.

    Args:
        model: the model.
        run: calls it.
        scores_of: a tensor of its output.

    Raises:
        ValueError: the tokens of a call cannot be told; the message names the module and says why.
    """
    follower = Follower(Entries())
    with (
        explicit(model, follower.use, follower.done) as names,
        watched_entries(model, names, follower.entries),
    ):
        output = scores_of(run())
    return follower.finished(output)


#: What was found of tensors, by their identity.
Found = dict[int, Places | None]


class Follower:
    """The state of :func:`follow`: tokens, and for each the last tensor in which it was seen."""

    def __init__(self, entries: Entries) -> None:
        self.entries = entries
        self.calls: list[Placed] = []
        self.zeros: list[Tensor] = []
        self.sources: list[Source] = []
        self.anchors: list[tuple[Tensor, tuple[int, ...]]] = []
        none = torch.empty(0, dtype=torch.long)
        #: for each token: see Flow
        self.owner, self.source, self.position, self.last = none, none, none, none
        #: a tensor that it surely passed through, and its number there; the same for one that came later, which
        #: may lead nowhere but into an attention call; whether it was seen after the last call that it asked in
        self.anchor, self.at, self.ahead, self.ahead_at, self.seen = none, none, none, none, none.bool()

    def use(self, call: Attended) -> Tensor:
        """Weights of zero, which let no gradient through to the values; their own tells where the result goes."""
        self.zeros.append(torch.zeros_like(call.weights, requires_grad=True))
        return self.zeros[-1]

    @torch.enable_grad()  # watchers of sites look on without
    def done(self, call: Attended) -> None:
        """Find the tokens of a call."""
        if call.q is None or call.k is None or call.v is None:
            raise _refused(call, "its model makes the weights itself, without showing queries and keys")
        if call.weights.dtype not in (torch.float32, torch.float64):
            raise _refused(call, f"it computes in {call.weights.dtype}, and numbering tokens takes float32")
        k, _ = self._located(call, call.k, "keys")
        if not (k >= 0).any():
            raise _refused(call, "the keys come from no tokens that enter a module")
        v, _ = self._located(call, call.v, "values")
        if not torch.equal(padded(k, len(v)), v):
            raise _refused(call, "the values are made of other tokens than the keys")
        q, found = self._located(call, call.q, "queries")
        k = padded(k, len(q))
        self.seen |= (q >= 0) | (k >= 0)
        if (q >= 0).any():
            self._advance(found, q)
        else:
            q = self._pool(call, k)
        index = len(self.calls)
        self.last[q >= 0] = index
        self.seen[q >= 0] = False
        self.calls.append(Placed(call.name, call.weights.shape, q, padded(k, len(q))))
        self.entries.calls += 1

    def _located(self, call: Attended, x: Tensor, what: str) -> tuple[Tensor, Found]:
        """Where the tokens known so far stand in x, and tokens that are new there."""
        entered = [e for e in self.entries.fresh() if e.tensor.requires_grad]
        slots = torch.full_like(self.owner, -1)
        if not x.requires_grad:
            return slots, {}
        tensors = {id(t): t for t in (*self._anchors_in_use(), *(e.tensor for e in entered))}
        results = {int(i): self.zeros[i] for i in self.last.unique() if i >= 0}
        tensors |= {id(zero): zero for zero in results.values()}
        known = dict.fromkeys(map(id, results.values()), (1, 3))
        found = dict(zip(tensors, places(x, (1, 3), list(tensors.values()), known), strict=True))
        slots, mixed = self._reached(found, trust=True)
        if mixed:
            raise _refused(call, _mixing(what))
        covered = covered_places(slots, x.shape[0] * x.shape[2])
        while not covered.all():
            best = best_source([(e, found[id(e.tensor)]) for e in entered], covered)
            if best is None:
                break
            slots = torch.cat([slots, self._register(call, *best, x.shape[2])])
            covered = covered_places(slots, x.shape[0] * x.shape[2])
        if not covered.any() and any(to is not None for to in found.values()):
            raise _refused(call, _mixing(what))
        for index, zero in results.items():
            self._check_result(call, index, found[id(zero)], slots)
        return slots, found

    def _check_result(self, call: Attended, index: int, to: Places | None, slots: Tensor) -> None:
        """That what an earlier call gave to its tokens went where they went."""
        mine = self.last == index
        name = self.calls[index].name
        if to is None:
            if (slots[mine] >= 0).any():
                raise _refused(call, f"the tokens do not hold what {name!r} gave them: it runs beside that")
            return
        before = padded(self.calls[index].q, len(slots))[mine]
        if to is MIXED or not torch.equal(to.slots[before], slots[mine]):
            raise _refused(
                call, f"the tokens get the result of {name!r} otherwise than on top of what they were"
            )

    def _anchors_in_use(self) -> list[Tensor]:
        used = torch.cat([self.anchor, self.ahead]).unique().tolist()
        return [self.anchors[a][0] for a in used if a >= 0]

    def _reached(self, found: Found, trust: bool = False) -> tuple[Tensor, bool]:
        """Where the known tokens went, by what was found of their anchors, and whether some were mixed.

        Args:
            found: by the identity of a tensor.
            trust: take a later anchor that tokens came through as the one that they surely passed.
        """
        slots, mixed = torch.full_like(self.owner, -1), False
        for anchors, at in ((self.anchor, self.at), (self.ahead, self.ahead_at)):
            for a in [a for a in anchors.unique().tolist() if a >= 0]:
                tensor, channels = self.anchors[a]
                to = found.get(id(tensor))
                if to is None:
                    continue
                if to is MIXED or to.channels != channels:
                    mixed = True
                    continue
                mine = (anchors == a).nonzero()[:, 0]
                there = to.slots[at[mine]]
                slots[mine[there >= 0]] = there[there >= 0]
                if trust and anchors is self.ahead:
                    self.anchor[mine[there >= 0]] = a
                    self.at[mine[there >= 0]] = at[mine[there >= 0]]
        return slots, mixed

    def _register(self, call: Attended, entered: Entered, to: Places, new: Tensor, per_window: int) -> Tensor:
        """Tokens that were not known: those of a tensor that entered a module."""
        owner = owners(entered, to, per_window)
        if owner is None:
            raise _refused(
                call, f"no axis of {list(entered.tensor.shape)} that enter {entered.name!r} is the batch"
            )
        axes = [n for i, n in enumerate(entered.tensor.shape) if i not in to.channels]
        grid = (axes[1], axes[2]) if len(axes) == 3 and new.all() else None
        self.anchors.append((entered.tensor, to.channels))
        self._append(Source(entered.name, grid, 0), owner[new], len(self.anchors) - 1, new.nonzero()[:, 0])
        return to.slots[new]

    def _append(self, source: Source, owner: Tensor, anchor: int, at: Tensor) -> None:
        order = owner.argsort(stable=True)
        counts = owner.bincount()
        begins = (counts.cumsum(0) - counts)[owner[order]]
        position = torch.empty_like(owner).scatter_(0, order, torch.arange(len(owner)) - begins)
        source.width = int(counts.max())
        self.sources.append(source)
        self.owner, self.position = torch.cat([self.owner, owner]), torch.cat([self.position, position])
        for name, value in (
            ("source", len(self.sources) - 1), ("last", -1), ("anchor", anchor), ("ahead", -1), ("ahead_at", -1)
        ):  # fmt: skip
            setattr(self, name, torch.cat([getattr(self, name), torch.full_like(owner, value)]))
        self.at = torch.cat([self.at, at])
        self.seen = torch.cat([self.seen, torch.zeros_like(owner, dtype=torch.bool)])

    def _pool(self, call: Attended, k: Tensor) -> Tensor:
        """Queries that no token of the input makes: those of a pool, one token each that comes from nowhere."""
        assert call.q is not None
        windows, _, n, m = call.weights.shape
        of_window = torch.full((windows,), -1)
        placed = k >= 0
        of_window[k[placed] // m] = self.owner[placed]
        if (of_window < 0).any():
            raise _refused(call, "some of its windows hold no token that enters the model")
        known = len(self.owner)
        nowhere = torch.full((windows * n,), -1)
        self._append(Source(call.name, None, 0, shown=False), of_window.repeat_interleave(n), -1, nowhere)
        return torch.cat([torch.full((known,), -1), torch.arange(windows * n)])

    def _advance(self, found: Found, q: Tensor) -> None:
        """Take what has just entered a module as the next tensor to find the tokens from; this keeps ways short."""
        tensors = self._anchors_in_use()
        for entered in self.entries.fresh():
            to = found.get(id(entered.tensor))
            if to is None or to is MIXED:
                continue
            if any(entered.tensor is t for t in tensors):
                return
            steps = places(entered.tensor, to.channels, tensors)
            moved, mixed = self._reached(dict(zip(map(id, tensors), steps, strict=True)))
            asking = q >= 0
            if mixed or (moved[asking] < 0).any() or not torch.equal(to.slots[moved[asking]], q[asking]):
                continue
            self.anchors.append((entered.tensor, to.channels))
            self.ahead[moved >= 0] = len(self.anchors) - 1
            self.ahead_at[moved >= 0] = moved[moved >= 0]
            return

    def finished(self, output: Tensor) -> Flow:
        """The flow, once the model has given its output."""
        if not self.calls:
            raise ValueError("relevance needs at least one attention call: got a forward pass without any")
        self._see_in(output)
        for index, call in enumerate(self.calls):
            call.q, call.k = padded(call.q, len(self.owner)), padded(call.k, len(self.owner))
            ends = self.last == index
            call.residual = not bool(ends.any()) or bool(self.seen[ends].any())
        for index, source in enumerate(self.sources):
            lasts = self.last[self.source == index].unique().tolist()
            only_pooled = all(i >= 0 and not self.calls[i].residual for i in lasts)
            is_key = any((call.k[self.source == index] >= 0).any() for call in self.calls)
            source.shown = source.shown and not (only_pooled and not is_key)
        return Flow(self.calls, self.sources, self.owner, self.source, self.position, self.last)

    def _see_in(self, output: Tensor) -> None:
        """Note which tokens the output depends on otherwise than by attention."""
        tensors = self._anchors_in_use()
        if not output.requires_grad or not tensors:
            return
        gradients = torch.autograd.grad(output, tensors, _random_like(output), allow_unused=True)
        by_tensor = dict(zip(map(id, tensors), gradients, strict=True))
        for anchors, at in ((self.anchor, self.at), (self.ahead, self.ahead_at)):
            for a in [a for a in anchors.unique().tolist() if a >= 0]:
                tensor, channels = self.anchors[a]
                gradient = by_tensor[id(tensor)]
                if gradient is not None:
                    reached = (tokens_of(gradient, channels) != 0).any(-1).cpu()
                    self.seen[anchors == a] |= reached[at[anchors == a]]


def _random_like(x: Tensor) -> Tensor:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(x.shape, generator=draw, dtype=torch.float64).to(x)


def _mixing(what: str) -> str:
    return f"the {what} are not made of one token each (or of several, each used once) of a tensor entering a module"


def _refused(call: Attended, why: str) -> ValueError:
    return ValueError(f"relevance must know which token stands where: got {call.name!r}, of which {why}")
