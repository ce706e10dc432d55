"""Where a token stands: rotary (inside attention) and absolute (added to the tokens) positions."""

from mmattn.positions.absolute import LearnedPositions, SinusoidalPositions
from mmattn.positions.rotary import RotaryPositions

__all__ = ["LearnedPositions", "RotaryPositions", "SinusoidalPositions"]
