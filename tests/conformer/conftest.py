"""What the tests of the Conformer share."""

from __future__ import annotations

import pytest
import torch

from mmattn import TokenBatch

D = 12
LENGTHS = [7, 1, 0, 16, 2, 31]


@pytest.fixture
def tokens() -> TokenBatch:
    """Clips of very different lengths, one of them empty."""
    return TokenBatch(torch.randn(sum(LENGTHS), D), LENGTHS)
