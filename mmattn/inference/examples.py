"""What dense twins are traced and checked with."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmattn.adapters import AudioFrames, ImagePatches, TextNgrams, TextTokens
from mmattn.inference.dense import NotDense
from mmattn.inference.inputs import Inputs, Pictures

#: A text for tracing; what it says does not matter.
_TEXT = "A few words to trace."


class Example(NamedTuple):
    """What a dense twin is traced and checked with.

    Attributes:
        items: two raw items of one size, for the model itself.
        x: the same for its twin.
        sizes: the axes of ``x`` that may have another length in a program, as ``dynamic_shapes`` takes them.
        says: what ``x`` is, for the reader of a configuration.
    """

    items: Any
    x: Tensor
    sizes: dict[int, Any]
    says: str

    @property
    def one_size(self) -> bool:
        """Whether all but the number of items is fixed."""
        return len(self.sizes) == 1


def example(adapter: nn.Module, inputs: Inputs) -> Example:
    """Two items of one size, drawn at random, but for texts.

    Raises:
        NotDense: the adapter is unknown.
    """
    from torch.export import Dim

    batch = Dim("batch", min=1, max=65_536)
    draw = torch.Generator().manual_seed(0)
    if isinstance(adapter, ImagePatches) and isinstance(inputs, Pictures):
        return _pictures(adapter, inputs, batch, draw)
    if isinstance(adapter, AudioFrames):
        waves = torch.randn(2, adapter.sample_rate // 2 + 3, generator=draw)
        least = max(adapter.n_fft, adapter.subsampling * adapter.hop_length)  # of two tokens
        samples = Dim("samples", min=least, max=adapter.sample_rate * 3600)
        says = f"waves [batch, samples] of one length, at least {least} samples"
        return Example(waves, waves, {0: batch, 1: samples}, says)
    if isinstance(adapter, (TextTokens, TextNgrams)):
        return _texts(adapter, batch)
    raise NotDense(f"only mmattn's own adapters have a dense twin: got {type(adapter).__name__}")


def _pictures(adapter: ImagePatches, inputs: Pictures, batch: Any, draw: torch.Generator) -> Example:
    from torch.export import Dim

    side = adapter.patch_size
    height, width = inputs.size or (5 * side, 3 * side)
    pictures = torch.randn(2, adapter.in_channels, height, width, generator=draw)
    sizes: dict[int, Any] = {0: batch}
    shown = f"{height}, {width}"
    if inputs.size is None:
        sizes |= {2: side * Dim("rows", min=2, max=1024), 3: side * Dim("columns", min=2, max=1024)}
        shown = f"{side} rows, {side} columns"
    return Example(pictures, pictures, sizes, f"pictures [batch, {adapter.in_channels}, {shown}], normalised")


def _texts(adapter: TextTokens | TextNgrams, batch: Any) -> Example:
    from torch.export import Dim

    rows = adapter.encode([_TEXT, _TEXT]).values
    rows = rows.reshape(2, -1, *rows.shape[1:])
    sizes: dict[int, Any] = {0: batch, 1: Dim("tokens", min=2, max=65_536)}
    says = "ids [batch, tokens] of texts of equally many tokens, as the adapter's encode gives them"
    if rows.ndim == 3:
        least = adapter.word_ngrams + 2 if isinstance(adapter, TextNgrams) else 2
        sizes[2] = Dim("ngrams", min=least, max=4096)
        says = says.replace("ids [batch, tokens]", "rows of n-grams [batch, tokens, ngrams], 0 = none,")
    return Example([_TEXT, _TEXT], rows, sizes, says)
