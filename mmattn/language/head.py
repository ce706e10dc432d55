"""The head that scores a vocabulary."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LanguageHead(nn.Module):
    """Transform, norm, and the product with an output matrix that is tied to the embeddings (Devlin et al. 2019).

    Args:
        embed_dim: width D.
        vocab_size: number of ids V.

    Example:
        >>> LanguageHead(8, vocab_size=5)(torch.randn(3, 8), torch.randn(5, 8)).shape
        torch.Size([3, 5])
    """

    def __init__(self, embed_dim: int, vocab_size: int) -> None:
        super().__init__()
        self.transform = nn.Linear(embed_dim, embed_dim)
        self.activation = nn.GELU()
        self.norm = nn.LayerNorm(embed_dim)
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, hidden: Tensor, output: Tensor) -> Tensor:
        """Logits ``[P, V]`` of tokens ``[P, D]`` with the output matrix ``[V, D]``."""
        return nn.functional.linear(self.norm(self.activation(self.transform(hidden))), output, self.bias)
