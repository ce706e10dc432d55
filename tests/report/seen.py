"""Made-up explorations for tests of the page."""

from __future__ import annotations

import torch

from mmattn.explore import Exploration, Layer
from mmattn.explore.packing import Domain, packed_weights

_PIXEL = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)


def exploration(domain: Domain, tokens: int, seed: int = 0) -> Exploration:
    """A scene of ``tokens`` tokens (a square number for pictures), seen by one block of two heads."""
    noise = torch.rand(2, tokens, tokens, generator=torch.Generator().manual_seed(seed))
    weights = noise / noise.sum(-1, keepdim=True)
    side = round(tokens**0.5)
    picture = domain == "vision"
    places = [
        [4 * (i // side), 4 * (i % side), 4 * (i // side) + 4, 4 * (i % side) + 4] for i in range(tokens)
    ]
    return Exploration(
        domain,
        f"Scene of {domain}",
        [f"patch {i + 1}" if picture else f"word{i} " for i in range(tokens)],
        [[float(end) for end in place] for place in places] if picture else [[] for _ in range(tokens)],
        [Layer("blocks.0", "block 1", (2, tokens, tokens), packed_weights(weights))],
        relevant=[i < 3 for i in range(tokens)],
        image=_PIXEL if picture else "",
        size=(4.0 * side, 4.0 * side) if picture else (0.0, 0.0),
    )
