"""Looking at attention without touching it, and acting on what is seen: heads masked, weighed and pruned."""

from mmattn.observation.attribution import Relevance, relevance
from mmattn.observation.heads import set_head_mask
from mmattn.observation.importance import head_importance
from mmattn.observation.leaks import PaddingReport
from mmattn.observation.lint import padding_lint
from mmattn.observation.measures import Statistics, statistics
from mmattn.observation.observing import observe
from mmattn.observation.pruning import prune_heads, pruned_heads
from mmattn.observation.record import ObservedCall, ObservedModule, Record
from mmattn.observation.recorder import RecordTooLarge
from mmattn.observation.reduction import Reduced

__all__ = [
    "ObservedCall",
    "ObservedModule",
    "PaddingReport",
    "Record",
    "RecordTooLarge",
    "Reduced",
    "Relevance",
    "Statistics",
    "head_importance",
    "observe",
    "padding_lint",
    "prune_heads",
    "pruned_heads",
    "relevance",
    "set_head_mask",
    "statistics",
]
