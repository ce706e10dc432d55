"""Words at hidden places of a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from mmattn.adapters import TextTokens
from mmattn.inference import dense, examples
from mmattn.inference.dense import NotDense
from mmattn.inference.inputs import Inputs
from mmattn.inference.kind import Kind
from mmattn.inference.looking import Look, look_of_layer
from mmattn.inference.program import Program, trace


class LanguageKind(Kind):
    """A :class:`~mmattn.language.MaskedLanguageModel`; fills what is hidden in a text."""

    name = "masked language"

    def predict(
        self, model: Any, items: Sequence[Any], outputs: Mapping[str, Any], top: int
    ) -> list[dict[str, Any]]:
        return [self._filled(model, text, outputs["symbol"], top) for text in items]

    def _filled(self, model: Any, text: str, symbol: str, top: int) -> dict[str, Any]:
        if symbol not in text:
            return {"text": text, "fills": []}
        filled, fills = text, []
        for guesses in model.fill(text, min(top, model.vocabulary.size), symbol):
            filled = filled.replace(symbol, guesses[0].text.strip(), 1)
            fills.append([{"text": word, "probability": round(share, 6)} for word, share in guesses])
        return {"text": filled, "fills": fills}

    def look(self, model: Any, item: Any, outputs: Mapping[str, Any]) -> Look:
        """By the last layer, from the hidden places alone where there are any."""
        symbol = outputs["symbol"]
        regions, hidden = regions_around(model.adapter, item, symbol)
        if not bool(hidden.any()):
            return look_of_layer(model, lambda: model([item]), regions, "encoder.")
        return look_of_layer(model, lambda: model.fill(item, 1, symbol), regions, "encoder.", hidden)

    def program(self, model: Any, inputs: Inputs, outputs: Mapping[str, Any]) -> Program:
        if not isinstance(model.adapter, TextTokens):
            raise NotDense(
                f"a program that fills takes ids: got {type(model.adapter).__name__}, which has none"
            )
        example, front = examples.example(model.adapter, inputs), dense.front(model.adapter)
        twin = DenseLanguage(model, dense.encoder(model.encoder, front, example.x, example.one_size))

        def logits(texts: Any) -> Tensor:
            return cast(Tensor, model(texts).unflatten(0, (len(texts), -1)))

        size = model.vocabulary.size
        says = f"{example.says}; {size} = hidden"
        return trace(twin, logits, example._replace(says=says), f"logits [batch, tokens, {size}]")


class DenseLanguage(nn.Module):
    """Ids ``[B, N]``, V where a token is hidden, -> logits ``[B, N, V]``.

    Args:
        model: over :class:`~mmattn.TextTokens`.
        encoder: its dense twin.
    """

    def __init__(self, model: Any, encoder: nn.Module) -> None:
        super().__init__()
        self.embedding = model.adapter.embedding
        self.mask = model.mask
        self.encoder = encoder
        self.head = model.head

    def forward(self, ids: Tensor) -> Tensor:
        """Logits, in float32."""
        count = self.embedding.num_embeddings
        hidden = (ids == count)[..., None]
        tokens = torch.where(hidden, self.mask, self.embedding(ids.clamp(max=count - 1)))
        logits: Tensor = self.head(self.encoder(tokens, None), self.embedding.weight)
        return logits.float()


def regions_around(adapter: Any, text: str, symbol: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the tokens of a text lie of which some are hidden, ``[n, 2]``, and which of them are hidden, ``[n]``.

    Example:
        >>> from mmattn import TextTokens
        >>> regions_around(TextTokens(8), "a __ b", "__")
        (tensor([[0, 1], [2, 4], [4, 5], [5, 6]]), tensor([False,  True, False, False]))
    """
    rows: list[torch.Tensor] = []
    hidden: list[bool] = []
    begin = 0
    *before, last = text.split(symbol)
    for part in before:
        found = adapter.regions([part.rstrip()])[0] + begin
        begin += len(part)
        rows += [found, torch.tensor([[begin, begin + len(symbol)]])]
        hidden += [False] * len(found) + [True]
        begin += len(symbol)
    found = adapter.regions([last])[0] + begin
    return torch.cat([*rows, found]), torch.tensor(hidden + [False] * len(found))
