"""Use what was trained: export a checkpoint, load it without pickle, predict, and look where the model looked."""

from mmattn.inference.bundle import Bundle
from mmattn.inference.classification import Classification
from mmattn.inference.ensemble import Ensemble
from mmattn.inference.inputs import Pictures, Sounds, Texts
from mmattn.inference.looking import Look
from mmattn.inference.predictor import Predictor, export, load, open_model

__all__ = [
    "Bundle",
    "Classification",
    "Ensemble",
    "Look",
    "Pictures",
    "Predictor",
    "Sounds",
    "Texts",
    "export",
    "load",
    "open_model",
]
