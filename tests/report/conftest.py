"""A made-up report for tests: every number, picture and sentence here is invented and measures nothing."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from mmattn.report import (
    ATTENTION,
    LINEAR,
    MAJORITY,
    UNIFORM,
    AttentionExample,
    AttentionLayer,
    DataRecord,
    DomainReport,
    Picture,
    ReportInput,
    ResultRow,
    RunRecord,
    Sentence,
    Spectrogram,
)

NASTY = "<script>alert('x')</script>"


def layers(
    rng: random.Random, relevant: list[bool], names: list[str], heads: int = 4
) -> list[AttentionLayer]:
    """Layers whose heads lean more on the relevant tokens the deeper they lie."""
    out = []
    for depth, name in enumerate(names):
        weights, masses = [], []
        for head in range(heads):
            pull = 1.2 * depth * (1 if head else 0)
            raw = [math.exp(rng.gauss(0, 0.7) + pull * flag) for flag in relevant]
            row = [value / sum(raw) for value in raw]
            weights.append(row)
            masses.append(sum(weight for weight, flag in zip(row, relevant, strict=True) if flag))
        out.append(AttentionLayer(name, weights, masses))
    return out


NAMES = ["block 1, mean over queries", "block 2, mean over queries", "pooling query"]


def vision(rng: random.Random, predicted: str) -> AttentionExample:
    """A picture 32 x 56 with a ring as the thing to find, in 4 x 4 tokens."""
    height, width, size = 32, 56, 4
    top, left = 4 * rng.randrange(1, 4), 4 * rng.randrange(2, 8)
    pixels = []
    for row in range(height):
        line = []
        for col in range(width):
            ring = abs(math.hypot(row - top - 7.5, col - left - 7.5) - 5) < 1.5
            line.append(round(min(1.0, 0.15 * rng.random() + 0.8 * ring + 0.5 * (rng.random() > 0.97)), 3))
        pixels.append(line)
    tokens = [(float(r), float(c), 4.0, 4.0) for r in range(0, height, size) for c in range(0, width, size)]
    flags = [top <= r < top + 16 and left <= c < left + 16 for r, c, _, _ in tokens]
    picture = Picture(pixels, tokens, [(float(top), float(left), 16.0, 16.0)])
    share = sum(flags) / len(flags)
    return AttentionExample(
        "vision", "ring", predicted, 0.913, picture, layers(rng, flags, NAMES, 6), share, "Invented."
    )


def speech(rng: random.Random) -> AttentionExample:
    """A spectrogram of 2.4 s with one loud second, in tokens of 40 ms."""
    frames, mels, seconds = 160, 40, 2.4
    start, stop = 0.8, 1.6
    log_mel = [
        [
            round(
                rng.gauss(-6, 0.6)
                + 5
                * (start <= f * seconds / frames < stop)
                * math.exp(-(((m - 12 - 4 * math.sin(f / 9)) / 3) ** 2)),
                3,
            )
            for f in range(frames)
        ]
        for m in range(mels)
    ]
    tokens = [(round(0.04 * i, 2), round(0.04 * (i + 1), 2)) for i in range(60)]
    flags = [start <= a < stop for a, _ in tokens]
    share = sum(flags) / len(flags)
    return AttentionExample(
        "speech",
        "seven",
        "seven",
        0.874,
        Spectrogram(log_mel, seconds, tokens, [(start, stop)]),
        layers(rng, flags, NAMES),
        share,
    )


def text(
    rng: random.Random, words: list[str], relevant: set[int], label: str, joiner: str = " "
) -> AttentionExample:
    """A sentence whose tokens ``relevant`` decide."""
    flags = [index in relevant for index in range(len(words))]
    sentence = Sentence(words, flags, joiner)
    share = sum(flags) / len(flags)
    return AttentionExample("text", label, label, 0.66, sentence, layers(rng, flags, NAMES, 3), share)


def run(domain: str, arm: str, top: float, seed: int = 0) -> RunRecord:
    """A made-up run of 12 epochs that ends near accuracy ``top``."""
    rng = random.Random(f"{domain}{arm}{seed}")
    epochs: list[dict[str, float | None]] = []
    for epoch in range(12):
        grown = 1 - math.exp(-(epoch + 1) / 3)
        accuracy = min(1.0, 0.1 + (top - 0.1) * grown + rng.gauss(0, 0.008))
        loss = 2.3 - 2.2 * top * grown
        epochs.append(
            {
                "epoch": epoch + 1,
                "train_loss": loss * 0.92,
                "val_loss": loss + abs(rng.gauss(0, 0.02)),
                "val_accuracy": accuracy,
            }
        )
    return RunRecord(
        name=f"{domain}-{arm}-{seed}",
        domain=domain,  # type: ignore[arg-type]
        arm=arm,
        seed=seed,
        config={"model": {"embed_dim": 64, "num_heads": 4}, "lr": 1e-3},
        versions={"python": "3.11.7", "torch": "2.11.0", "mmattn": "0.0.0"},
        environment={"cpu": "Example CPU", "threads": 2, "platform": "Linux"},
        data=DataRecord(
            name=f"made-up {domain}",
            synthetic=domain == "vision",
            fingerprint={"train": "0123456789abcdef0123", "test": "fedcba98765432100123"},
            description="Invented for a test of the report.",
            counts={"train": 4000, "val": 500, "test": 1000},
        ),
        epochs=epochs,
        metrics={"test_plain/accuracy": min(1.0, top + 0.05), "test/accuracy": top},
        parameters=412_345 if arm == "attention" else 395_900,
        flops_per_example=31.4e6 if arm == "attention" else None,
        samples_per_second=812.4,
        peak_memory_bytes=734_003_200,
        wall_seconds=245.0,
        git_commit="4f2a9c1d0b7e4f2a9c1d0b7e4f2a9c1d0b7e4f2a",
        started="2026-01-02T03:04:05+00:00",
    )


def rows(attention: float, uniform: float, linear: float, n_test: int = 1000) -> list[ResultRow]:
    """Four rows; the numbers at the standard level are given."""
    return [
        ResultRow(ATTENTION, "model", min(1.0, attention + 0.05), attention, n_test, arm="attention"),
        ResultRow(UNIFORM, "control", min(1.0, uniform + 0.05), uniform, n_test, arm="uniform"),
        ResultRow(LINEAR, "control", linear + 0.1, linear, n_test, parameters=40_970, seconds=3.2),
        ResultRow(MAJORITY, "control", 0.1, 0.1, n_test),
    ]


def demo(seed: int = 7) -> ReportInput:
    """The whole made-up input: aims met, overlapping and missed; scripts of both directions."""
    rng = random.Random(seed)
    arabic = list("هذا الفيلم رائع حقا".encode())
    arabic_bytes = [bytes([byte]).decode(errors="surrogateescape") for byte in arabic]
    texts = [
        text(
            rng,
            ["the", "plot", "is", "thin", ",", "yet", "the", "acting", "is", "wonderful", NASTY, "&", "true"],
            {9},
            "positive",
        ),
        text(rng, ["הסרט", "הזה", "היה", "נפלא", "ואהבתי", "כל", "רגע"], {3, 4}, "חיובי"),
        text(rng, arabic_bytes, set(range(20, 28)), "positive", ""),
        text(rng, list("这部电影的剧情很精彩。演员也非常出色。"), {8, 9, 10}, "正面", ""),
        text(
            rng,
            ["▁An", "▁un", "for", "get", "table", "▁fil", "m", "\n", "▁Twice", "##!"],
            {2, 3, 4},
            "positive",
            "",
        ),
    ]
    scores = {"vision": (0.912, 0.412, 0.311), "speech": (0.742, 0.628, 0.401), "text": (0.803, 0.769, 0.812)}
    examples = {
        "vision": [vision(rng, "ring"), vision(rng, "cross")],
        "speech": [speech(rng), speech(rng)],
        "text": texts,
    }
    titles = {"vision": "Pictures", "speech": "Speech", "text": "Text"}
    domains = [
        DomainReport(
            domain=domain,
            title=titles[domain],
            description="An invented task for a test of the report: find what matters among distraction.",
            synthetic=domain == "vision",
            metric="accuracy",
            standard_level="level 2, two distractors",
            rows=rows(*scores[domain]),
            runs=[run(domain, "attention", scores[domain][0]), run(domain, "uniform", scores[domain][1])],
            examples=examples[domain],
        )
        for domain in ("vision", "speech", "text")
    ]
    summary = "This report is a test fixture: none of its numbers was measured."
    return ReportInput(
        "Multi-head attention: made-up report", summary, "python -m tasks.compare --seed 0", domains
    )


@pytest.fixture(scope="session")
def made_up() -> ReportInput:
    """The made-up input; frozen, so one for all tests."""
    return demo()


@pytest.fixture(scope="session")
def made_up_run() -> Callable[..., RunRecord]:
    """``(domain, arm, top, seed=0)`` to a made-up run record."""
    return run


@pytest.fixture(scope="session")
def made_up_rows() -> Callable[..., list[ResultRow]]:
    """``(attention, uniform, linear, n_test=1000)`` to four result rows."""
    return rows
