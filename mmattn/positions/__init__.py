"""Where a token stands: rotary (inside attention), biases (on the logits), absolute (added to the tokens)."""

from mmattn.positions.absolute import LearnedPositions, SinusoidalPositions
from mmattn.positions.bias import ALiBi, PositionBias
from mmattn.positions.relative import GridBias, RelativeBias
from mmattn.positions.rotary import RotaryPositions, ntk_base

__all__ = [
    "ALiBi",
    "GridBias",
    "LearnedPositions",
    "PositionBias",
    "RelativeBias",
    "RotaryPositions",
    "SinusoidalPositions",
    "ntk_base",
]
