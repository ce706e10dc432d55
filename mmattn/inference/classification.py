"""Classes of pictures, sounds and texts."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from mmattn.encoder import Encoder
from mmattn.tokens import TokenBatch


class Classification(nn.Module):
    """Adapter, encoder and head: what a classification task trains, without what trained it.

    Args:
        adapter: raw items -> tokens.
        encoder: tokens -> tokens.
        head: tokens -> logits.

    Raises:
        ValueError: the widths of adapter and encoder differ.

    Example:
        >>> from mmattn import TextTokens, build_classifier, build_encoder
        >>> model = Classification(TextTokens(8), build_encoder(8, 1, 2), build_classifier(8, 3))
        >>> model(["one", "two words"]).shape
        torch.Size([2, 3])
    """

    def __init__(self, adapter: nn.Module, encoder: Encoder, head: nn.Module) -> None:
        super().__init__()
        if adapter.embed_dim != encoder.embed_dim:
            raise ValueError(
                f"adapter and encoder must have the same embed_dim: "
                f"got {adapter.embed_dim} and {encoder.embed_dim}"
            )
        self.adapter = adapter
        self.encoder = encoder
        self.head = head

    def forward(self, items: Any) -> Tensor:
        """Logits ``[B, C]`` of raw items, in float32."""
        logits: Tensor = self.head(cast(TokenBatch, self.encoder(self.adapter(items))))
        return logits.float()
