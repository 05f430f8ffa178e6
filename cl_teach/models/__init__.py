"""Small encoders for 28x28 and 32x32 images, heads, generators, graph convolution, and a small language model."""

from .encoders import MLP, ConvEncoder
from .generator import ClassCritic, ClassTranslator, VariationGenerator, noise_embeddings
from .graph import gcn_matrix, mean_matrix, scale_by_degrees
from .heads import PredictionHead, ProjectionHead
from .language_model import LanguageModel
from .sequence import predicting_states, response_log_probability, token_log_probability

__all__ = [
    "MLP",
    "ClassCritic",
    "ClassTranslator",
    "ConvEncoder",
    "LanguageModel",
    "PredictionHead",
    "ProjectionHead",
    "VariationGenerator",
    "gcn_matrix",
    "mean_matrix",
    "noise_embeddings",
    "predicting_states",
    "response_log_probability",
    "scale_by_degrees",
    "token_log_probability",
]
