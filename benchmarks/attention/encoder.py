"""Training steps of a 4-block encoder against what users run: random padded batches in fp32, eager."""

from __future__ import annotations

from benchmarks.attention import data, steps
from benchmarks.attention.peers import ENCODERS
from benchmarks.attention.settings import Race, Report, Settings
from benchmarks.attention.timing import Timing, ratio
from benchmarks.bars import Bar

DIMS, SIZES, DROPOUT, PROMISED = (144, 256), (32, 64), 0.1, 3.0

#: Batches timed of a pool of ``data.POOL``: the long ones are few, for their sum varies little.
COUNTS = {"SST-2": 8, "FSDD": 8, "connected digits": 2, "Multi30k": 8}


def run(settings: Settings) -> Report:
    """Ours against the fastest peer on lengths of four data sets."""
    report = Report(
        "encoder", "Training step of a 4-block encoder against what users run: µs for each real token"
    )
    for embed_dim in (8,) if settings.quick else DIMS:
        for name in ["SST-2"] if settings.quick else data.LENGTHS:
            for size in (3,) if settings.quick else SIZES:
                setting = f"{name}, batch {size}, D={embed_dim}"
                if not settings.wants(setting):
                    continue
                timings, padding = measure(name, size, embed_dim, settings)
                peer, mine = steps.nearest(timings)
                compared = ratio(timings[peer], timings[mine])
                report.add(Race(f"{setting} ({padding:.0%} padding)", timings, mine, ("µs", 1e-6)))
                note = f"{mine} against {peer}; {compared}"
                report.bars.append(
                    Bar(f"{setting}: what users run / ours", compared.of_medians, PROMISED, True, note)
                )
    return report


def measure(name: str, size: int, embed_dim: int, settings: Settings) -> tuple[dict[str, Timing], float]:
    """Timings for each real token of a training step of every contender, and the share of padding of the peers.

    Random and bucketed batches are cut from the same sequences. Where not all are timed, the bucketed ones are
    every n-th by size; tokens differ a little then, hence the times for each token.
    """
    lengths = data.draw_lengths(name, size * data.POOL, settings.seed)
    count = 2 if settings.quick else COUNTS[name]
    cuts = {
        "random": data.random_batches(lengths, size)[:count],
        "bucketed": data.spread(data.bucketed_batches(lengths, size), count),
    }
    batches = {
        cut: data.batches_of(groups, embed_dim, steps.CLASSES, settings.seed, settings.device)
        for cut, groups in cuts.items()
    }
    options = {"seed": settings.seed, "device": settings.device}
    contenders, tokens = {}, {}
    for peer in ENCODERS:
        step = steps.peer(peer, embed_dim, DROPOUT, **options)  # type: ignore[arg-type]  # options are mixed
        contenders[peer], tokens[peer] = steps.items(step, batches["random"]), data.tokens(batches["random"])
    for cut in cuts:
        made = steps.ours_in_all_precisions(embed_dim, DROPOUT, settings.seed, settings.device)
        for name_, step in made.items():
            key = f"{name_}, {cut}"
            contenders[key], tokens[key] = steps.items(step, batches[cut]), data.tokens(batches[cut])
    timings = settings.race(contenders, repeats=12)
    padding = sum(batch.padding for batch in batches["random"]) / count
    return {key: timing.divided(tokens[key]) for key, timing in timings.items()}, padding
