"""Attention on random calls of every kind: each backend against the formula in float64."""

from benchmarks.properties.cases import BiasTensor, Case, MaskTensor, cases, long_windows
from benchmarks.properties.judge import BACKENDS, check, eager_flex

__all__ = ["BACKENDS", "BiasTensor", "Case", "MaskTensor", "cases", "check", "eager_flex", "long_windows"]
