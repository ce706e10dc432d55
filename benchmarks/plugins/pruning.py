"""``python -m benchmarks.plugins --only pruning``: 40 % of the heads taken out of trained models.

By importance and at random, in one model each for pictures (scikit-learn's digits beside a fragment of another),
speech (synthetic words beside a cut word) and text (the language of a quoted sentence beside another). Importance
is measured on training data, accuracy on the test set.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from statistics import mean, median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Subset

from benchmarks.bars import Bar
from benchmarks.plugins.topic import Topic
from mmattn import AudioFrames, ImagePatches, TextNgrams, build_classifier, build_encoder
from mmattn.observation.importance import Method, head_importance
from mmattn.observation.pruning import prune_heads
from mmattn.training.data import Batch, collate
from mmattn.training.optim import AdamWCosine

SHARE = 0.4
SEEDS = (0, 1, 2)
WIDTH, DEPTH, HEADS = 64, 3, 8
#: Random choices that are averaged for each seed.
DRAWS = 4
#: Batches that importance is measured on.
BATCHES = 6
#: Names of the attention modules that lose heads; the pooling at the end keeps its own.
PART = "encoder.blocks.*.attention"


@dataclass(frozen=True)
class Domain:
    """A domain: its data, its adapter and how long it trains.

    Attributes:
        name: of the domain.
        data: gives the sets ``train`` and ``test``.
        adapter: raw items to tokens.
        examples: of the training set in an epoch.
        epochs: passes over them.
        tests: examples of the test set.
        lr: highest learning rate.
        rotary_base: of the encoder's positions.
    """

    name: str
    data: Callable[[], dict[str, Any]]
    adapter: Callable[[], nn.Module]
    examples: int
    epochs: int
    tests: int
    lr: float
    rotary_base: float = 10000.0


@dataclass
class Row:
    """What came out in one domain: accuracies in percent, one for each seed."""

    domain: str
    whole: list[float] = field(default_factory=list)
    gradient: list[float] = field(default_factory=list)
    leave_one_out: list[float] = field(default_factory=list)
    at_random: list[float] = field(default_factory=list)
    faster: list[float] = field(default_factory=list)
    parameters: float = 1.0
    seconds: float = 0.0

    @property
    def gained(self) -> float:
        """Points of accuracy that importance keeps and chance does not, in the mean over the seeds."""
        return mean(self.gradient) - mean(self.at_random)


class Model(nn.Module):
    """Raw items to logits."""

    def __init__(self, domain: Domain, classes: int) -> None:
        super().__init__()
        self.adapter = domain.adapter()
        self.encoder = build_encoder(
            embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, mlp_ratio=2.0, rotary_base=domain.rotary_base
        )
        self.head = build_classifier(WIDTH, classes)

    def forward(self, items: Any) -> Tensor:
        """Logits ``[B, C]``."""
        logits: Tensor = self.head(self.encoder(self.adapter(items)))
        return logits


def domains() -> list[Domain]:
    """The three; their data are imported here, since each needs packages of its own."""
    from tasks.speech.data import SpokenCommands
    from tasks.text.data import QuotedLanguage
    from tasks.vision.data import Digits

    pictures = partial(ImagePatches, WIDTH, patch_size=4, in_channels=1, stem="conv")
    sound = partial(AudioFrames, WIDTH, sample_rate=8000, n_mels=40, hop_length=100, subsampling=4)
    text = partial(TextNgrams, WIDTH, buckets=32768, max_ngram=4, max_piece=12, ngram_dim=32)
    return [
        Domain("vision", lambda: Digits(1, "mixed").sets, pictures, 1197, 10, 500, 2e-3, 100.0),
        Domain("speech", lambda: SpokenCommands(1, "mixed").sets, sound, 2000, 6, 500, 2e-3),
        Domain("text", lambda: QuotedLanguage(1, "mixed").sets, text, 6000, 3, 1000, 2e-3),
    ]


def rows(seeds: Sequence[int] = SEEDS) -> list[Row]:
    """One row for each domain; on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [measure(domain, seeds) for domain in domains()]
    finally:
        torch.set_num_threads(threads)


def measure(domain: Domain, seeds: Sequence[int]) -> Row:
    """Train with each seed, prune in each way, test."""
    begin = time.perf_counter()
    row, sets = Row(domain.name), domain.data()
    test = list(_batches(sets["test"], range(min(domain.tests, len(sets["test"]))), 100))
    for seed in seeds:
        torch.manual_seed(seed)
        model = Model(domain, len(sets["train"].class_names))
        seen = _train(model, domain, sets["train"])
        row.whole.append(accuracy(model, test))
        pruned = {}
        methods: list[Method] = ["gradient", "leave_one_out"]
        for method in methods:
            by_layer = method == "gradient"  # Michel et al. (2019); rises of the loss compare as they are
            found = head_importance(
                model, seen[:BATCHES], loss, method=method, normalize=by_layer, select=PART
            )
            pruned[method] = without(model, least(found, SHARE))
            getattr(row, method).append(accuracy(pruned[method], test))
        drawn = [at_random(found, SHARE, random.Random(f"{seed} {i}")) for i in range(DRAWS)]
        row.at_random.append(mean(accuracy(without(model, heads), test) for heads in drawn))
        row.faster.append(_faster(model, pruned["gradient"], test))
        row.parameters = _size(pruned["gradient"]) / _size(model)
    row.seconds = time.perf_counter() - begin
    return row


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy of a batch."""
    return F.cross_entropy(model(batch.items), batch.labels)


def least(importance: dict[str, Tensor], share: float) -> dict[str, list[int]]:
    """The least important heads of all layers together; each layer keeps one."""
    order = sorted((float(v), name, i) for name, values in importance.items() for i, v in enumerate(values))
    return _taken([(name, head) for _, name, head in order], importance, share)


def at_random(importance: dict[str, Tensor], share: float, rng: random.Random) -> dict[str, list[int]]:
    """As many heads, drawn by chance; each layer keeps one."""
    order = [(name, head) for name, values in importance.items() for head in range(len(values))]
    rng.shuffle(order)
    return _taken(order, importance, share)


def _taken(order: list[tuple[str, int]], importance: dict[str, Tensor], share: float) -> dict[str, list[int]]:
    wanted = round(share * len(order))
    taken: dict[str, list[int]] = {name: [] for name in importance}
    for name, head in order:
        if sum(map(len, taken.values())) < wanted and len(taken[name]) + 1 < len(importance[name]):
            taken[name].append(head)
    return taken


def without(model: nn.Module, heads: dict[str, list[int]]) -> nn.Module:
    """A copy of a model without these heads."""
    made = copy.deepcopy(model)
    prune_heads(made, heads)
    return made


@torch.no_grad()
def accuracy(model: nn.Module, batches: list[Batch]) -> float:
    """In percent."""
    model.eval()
    right = sum(int((model(b.items).argmax(-1) == b.labels).sum()) for b in batches)
    return 100 * right / sum(len(b.labels) for b in batches)


def _train(model: nn.Module, domain: Domain, data: Any) -> list[Batch]:
    """Train, and give the batches of the last epoch."""
    steps = domain.epochs * -(-domain.examples // 32)
    optimizer, schedule = AdamWCosine(lr=domain.lr).configure(model, steps)
    model.train()
    seen: list[Batch] = []
    for _ in range(domain.epochs):
        seen = []
        for batch in _batches(data, torch.randperm(len(data))[: domain.examples].tolist(), 32):
            optimizer.zero_grad()
            loss(model, batch).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            seen.append(batch)
    return seen


def _batches(data: Any, indices: Sequence[int], size: int) -> Iterator[Batch]:
    chosen = Subset(data, list(indices))
    for start in range(0, len(chosen), size):
        yield collate([chosen[i] for i in range(start, min(start + size, len(chosen)))])


@torch.no_grad()
def _faster(model: nn.Module, pruned: nn.Module, batches: list[Batch]) -> float:
    """How many times as fast the pruned encoder is over the same tokens: the median of pairs in turn."""
    encoders = [m.get_submodule("encoder").eval() for m in (model, pruned)]
    tokens = model.get_submodule("adapter")(batches[0].items)
    ratios = []
    for _ in range(9):
        times = []
        for encoder in encoders:
            begin = time.perf_counter()
            encoder(tokens)
            times.append(time.perf_counter() - begin)
        ratios.append(times[0] / times[1])
    return median(ratios)


def _size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.get_submodule("encoder").parameters())


def table(found: list[Row]) -> str:
    """The rows as a Markdown table: accuracies in percent, each the mean and the seeds."""
    head = f"| domain | all heads | {SHARE:.0%} fewer by gradient | by leaving out | at random |"
    lines = [
        f"{head} encoder's time | its parameters |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in found:
        cells = [row.domain, *map(_cell, (row.whole, row.gradient, row.leave_one_out, row.at_random))]
        lines.append("| " + " | ".join([*cells, f"1/{mean(row.faster):.2f}", f"{row.parameters:.2f}"]) + " |")
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    return f"{mean(values):.1f} ({', '.join(f'{v:.1f}' for v in values)})"


def run() -> Topic:
    """For ``python -m benchmarks.plugins``: what importance keeps must be more than what chance keeps."""
    found = rows()
    kept = [
        Bar(
            f"pruning {row.domain}: points kept beyond chance, by gradients",
            row.gained,
            0.0,
            note=f"{row.seconds:.0f} s",
        )
        for row in found
    ]
    return Topic("Pruning 40 % of the heads", table(found), kept, {"rows": [asdict(row) for row in found]})
