"""Looking at attention without touching it."""

from mmattn.observe.watch import observe_weights

__all__ = ["observe_weights"]
