"""Small encoders for 28x28 and 32x32 images, the heads that go on top of them, and a small language model."""

from .encoders import MLP, ConvEncoder
from .heads import PredictionHead, ProjectionHead
from .language_model import LanguageModel

__all__ = ["MLP", "ConvEncoder", "LanguageModel", "PredictionHead", "ProjectionHead"]
