"""What stands beside attention: a recognizer that is linear in stacked frames."""

from __future__ import annotations

import torch
from lightning import Trainer
from torch import Tensor, nn

from mmattn import AudioFrames, Encoder, TokenBatch
from mmattn.backends import Mask
from mmattn.recognition import CharacterUnits
from mmattn.training.optim import AdamWCosine
from tasks.speech.module import SpecAugment
from tasks.speech.recognition.data.transcribed import RecognitionData
from tasks.speech.recognition.module import SpeechRecognition


class LinearEncoder(Encoder):
    """The control: each token and its neighbours through one linear layer, without attention or any bend.

    Behind an adapter with ``stem="patch"``, the whole recognizer is linear in the log-mel frames around a token.

    Args:
        embed_dim: width D of the tokens.
        context: neighbours on either side; beyond the ends of a clip lie zeros.

    Raises:
        ValueError: context is negative.

    Example:
        >>> LinearEncoder(4, context=2)(TokenBatch(torch.randn(5, 4), [3, 2]))
        TokenBatch(2 sequences, 5 tokens, lengths 2..3, values [5, 4] float32, coords [5, 1], cpu)
    """

    def __init__(self, embed_dim: int, context: int = 5) -> None:
        nn.Module.__init__(self)  # an encoder without blocks, which the base refuses to build
        if context < 0:
            raise ValueError(f"context must not be negative: got {context}")
        self.blocks = nn.ModuleList()
        self.norm = nn.Identity()
        self.positions = None
        self.context = context
        self.linear = nn.Linear((2 * context + 1) * embed_dim, embed_dim)

    @property
    def embed_dim(self) -> int:
        """Width D of the tokens."""
        return self.linear.out_features

    def forward(self, tokens: TokenBatch | Tensor, *, mask: Mask = None) -> TokenBatch | Tensor:
        """Packed tokens ``[T, D]`` to the same.

        Raises:
            TypeError: the tokens are a dense tensor.
            ValueError: a mask is given, which a linear layer has no use for.
        """
        if isinstance(tokens, Tensor):
            raise TypeError("LinearEncoder takes a TokenBatch: got a tensor")
        if mask is not None:
            raise ValueError(f"LinearEncoder takes no mask: got {mask!r}")
        return tokens.replace(self.linear(stacked(tokens, self.context)))


def stacked(tokens: TokenBatch, context: int) -> Tensor:
    """Each token of ``[T, D]`` beside its neighbours of the same sequence, ``[T, (2 context + 1) D]``.

    Example:
        >>> stacked(TokenBatch(torch.tensor([[1.0], [2.0], [3.0]]), [2, 1]), 1)
        tensor([[0., 1., 2.],
                [1., 2., 0.],
                [0., 3., 0.]])
    """
    values, owners = tokens.values, tokens.segment_ids
    here = torch.arange(len(values), device=values.device)
    columns = []
    for step in range(-context, context + 1):
        there = (here + step).clamp(0, max(len(values) - 1, 0))
        own = (here + step == there) & (owners[there] == owners)
        columns.append(values[there] * own[:, None].to(values.dtype))
    return torch.cat(columns, dim=1)


def linear_control(
    data: RecognitionData, epochs: int = 6, embed_dim: int = 144, context: int = 10, lr: float = 2e-3
) -> float:
    """Word error rate on ``test`` of a recognizer that is linear in its log-mel frames.

    One token stands for two frames (20 ms) and is seen with ``context`` neighbours on either side; characters are
    written. Loss, masking, optimiser and decoding are those of the other models.

    Args:
        data: what to learn from and to be judged on; its random changes in training included.
        epochs: rounds over the training set.
        embed_dim: width between the two linear layers.
        context: neighbours on either side.
        lr: highest learning rate.

    Returns:
        Errors over words; can exceed 1.
    """
    adapter = AudioFrames(embed_dim, data.sample_rate, n_mels=40, subsampling=2, stem="patch")
    encoder = LinearEncoder(embed_dim, context)
    model = SpeechRecognition(
        adapter, encoder, CharacterUnits(), AdamWCosine(lr=lr), spec_augment=SpecAugment()
    )
    trainer = Trainer(
        max_epochs=epochs,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=data)
    trainer.test(model, datamodule=data, verbose=False)
    return float(trainer.callback_metrics["test/wer"])
