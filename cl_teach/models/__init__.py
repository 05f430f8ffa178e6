"""Small encoders for 28x28 and 32x32 images, heads, generators, graph convolution, language, points."""

from .activations import recorded
from .apply import apply_network, weight_dtype
from .bag_of_words import BagOfWords, context_vectors, word_counts, word_overlap
from .bundles import BundleEncoder, StackEncoder
from .class_pair_gate import ClassPairGate
from .class_translator import ClassCritic, ClassTranslator, TranslatorTrainer
from .cosine import CosineClassifier
from .dilated import DilatedEncoder, draw_segments
from .encoders import MLP, ConvEncoder, cifar_resnet18
from .fields import FieldEncoder, Fused, FusionGate
from .foreground import Foreground, fit_foreground, foreground_ratio, patch_tokens
from .generator import VariationGenerator, noise_embeddings
from .graph import GCN, gcn_matrix, mean_matrix, scale_by_degrees
from .hashed_words import HashedWords, latent_vectors, word_rarity, word_scores
from .heads import PredictionHead, ProjectionHead
from .installed import smollm2
from .item_sequences import SequenceEncoder
from .language_model import LanguageModel
from .low_rank import FactoredFeatures, LowRankFeatures
from .maps import MapEncoder
from .meta_paths import MetaPath, MetaPathNetwork, meta_path_links
from .moco import MoCo
from .pair_weights import PairWeights
from .paired_towers import HeadedTower, PairedTowers, Views
from .point_transformer import MaskedBranch, PatchEmbedding, PositionedBlocks, farthest_points, make_patches
from .policies import ActionPolicy, TokenPolicy, bumps
from .pooling import masked_mean
from .rationales import Discriminator, Student
from .reading import Reading, reader, select_rows, transformer_reader
from .scattering import Scattering, ScatteringAdapter
from .sequence import continue_tokens, predicting_states, response_log_probability, token_log_probability
from .signal_tower import DropKeyAttention, LoRALinear, NormalizedHead, SignalTower, draw_drop_mask
from .subject import Denoiser, SubjectReader
from .token_classifier import TokenClassifier
from .token_mask import TokenMask

__all__ = [
    "smollm2",
    "HashedWords",
    "latent_vectors",
    "word_rarity",
    "word_scores",
    "MapEncoder",
    "Foreground",
    "fit_foreground",
    "foreground_ratio",
    "patch_tokens",
    "SubjectReader",
    "Denoiser",
    "ScatteringAdapter",
    "Scattering",
    "TranslatorTrainer",
    "ClassPairGate",
    "apply_network",
    "weight_dtype",
    "MLP",
    "ClassCritic",
    "ClassTranslator",
    "ConvEncoder",
    "CosineClassifier",
    "DilatedEncoder",
    "FactoredFeatures",
    "LowRankFeatures",
    "MaskedBranch",
    "MoCo",
    "draw_segments",
    "LanguageModel",
    "PatchEmbedding",
    "PositionedBlocks",
    "PredictionHead",
    "ProjectionHead",
    "VariationGenerator",
    "cifar_resnet18",
    "farthest_points",
    "gcn_matrix",
    "make_patches",
    "mean_matrix",
    "noise_embeddings",
    "predicting_states",
    "response_log_probability",
    "scale_by_degrees",
    "token_log_probability",
    "ActionPolicy",
    "TokenPolicy",
    "bumps",
    "continue_tokens",
    "recorded",
    "HeadedTower",
    "PairedTowers",
    "Views",
    "masked_mean",
    "Discriminator",
    "Student",
    "DropKeyAttention",
    "LoRALinear",
    "NormalizedHead",
    "SignalTower",
    "draw_drop_mask",
    "TokenClassifier",
    "TokenMask",
    "BagOfWords",
    "context_vectors",
    "word_counts",
    "word_overlap",
    "BundleEncoder",
    "StackEncoder",
    "FieldEncoder",
    "Fused",
    "FusionGate",
    "PairWeights",
    "GCN",
    "MetaPath",
    "MetaPathNetwork",
    "SequenceEncoder",
    "meta_path_links",
    "Reading",
    "reader",
    "select_rows",
    "transformer_reader",
]
