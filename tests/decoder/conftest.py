"""Decoders with random weights, their contexts, and decoding in steps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mmattn import Decoder, TokenBatch, build_decoder

B, N, D, H, D_CONTEXT = 3, 19, 42, 3, 13
OPTIONS = {
    "rotary": {},
    "sinusoidal": {"positions": "sinusoidal"},
    "grouped, normed": {"num_kv_heads": 1, "qk_norm": True, "positions": "none"},
    "window": {"window": 4},
    "cross": {"context": True, "context_dim": D_CONTEXT, "num_kv_heads": 1},
    "cross, window, sinusoidal": {
        "context": True, "context_dim": D_CONTEXT, "window": 4, "positions": "sinusoidal",
    },
}  # fmt: skip


@pytest.fixture(params=OPTIONS.values(), ids=OPTIONS.keys())
def options(request) -> dict:
    return request.param


@pytest.fixture(scope="session")
def make():
    return _make


def _make(**options) -> Decoder:
    decoder = build_decoder(D, depth=2, num_heads=H, **options)
    return _randomised(decoder)


@pytest.fixture(scope="session")
def randomised():
    return _randomised


def _randomised(module):
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
    return module


@pytest.fixture(scope="session")
def assert_close():
    return _assert_close


def _assert_close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="session")
def contexts():
    return _contexts


def _contexts(options, lengths=(7, 2, 5)) -> list[TokenBatch | torch.Tensor | None]:
    """Contexts of B sequences that a decoder with these options takes: packed and dense, or none."""
    if not options.get("context"):
        return [None]
    return [TokenBatch(torch.randn(sum(lengths), D_CONTEXT), lengths), torch.randn(B, 7, D_CONTEXT)]


@pytest.fixture(scope="session")
def decode():
    return _decode


def _decode(decoder: Decoder, x: torch.Tensor, state, steps) -> torch.Tensor:
    """All of ``x [B, N, D]`` in steps of so many tokens, over and over."""
    outs, begin = [], 0
    with torch.no_grad():
        while begin < x.shape[1]:
            for step in steps:
                if begin < x.shape[1]:
                    outs.append(decoder.step(x[:, begin : begin + step], state))
                begin += step
    return torch.cat(outs, 1)
