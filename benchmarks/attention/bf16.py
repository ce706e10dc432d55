"""bfloat16 training steps: a vision transformer against timm's, an encoder against its own fp32, and their losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.attention import data, learnable, steps
from benchmarks.attention.best import COMPILE_LIMIT, OutOfTime, time_limit
from benchmarks.attention.data import Batch
from benchmarks.attention.encoder import DIMS
from benchmarks.attention.peers import How, seeded, vision_transformer
from benchmarks.attention.settings import Race, Report, Settings
from benchmarks.attention.steps import B
from benchmarks.attention.timing import Timing, Work, geometric_mean, ratio
from benchmarks.attention.vit import QUICK_SIZES, SIZES, Pictures, VisionTransformer
from benchmarks.bars import Bar

VIT_PROMISED, ENCODER_PROMISED, LOSS_PROMISED = 2.5, {144: 1.25, 256: 1.7}, 0.02
DATA, SIZE, DROPOUT = ("SST-2", "FSDD"), 32, 0.1
TRAIN_STEPS, LEARNING_RATE = 250, 1e-3


def run(settings: Settings) -> Report:
    """The three parts."""
    report = Report("bf16", "Training steps in bfloat16")
    _vit(settings, report)
    _encoder(settings, report)
    _losses(settings, report)
    return report


def _vit(settings: Settings, report: Report) -> None:
    sizes, size = (QUICK_SIZES, 2) if settings.quick else (SIZES, 64)
    (batch,) = learnable.pictures(sizes["img_size"], 1, size, settings.seed)
    batch = Pictures(batch.values.to(settings.device), batch.labels.to(settings.device))

    def work(model: nn.Module, bf16: bool, compiled: bool = False) -> list[Work]:
        model = model.to(settings.device).train()
        called = torch.compile(model) if compiled else model

        def logits(pictures: Pictures) -> Tensor:
            out: Tensor = called(pictures.values)
            return out

        step = steps.trainer(model, logits, bf16, settings.device)
        return [lambda: step(batch)]

    contenders = {
        f"mmattn {precision}": work(seeded(VisionTransformer, **sizes), precision == "bf16")
        for precision in ("fp32", "bf16")
    }
    hows: tuple[How, ...] = ("sdpa", "plain")
    for precision, how in product(("fp32", "bf16"), hows):
        name = f"timm {precision} {how}"
        contenders[name] = work(seeded(vision_transformer, how, **sizes), precision == "bf16")
    if settings.compile and not settings.quick:
        compiled = work(seeded(vision_transformer, "plain", **sizes), True, compiled=True)
        try:
            with time_limit(2 * COMPILE_LIMIT):
                compiled[0]()
            contenders["timm bf16 plain compiled"] = compiled
        except (Exception, OutOfTime) as error:
            report.notes.append(
                f"- timm compiled left out, {type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
            )
    timings = settings.race(contenders, repeats=40, least=8, warmup=2)
    setting = (
        f"ViT, L={(sizes['img_size'] // sizes['patch_size']) ** 2 + 1}, D={sizes['embed_dim']}, batch {size}"
    )
    report.add(Race(setting, timings, "mmattn bf16"))
    compared = ratio(timings["timm fp32 sdpa"], timings["mmattn bf16"])
    bar = Bar(
        f"{setting}: timm fp32 eager / ours bf16", compared.of_medians, VIT_PROMISED, True, str(compared)
    )
    report.bars.append(bar)


def _encoder(settings: Settings, report: Report) -> None:
    promised = {8: 1.0} if settings.quick else ENCODER_PROMISED
    for embed_dim in (8,) if settings.quick else DIMS:
        ratios = []
        for name in DATA:
            timings = _encoder_race(name, embed_dim, settings)
            setting = f"encoder, {name}, batch {3 if settings.quick else SIZE}, D={embed_dim}"
            report.add(Race(setting, timings, "mmattn bf16"))
            compared = ratio(timings["mmattn fp32"], timings["mmattn bf16"])
            ratios.append(compared.of_medians)
            limit = promised[embed_dim]
            report.bars.append(Bar(f"{setting}: fp32 / bf16", ratios[-1], limit, True, str(compared)))
        mean = geometric_mean(ratios)
        report.bars.append(
            Bar(f"encoder, D={embed_dim}: fp32 / bf16, geometric mean", mean, promised[embed_dim])
        )


def _encoder_race(name: str, embed_dim: int, settings: Settings) -> dict[str, Timing]:
    size, count = (3, 2) if settings.quick else (SIZE, 8)
    groups = data.bucketed_batches(data.draw_lengths(name, size * data.POOL, settings.seed), size)
    batches = data.batches_of(
        data.spread(groups, count), embed_dim, steps.CLASSES, settings.seed, settings.device
    )
    contenders = {}
    for precision in ("fp32", "bf16"):
        step = steps.ours(embed_dim, DROPOUT, precision == "bf16", settings.seed, settings.device)
        contenders[f"mmattn {precision}"] = steps.items(step, batches)
    return settings.race(contenders, repeats=25, least=5)


def _losses(settings: Settings, report: Report) -> None:
    """Final losses from the same seed in both precisions."""
    count, size = (2, 3) if settings.quick else (TRAIN_STEPS, 32)
    sizes = QUICK_SIZES if settings.quick else SIZES
    held_out = 1 if settings.quick else 16

    def encoder(bf16: bool) -> float:
        embed_dim = 8 if settings.quick else 144
        train, test = (
            learnable.sequences("FSDD", embed_dim, n, size, settings.seed + seed)
            for n, seed in ((count, 1), (held_out, 2))
        )
        torch.manual_seed(settings.seed)
        model = steps.PackedClassifier(embed_dim, DROPOUT)
        return final_loss(model, lambda batch: _on(model, batch, settings), train, test, bf16, settings)

    def vit(bf16: bool) -> float:
        train, test = (
            learnable.pictures(sizes["img_size"], n, size, settings.seed + seed)
            for n, seed in ((count, 1), (held_out, 2))
        )
        model = seeded(VisionTransformer, seed=settings.seed, **sizes)
        return final_loss(
            model, lambda batch: model(batch.values.to(settings.device)), train, test, bf16, settings
        )

    for name, train_one in (("encoder", encoder), ("ViT", vit)):
        fp32, bf16 = train_one(False), train_one(True)
        report.facts[f"final loss, {name}"] = {"fp32": fp32, "bf16": bf16, "floor": learnable.floor()}
        note = f"{fp32:.4f} in fp32, {bf16:.4f} in bf16, {learnable.floor():.4f} at best, 2.3026 by chance"
        title = f"{name}: difference of the losses after {count} steps"
        report.bars.append(Bar(title, abs(bf16 / fp32 - 1), LOSS_PROMISED, False, note))


def _on(model: nn.Module, batch: Batch, settings: Settings) -> Tensor:
    moved = Batch(batch.values.to(settings.device), batch.lengths, batch.labels)
    logits: Tensor = model(moved)
    return logits


def final_loss(
    model: nn.Module,
    forward: Callable[[B], Tensor],
    train: Sequence[B],
    test: Sequence[B],
    bf16: bool,
    settings: Settings,
) -> float:
    """Train once over all batches; the mean loss on the test batches, in the same precision."""
    model.to(settings.device).train()
    step = steps.trainer(model, forward, bf16, settings.device, LEARNING_RATE)
    torch.manual_seed(settings.seed)
    for batch in train:
        step(batch)
    model.eval()
    with torch.no_grad(), steps.autocast(bf16, settings.device):
        losses = [F.cross_entropy(forward(batch).float(), batch.labels.to(settings.device)) for batch in test]
    return torch.stack(losses).mean().item()
