"""Small encoders for 28x28 and 32x32 images, and the heads that go on top of them."""

from .encoders import MLP, ConvEncoder
from .heads import PredictionHead, ProjectionHead

__all__ = ["MLP", "ConvEncoder", "PredictionHead", "ProjectionHead"]
