"""Pictures to learn from."""

from tasks.vision.data.cifar import CIFAR10
from tasks.vision.data.digits import Digits
from tasks.vision.data.folder import ImageFolder

__all__ = ["CIFAR10", "Digits", "ImageFolder"]
