"""A sample's logits are the same alone and inside any batch, in every domain."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmattn import AudioFrames, ImagePatches, TextNgrams, TextTokens, build_classifier, build_encoder

D, H, C = 36, 3, 7


def random_picture() -> Tensor:
    height, width = torch.randint(3, 40, (2,)).tolist()
    return torch.randn(3, height, width)


def random_wave() -> Tensor:
    return torch.randn(int(torch.randint(1, 4000, ()))) * torch.rand(()).clamp(min=0.01)


def random_text() -> str:
    return "".join(chr(code) for code in torch.randint(32, 1200, (int(torch.randint(1, 60, ())),)).tolist())


def audio(**options: Any) -> AudioFrames:
    pytest.importorskip("torchaudio")
    return AudioFrames(D, sample_rate=4000, n_mels=13, **options)


DOMAINS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any]]] = {
    "pictures": (lambda: ImagePatches(D, patch_size=4), random_picture),
    "pictures, conv": (lambda: ImagePatches(D, patch_size=8, stem="conv"), random_picture),
    "speech": (audio, random_wave),
    "speech, patches": (lambda: audio(stem="patch", subsampling=3), random_wave),
    "text": (lambda: TextTokens(D, max_length=41), random_text),
    "text, n-grams": (lambda: TextNgrams(D, buckets=997), random_text),
}


def make_model(adapter: nn.Module, pool: str) -> Callable[[list[Any]], Tensor]:
    encoder, head = build_encoder(D, 2, H, qk_norm=True), build_classifier(D, C, pool=pool, num_heads=H)
    nn.init.normal_(head.linear.weight)  # a fresh head's logits are near zero, where all things agree
    return lambda items: head(encoder(adapter(items)))


@pytest.mark.parametrize("pool", ["attention", "mean"])
@pytest.mark.parametrize("domain", DOMAINS)
def test_logits_alone_and_in_any_batch(domain, pool):
    make_adapter, make_item = DOMAINS[domain]
    model = make_model(make_adapter(), pool)
    with torch.no_grad():
        for _ in range(5):
            items = [make_item() for _ in range(5)]
            alone = torch.cat([model([item]) for item in items])
            assert alone.std(0).max() > 1e-3  # the samples do differ
            for order in ([0, 1, 2, 3, 4], [3, 0], [2, 2, 4, 1, 2]):
                together = model([items[i] for i in order])
                torch.testing.assert_close(together, alone[order], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("domain", DOMAINS)
def test_gradients_of_one_sample_do_not_reach_another(domain):
    make_adapter, make_item = DOMAINS[domain]
    adapter = make_adapter()
    encoder = build_encoder(D, 2, H)
    tokens = adapter([make_item() for _ in range(3)])
    values = tokens.values.detach().requires_grad_()
    out = encoder(tokens.replace(values)).split()[1].values.square().sum()
    out.backward()
    touched = values.grad.abs().amax(1) > 0
    assert tokens.segment_ids[touched].unique().tolist() == [1]
