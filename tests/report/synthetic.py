"""Made-up runs for tests of the report: nothing here was measured."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from mmattn.report.measures import HeadMeasure, Measures
from mmattn.report.records import DataRecord, RunRecord

DOMAINS = ("vision", "speech", "text")
TRAINED = ("attention", "uniform", "convolution", "mlp", "heads_1", "heads_2", "heads_8", "deep_1")
CONTROLS = ("linear", "majority")
LEVELS = ("0", "2", "4", "6")
HEADS = {"attention": 4, "heads_1": 1, "heads_2": 2, "heads_8": 8, "deep_1": 1, "uniform": 4}

#: Accuracy without distractors, and what is left of it among the most of them.
STRENGTH = {
    "attention": (0.97, 0.93), "uniform": (0.93, 0.62), "convolution": (0.95, 0.74), "mlp": (0.9, 0.58),
    "heads_1": (0.965, 0.915), "heads_2": (0.968, 0.925), "heads_8": (0.97, 0.93), "deep_1": (0.965, 0.91),
    "linear": (0.8, 0.45), "majority": (0.12, 0.12),
}  # fmt: skip
TAXES = {"vision": 0.0, "speech": 0.05, "text": 0.08}


def _rng(*parts: object) -> np.random.Generator:
    text = "/".join(map(str, parts))
    return np.random.default_rng(list(text.encode()))


def _correct(domain: str, arm: str, seed: int, n_test: int) -> dict[str, str]:
    """Answers one by one: an example has its own difficulty, which all arms and seeds share."""
    plain, crowded = STRENGTH[arm]
    out = {}
    for index, level in enumerate(LEVELS):
        hard = _rng(domain, level).normal(size=n_test)
        rng = _rng(domain, arm, seed, level)
        share = index / (len(LEVELS) - 1)
        top = plain + (crowded - plain) * share - TAXES[domain] * share + rng.normal(0, 0.008)
        top = min(0.995, max(0.02, top))
        # the share that falls below the threshold of a sum of two normals is the accuracy
        threshold = math.sqrt(2) * _quantile(top)
        out[level] = "".join(
            "1" if h + e < threshold else "0" for h, e in zip(hard, rng.normal(size=n_test), strict=True)
        )
    return out


def _quantile(share: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(share)


def _decay(rate: float, start: float, floor: float = 0.1) -> list[list[float]]:
    return [
        [round(x, 3), round(floor + (start - floor) * math.exp(-rate * x), 4)] for x in np.linspace(0, 1, 11)
    ]


def _area(curve: list[list[float]]) -> float:
    return float(np.mean([y for _, y in curve]))


def _pruning(bend: float, start: float, heads: int) -> list[list[float]]:
    return [
        [round(k / heads, 3), round(start - (start - 0.15) * (k / heads) ** bend, 4)]
        for k in range(heads + 1)
    ]


def _heads(rng: np.random.Generator, count: int, top: float) -> list[HeadMeasure]:
    return [
        HeadMeasure(
            f"trunk.blocks.{layer}.attention",
            head,
            removed=round(top - abs(float(rng.normal(0, 0.02))), 4),
            alone=round(top - 0.15 + float(rng.normal(0, 0.05)), 4),
            importance=round(abs(float(rng.normal(0.02, 0.01))), 5),
        )
        for layer in range(3)
        for head in range(count)
    ]


def measures(domain: str, arm: str, seed: int, n_test: int = 400) -> Measures:
    """Made-up measures of one run."""
    correct = _correct(domain, arm, seed, n_test)
    rng = _rng(domain, arm, seed)
    top = correct[LEVELS[-1]].count("1") / n_test
    values: dict[str, float | None] = {}
    curves = {
        "accuracy/share": [
            [round(int(level) / (int(level) + 1), 3), answers.count("1") / n_test]
            for level, answers in correct.items()
        ]
    }
    heads: list[HeadMeasure] = []
    matrices: dict[str, list[list[float]]] = {}
    if arm in HEADS or arm in ("convolution", "mlp"):
        rates = {"attention": 5.0, "gradient": 4.0, "random": 1.6}
        if arm not in ("attention", "heads_1", "heads_2", "heads_8", "deep_1"):
            rates.pop("attention")
        for name, rate in rates.items():
            curves[f"deletion/{name}"] = _decay(rate + rng.normal(0, 0.2), top)
            values[f"deletion/{name}"] = _area(curves[f"deletion/{name}"])
    if arm in HEADS and arm != "uniform":
        share = 0.14
        ratio = 1.9 + rng.normal(0, 0.12) - 4 * TAXES[domain]
        values |= {
            "focus/mass": share * 2**ratio,
            "focus/share": share,
            "focus/log_ratio": ratio,
            "focus_untrained/log_ratio": rng.normal(0, 0.05),
        }
        if HEADS[arm] > 1:
            heads = _heads(rng, HEADS[arm], top)
            values |= {
                "heads/js": 0.31 + rng.normal(0, 0.02),
                "heads_untrained/js": 0.08 + rng.normal(0, 0.005),
                "heads/cka": 0.42 + rng.normal(0, 0.03),
                "heads/all": top,
                "heads/none": 0.3 + rng.normal(0, 0.02),
                "heads/best_alone": max(h.alone or 0 for h in heads),
                "heads/mean_alone": float(np.mean([h.alone or 0 for h in heads])),
                "heads/pair_gain": -0.012 + rng.normal(0, 0.01) + (0.03 if domain == "vision" else 0),
            }
            for name, bend in (("importance", 3.2), ("random", 1.7)):
                curves[f"pruning/{name}"] = _pruning(bend + rng.normal(0, 0.1), top, 3 * HEADS[arm])
                values[f"pruning/{name}"] = _area(curves[f"pruning/{name}"])
            for layer in range(3):
                table = np.clip(0.3 + rng.normal(0, 0.12, (HEADS[arm],) * 2), 0.02, 0.95)
                table = (table + table.T) / 2
                np.fill_diagonal(table, 0)
                for kind, matrix in (("js", table), ("cka", 1 - table)):
                    matrices[f"heads/{kind}/trunk.blocks.{layer}.attention"] = matrix.round(4).tolist()
    return Measures(
        domain=domain, arm=arm, seed=seed, test=f"made-up-{domain}", correct=correct, standard=LEVELS[-1],
        values=values, curves=curves, heads=heads, matrices=matrices,
    )  # fmt: skip


#: Accuracy of each kind of trunk among distractors.
TRUNKS = {"joint": 0.9, "separate": 0.905, "third": 0.85}


def joint(kind: str, sense: str, seed: int, n_test: int = 400) -> Measures:
    """Made-up answers of one trunk for all senses, or of one for a sense."""
    correct = {}
    for name in (sense,) if sense else DOMAINS:
        hard = _rng("joint", name).normal(size=n_test)
        own = _rng("joint", kind, name, seed)
        threshold = math.sqrt(2) * _quantile(TRUNKS[kind] + float(own.normal(0, 0.004)))
        correct[name] = "".join("1" if h + e < threshold else "0"
                                for h, e in zip(hard, own.normal(size=n_test), strict=True))  # fmt: skip
    arm = f"{kind}_{sense}" if sense else kind
    return Measures(
        "joint", arm, seed, test=" ".join(f"{name}=made-up-{name}" for name in correct), correct=correct,
        standard=next(iter(correct)), values={"trunk/parameters": 90_000.0},
    )  # fmt: skip


def joints(seed: int, n_test: int) -> list[Measures]:
    """All joint runs of a seed."""
    senses = [(kind, sense) for kind in ("separate", "third") for sense in DOMAINS]
    return [joint(kind, sense, seed, n_test) for kind, sense in [("joint", ""), *senses]]


def speed(rounds: int = 9) -> Measures:
    """Made-up timings in seconds."""
    rng = _rng("speed")
    repeats = {}
    for length in (64, 128, 256, 512, 1024):
        base = {
            "fused": 2e-6 * length + 1e-9 * length**2,
            "loop": 4.2e-6 * length + 2e-9 * length**2 + 6e-4,
            "attention": 9e-6 * length + 6e-9 * length**2,
            "lstm": 4e-5 * length,
            "gru": 3.4e-5 * length,
        }
        for mode, factor in (("train", 3.0), ("infer", 1.0)):
            for what, seconds in base.items():
                noisy = seconds * factor * np.exp(rng.normal(0, 0.05, rounds))
                repeats[f"{what}/{mode}/{length}"] = [float(f"{value:.5g}") for value in noisy]
        for threads in (1, 2):
            noisy = base["attention"] * 3 / threads**0.8 * np.exp(rng.normal(0, 0.05, rounds))
            repeats[f"attention_threads{threads}/train/{length}"] = [float(f"{value:.5g}") for value in noisy]
    return Measures("speed", "speed", 0, repeats=repeats, environment={"cpu": "Example CPU", "threads": "2"})


def record(domain: str, arm: str, seed: int, accuracy: float, torch: str = "2.11.0") -> RunRecord:
    """A made-up record that ends at ``accuracy``."""
    rng = _rng("record", domain, arm, seed)
    epochs: list[dict[str, float | None]] = []
    for epoch in range(12):
        grown = 1 - math.exp(-(epoch + 1) / 3)
        epochs.append(
            {
                "epoch": epoch + 1,
                "train_loss": round(2.2 - 2.0 * accuracy * grown, 4),
                "val_loss": round(2.3 - 2.0 * accuracy * grown + abs(float(rng.normal(0, 0.02))), 4),
                "val_accuracy": round(0.1 + (accuracy - 0.1) * grown + float(rng.normal(0, 0.01)), 4),
            }
        )
    return RunRecord(
        name=f"{domain} {arm}",
        domain=domain,  # type: ignore[arg-type]
        arm=arm,
        seed=seed,
        config={"model": {"embed_dim": 64}, "optimizer": {"lr": 1e-3}},
        versions={"python": "3.11.7", "torch": torch, "mmattn": "0.0.0"},
        environment={"cpu": "Example CPU", "threads": 1, "platform": "Linux"},
        data=DataRecord(
            name=f"made-up {domain}",
            synthetic=domain == "speech",
            fingerprint={"train": "0123456789abcdef0123", "test": "fedcba98765432100123"},
            description=f"Invented scenes of {domain} for a test of the report.",
            counts={"train": 4000, "val": 500, "test": 400},
        ),
        epochs=epochs,
        metrics={"test/accuracy": accuracy},
        parameters=412_345 - 17 * len(arm),
        flops_per_example=31.4e6,
        samples_per_second=812.4,
        peak_memory_bytes=734_003_200,
        wall_seconds=round(40 + 10 * float(rng.random()), 3),
        git_commit="4f2a9c1d0b7e4f2a9c1d0b7e4f2a9c1d0b7e4f2a",
        started=f"2026-01-0{seed % 9 + 1}T03:04:05+00:00",
    )


def write_runs(
    folder: Path,
    seeds: int = 3,
    arms: tuple[str, ...] = (*TRAINED, *CONTROLS),
    domains: tuple[str, ...] = DOMAINS,
    n_test: int = 400,
) -> Path:
    """A whole made-up grid below ``folder``, as ``python -m tasks.compare run`` leaves it."""
    for domain in domains:
        for arm in arms:
            for seed in range(seeds):
                place = folder / f"{domain}-{arm}-{seed}"
                made = measures(domain, arm, seed, n_test)
                made.save(place / "measures.json")
                if arm not in CONTROLS:
                    accuracy = made.correct[made.standard].count("1") / n_test
                    record(domain, arm, seed, accuracy).save(place / "record.json")
    for made in [each for seed in range(seeds) for each in joints(seed, n_test)]:
        place = folder / f"joint-{made.arm}-{made.seed}"
        made.save(place / "measures.json")
        record("joint", made.arm, made.seed, 0.9).save(place / "record.json")
    speed().save(folder / "speed-speed-0" / "measures.json")
    return folder
