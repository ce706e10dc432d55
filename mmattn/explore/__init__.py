"""Attention to look into by hand: what a model saw in an item, as a file and as a part of a page."""

from mmattn.explore.exploration import Exploration, Layer, TokenMap, load, save
from mmattn.explore.exploring import explore, right_and_wrong
from mmattn.explore.widget import Fragment, fragment, page

__all__ = [
    "Exploration",
    "Fragment",
    "Layer",
    "TokenMap",
    "explore",
    "fragment",
    "load",
    "page",
    "right_and_wrong",
    "save",
]
