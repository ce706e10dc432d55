"""AudioFrames in front of torch.nn.TransformerEncoder: packed log-mel frames, padded where the host insists on it.

python examples/audio_into_torch_nn.py
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmattn import AudioFrames, TokenBatch


class Spotter(nn.Module):
    """Waves of any lengths to class logits ``[B, num_classes]``."""

    def __init__(self, num_classes: int, embed_dim: int = 64) -> None:
        super().__init__()
        self.frames = AudioFrames(embed_dim, sample_rate=8000)
        layer = nn.TransformerEncoderLayer(embed_dim, nhead=4, dim_feedforward=128, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
        self.classify = nn.Linear(embed_dim, num_classes)

    def forward(self, waves: list[Tensor]) -> Tensor:
        tokens = self.frames(waves)
        padded, real = tokens.to_padded()  # [B, N, D], and True where there is a token
        out = self.encoder(padded, src_key_padding_mask=~real)  # torch.nn: True = ignore
        packed = TokenBatch.from_padded(out, tokens.lengths)
        return torch.stack([self.classify(one.values.mean(0)) for one in packed.split()])


def main() -> Tensor:
    torch.manual_seed(0)
    model = Spotter(num_classes=10).eval()
    waves = [torch.randn(8000), torch.randn(5000), torch.randn(2600)]
    with torch.no_grad():
        together, alone = model(waves), torch.cat([model([wave]) for wave in waves])
    print(f"three waves together and alone: largest difference {(together - alone).abs().max():.1e}")
    return together - alone


if __name__ == "__main__":
    main()
