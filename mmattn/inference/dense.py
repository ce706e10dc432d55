"""Dense twins of packed models, for ``torch.export``: items of one size in a batch, as tensors all the way.

Inside the library sequences are packed, and their lengths decide what is computed, which no program can follow.
A batch of items of one size needs no lengths. The modules here hold a model's own parts and run them on dense
``[B, N, D]`` tokens; the weights are the same objects.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmattn.adapters import AudioFrames, ImagePatches, TextNgrams, TextTokens
from mmattn.encoder import Encoder
from mmattn.heads import AttentionPool, Classifier, MeanPool
from mmattn.tokens import TokenBatch


class NotDense(ValueError):
    """A model, or a part of it, of which there is no dense twin; says why in one sentence."""


class Dense(nn.Module):
    """The dense twin of a model: of adapter, encoder and head.

    Args:
        front: one of the modules of this file; gives tokens ``[B, N, D]`` and, of pictures, their places ``[N, 2]``.
        encoder: :class:`DenseEncoder`.
        head: takes tokens ``[B, N, D]``.
    """

    def __init__(self, front: nn.Module, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.front = front
        self.encoder = encoder
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """The output of the model, in float32."""
        output: Tensor = self.head(self.encoder(*self.front(x)))
        return output.float()


class DensePatches(nn.Module):
    """Pictures ``[B, C, H, W]`` -> tokens ``[B, N, D]``, as :class:`~mmattn.ImagePatches` makes them."""

    def __init__(self, adapter: ImagePatches) -> None:
        super().__init__()
        self.embed = adapter.embed
        self.patch_size = adapter.patch_size

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens, and their places ``[N, 2]``."""
        height, width = pictures.shape[-2:]
        if isinstance(height, int) and isinstance(width, int):  # else they are multiples of the patch
            pictures = F.pad(pictures, (0, -width % self.patch_size, 0, -height % self.patch_size))
        features = self.embed(pictures)  # [B, D, rows, columns]
        axes = [torch.arange(count, device=pictures.device) for count in features.shape[-2:]]
        places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 1)
        return features.flatten(2).mT, places


class DenseFrames(nn.Module):
    """Waves ``[B, S]`` of one length -> tokens ``[B, N, D]``, as :class:`~mmattn.AudioFrames` makes them."""

    def __init__(self, adapter: AudioFrames) -> None:
        super().__init__()
        self.n_fft = adapter.n_fft
        self.hop_length = adapter.hop_length
        self.spectrogram = adapter.spectrogram
        self.mel_scale = adapter.mel_scale
        self.stem = adapter.stem
        self.scale: tuple[Tensor, Tensor] | None = None
        if adapter.normalize == "global":
            self.scale = adapter.mean, adapter.deviation

    def forward(self, waves: Tensor) -> tuple[Tensor, None]:
        """Tokens, which stand at 0, 1, 2, ..."""
        count = 1 + waves.shape[1] // self.hop_length
        padded = F.pad(waves.float(), (self.n_fft // 2, self.n_fft + self.hop_length))
        power = torch.view_as_real(self.spectrogram(padded)).square().sum(-1)
        # by an index: a slice would make the tracer prove that there are as many
        kept = torch.arange(count, device=waves.device)
        frames = self.mel_scale(power).index_select(2, kept).clamp(min=1e-6).log()  # [B, n_mels, frames]
        if self.scale is None:
            frames = frames - frames.mean((1, 2), keepdim=True)
            frames = frames / (frames.square().mean((1, 2), keepdim=True) + 1e-5).sqrt()
        else:
            frames = (frames - self.scale[0][:, None]) / self.scale[1][:, None]
        return self._subsampled(frames), None

    def _subsampled(self, frames: Tensor) -> Tensor:
        stem: Any = self.stem
        if hasattr(stem, "convs"):
            for conv in stem.convs:
                frames = F.gelu(conv(frames))
            return cast(Tensor, stem.linear(frames.mT))
        # runs of frames that are embedded on their own are a convolution whose stride is its width
        weight = stem.linear.weight.unflatten(1, (stem.size, -1)).mT
        filled = F.pad(frames, (0, stem.size - 1))
        return F.conv1d(filled, weight, stem.linear.bias, stride=stem.size).mT


class DenseRows(nn.Module):
    """Ids ``[B, N]``, or rows of n-grams ``[B, N, G]``, -> tokens ``[B, N, D]``."""

    def __init__(self, adapter: TextTokens | TextNgrams) -> None:
        super().__init__()
        self.adapter = adapter

    def forward(self, ids: Tensor) -> tuple[Tensor, None]:
        """Tokens, which stand at 0, 1, 2, ..."""
        if isinstance(self.adapter, TextNgrams):
            return self.adapter.vectors(ids.flatten(0, 1)).unflatten(0, ids.shape[:2]), None
        return cast(Tensor, self.adapter.embedding(ids)), None


class DenseEncoder(nn.Module):
    """An encoder over dense tokens, which may stand on a grid.

    Args:
        encoder: ours.
        places: of the tokens, ``[N, 2]``, where these are always the same; ``None`` otherwise.
        on_grid: whether there will be places.

    Raises:
        NotDense: a part needs places that it cannot be given.
    """

    def __init__(self, encoder: Encoder, places: Tensor | None, on_grid: bool) -> None:
        super().__init__()
        if on_grid and type(encoder) is not Encoder:
            raise NotDense(f"only Encoder has a dense twin for pictures: got {type(encoder).__name__}")
        attentions = [cast(Any, block).attention for block in encoder.blocks]
        if on_grid and any(part.position_bias is not None for part in attentions):
            raise NotDense("a position bias over two axes has no dense twin: got one in the encoder")
        self.encoder = encoder
        self.added: Tensor | None = None
        if on_grid and encoder.positions is not None:
            if places is None:
                raise NotDense("positions that are added need pictures of one size: got pictures of any size")
            zeros = TokenBatch(torch.zeros(len(places), encoder.embed_dim), [len(places)], places)
            with torch.no_grad():
                self.added = encoder.positions(zeros).values

    def forward(self, tokens: Tensor, places: Tensor | None) -> Tensor:
        """Tokens ``[B, N, D]`` to the same."""
        if places is None:
            return cast(Tensor, self.encoder(tokens))
        if self.added is not None:
            tokens = tokens + self.added
        for module in self.encoder.blocks:
            block = cast(Any, module)
            rotary, width = block.attention.positions, block.attention.head_dim
            tables = None if rotary is None else rotary.tables(places, width, tokens.dtype)
            tokens = cast(Tensor, block(tokens, tables=tables))
        return cast(Tensor, self.encoder.norm(tokens))


class DenseClassifier(nn.Module):
    """Tokens ``[B, N, D]`` -> logits ``[B, C]``.

    Raises:
        NotDense: the pooling is unknown.
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        if not isinstance(head, Classifier) or not isinstance(head.pool, (AttentionPool, MeanPool)):
            raise NotDense(f"only attention and mean pooling have a dense twin: got {type(head).__name__}")
        self.pool = head.pool
        self.linear = head.linear

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits."""
        if isinstance(self.pool, MeanPool):
            pooled = tokens.float().mean(1).to(tokens.dtype)
        else:
            query = self.pool.query.expand(tokens.shape[0], 1, -1)
            pooled = cast(Tensor, self.pool.attention(query, tokens))[:, 0]
        return cast(Tensor, self.linear(pooled))


def front(adapter: nn.Module) -> nn.Module:
    """The dense twin of an adapter.

    Raises:
        NotDense: there is none.
    """
    if type(adapter) is ImagePatches:
        return DensePatches(adapter)
    if type(adapter) is AudioFrames:
        return DenseFrames(adapter)
    if type(adapter) is TextTokens or type(adapter) is TextNgrams:
        return DenseRows(adapter)
    raise NotDense(
        f"adapters of the same steps for all items have a dense twin: got {type(adapter).__name__}"
    )


def encoder(encoder: Encoder, front: nn.Module, x: Tensor, one_size: bool) -> DenseEncoder:
    """The dense twin of an encoder behind the twin of an adapter.

    Args:
        encoder: ours.
        front: gives its tokens.
        x: what the front takes.
        one_size: whether all that it will take is of the size of ``x``.

    Raises:
        NotDense: there is none.
    """
    with torch.no_grad():
        places = front(x)[1]
    return DenseEncoder(encoder, places if one_size else None, places is not None)
