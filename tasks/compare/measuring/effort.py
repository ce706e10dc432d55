"""How much a measure takes into account: more makes it steadier and slower."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """Numbers of scenes, orders and steps; scenes are drawn from the test set, the same in each run.

    Attributes:
        levels: numbers of distractors to answer at; ``None``: all from 0 to the level of the data. 0 and the level of
            the data are always among them.
        examples: answered at each level; ``None``: all.
        focus_scenes: on which the pooling attention is weighed.
        deletion_scenes: of which tokens are deleted.
        deletion_steps: shares of tokens deleted, equally spaced, without 0.
        deletion_orders: random orders, of which the mean is taken.
        head_scenes: answered with heads masked.
        redundancy_scenes: on which heads are compared with one another.
        importance_scenes: of the validation set, by which heads are ordered for pruning.
        pruning_steps: shares of heads removed, equally spaced, without 0; at most one for each head.
        pruning_orders: random orders, of which the mean is taken.

    Raises:
        ValueError: a number is below 1, or a level below 0.
    """

    levels: tuple[int, ...] | None = None
    examples: int | None = None
    focus_scenes: int = 256
    deletion_scenes: int = 256
    deletion_steps: int = 20
    deletion_orders: int = 5
    head_scenes: int = 256
    redundancy_scenes: int = 32
    importance_scenes: int = 64
    pruning_steps: int = 16
    pruning_orders: int = 5

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, int) and value < 1:
                raise ValueError(f"Effort.{name} must be at least 1: got {value}")
        if self.levels is not None and min(self.levels, default=0) < 0:
            raise ValueError(f"Effort.levels must not be negative: got {list(self.levels)}")

    def levels_up_to(self, standard: int) -> tuple[int, ...]:
        """The levels to answer at, in order."""
        chosen = range(standard + 1) if self.levels is None else self.levels
        return tuple(sorted({0, standard, *chosen}))


STANDARD = Effort()
"""Of the standard comparison."""
