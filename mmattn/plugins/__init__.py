"""The core inside the models of other libraries."""

from mmattn.plugins.swap import Report, plug_in, unplug
from mmattn.plugins.verify import VerificationError

__all__ = ["Report", "VerificationError", "plug_in", "unplug"]
