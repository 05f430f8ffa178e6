"""Small data sets; images all through the same call: ``name(split="train", *, root=None, device=None) -> ImageSet``.

| call | what | where from |
| --- | --- | --- |
| `fashion_mnist` | 10,000 + 2,000 garments, 28x28 gray | in the wheel; ``full=True`` downloads 60,000 + 10,000 |
| `cifar10` | 50,000 + 10,000 photographs, 32x32 color | a folder, or torchvision's download |
| `emoji_names` | 1,377 emoji, 16x16 color, with their names in fourteen languages | in the wheel |
| `digits` | 1,442 + 355 handwritten digits, 8x8 gray | scikit-learn |
| `sprites` | drawn objects with independent factors | generated |
| `sprite_captions`, `abstract_sentences` | what a sprite shows, in words, and what nobody can see | generated |
| `class_captions` | a word for the class of an image, among words that mean nothing | generated |
| `template_sentences`, `template_pairs` | sentences of known meaning, pairs of chosen overlap | generated |
| `cued_reviews` | reviews beside a cue that goes along with the label, in a chosen share | generated |
| `toy_text` | a language that runs into loops | generated |
| `arithmetic_rationales` | worked solutions by a teacher who slips | generated |
| `patients` | a report, an X-ray and an ECG of one patient | generated |
| `gaussian_views` | feature vectors of two views with known moments | generated |
| `heart_beats` | windows of heartbeats, with their trial and patient | generated |
| `interactions` | users and the items they liked, with spurious ones | generated |
| `community_graph` | a graph of planted communities with attributes | generated |
| `item_sequences` | what users bought, in order | generated |
| `paper_network` | papers with authors and subjects: a graph with several kinds of nodes | generated |
| `attributed_interactions` | users and items with fields, some never met in training | generated |
| `item_bundles` | bundles of items that belong together | generated |
| `low_rank_mdp`, `low_rank_game`, `combination_lock` | worlds to act in, with known optimal values | generated |
| `point_clouds`, `assembled_clouds` | points on one of four surfaces, or on objects of two parts | generated |
| `planted_preferences` | pairs of responses of which one token decides | generated |
| `library_preferences` | how a docstring goes on, and how it does not | Python's standard library |
| `peaked_bandit`, `proxy_bandit` | one decision, with a peaked reward, or with proxies of a gold score | generated |
| `named_facts` | facts about people, some to be forgotten | generated |
| `redundant_regression` | a regression in which most rows say nothing | generated |
| `library_functions`, `library_code` | docstrings and the code they describe | Python's standard library |
| `library_sentences` | sentences of docstrings | Python's standard library |
| `library_text` | docstrings as words, to train a language model on | Python's standard library |
| `movielens_100k`, `cora`, `imdb` | ratings, citations, films | packages that may be installed |
| `draw_scenes`, `draw_scene_pairs` | things in places, with their foreground; with a variation of each | generated |
| `textured_scenes` | textured squares in a picture, with the class of every cell | generated |
| `draw_two_features`, `draw_factors`, `draw_subjects`, `draw_intervals` | vectors of known factors | generated |
| `graded_factors`, `crossed_classes` | vectors in which several things are mixed | generated |
| `color_by_label`, `overlay_pattern` | pictures with a bias, or with a pattern on some | made from others |
| `nested_blobs` | classes made of several clusters | generated |
| `turned_digits`, `curve_points` | pictures and points whose label is a number | digits, turned; generated |
| `long_tailed`, `noisy_labels`, `flip_labels` | rare classes, or wrong labels | made from another set |
"""

import dis
import sys
from typing import NoReturn

from .bandits import PeakedBandit, ProxyBandit, peaked_bandit, proxy_bandit
from .captions import abstract_sentences, class_captions, class_synonyms, sprite_captions
from .cifar import cifar10
from .code_search import LibraryCode, LibrarySentences, library_code, library_sentences, python_tokens
from .common import ImageSet
from .decisions import Decisions, combination_lock, lock_factors, low_rank_game, low_rank_mdp
from .digits import digits
from .emoji import EMOJI_LANGUAGES, EmojiNames, emoji_names, name_pieces
from .factors import Factors, Subjects, TwoFeatures, draw_factors, draw_intervals, draw_subjects, draw_two_features
from .facts import Facts, named_facts
from .fashion import fashion_mnist
from .gaussian import GaussianViews, gaussian_moments, gaussian_views
from .imperfect import LabelNoise, flip_labels, long_tailed, noise_transition, noisy_labels, polluted_moments
from .installed import CitationGraph, FilmNetwork, Ratings, cora, imdb, library_functions, movielens_100k
from .interactions import CommunityGraph, Interactions, ItemSequences, community_graph, interactions, item_sequences
from .library_text import LibraryText, library_text
from .networks import attributed_interactions, item_bundles, paper_network
from .painted import color_by_label, overlay_pattern
from .patients import Patients, patients
from .point_clouds import AssembledClouds, PointClouds, assembled_clouds, point_clouds
from .preferences import LibraryPreferences, Preferences, library_preferences, planted_preferences
from .rationales import Rationales, arithmetic_rationales, rationale_text, spoil_rationales
from .redundant import Redundant, redundant_regression
from .reviews import REVIEW_WORDS, WORD_KINDS, Reviews, cued_reviews, review_text
from .scenes import ScenePairs, Scenes, draw_scene_pairs, draw_scenes
from .sentences import (
    CONCEPTS,
    SENTENCE_WORDS,
    SentencePairs,
    Sentences,
    sentence_text,
    template_pairs,
    template_sentences,
)
from .series import HeartBeats, few_patients, heart_beats
from .several_factors import CrossedClasses, GradedFactors, crossed_classes, graded_factors
from .soft_changes import SoftDraws, augment_tokens, draw_soft, soft_pair
from .sprites import SPRITE_FACTORS, Sprites, sprites
from .structured import NestedBlobs, TurnedDigits, curve_points, nested_blobs, turn, turned_digits
from .text_changes import TextDraws, change_texts, draw_text_changes, remove_words
from .texts import toy_text
from .textured import TexturedScenes, textured_scenes

__all__ = [
    "EMOJI_LANGUAGES",
    "EmojiNames",
    "emoji_names",
    "name_pieces",
    "CrossedClasses",
    "ScenePairs",
    "TexturedScenes",
    "textured_scenes",
    "draw_scene_pairs",
    "GradedFactors",
    "crossed_classes",
    "graded_factors",
    "NestedBlobs",
    "TurnedDigits",
    "curve_points",
    "nested_blobs",
    "turn",
    "turned_digits",
    "draw_scenes",
    "Scenes",
    "overlay_pattern",
    "color_by_label",
    "draw_two_features",
    "draw_subjects",
    "draw_intervals",
    "draw_factors",
    "TwoFeatures",
    "Subjects",
    "Factors",
    "SPRITE_FACTORS",
    "GaussianViews",
    "HeartBeats",
    "ImageSet",
    "Sprites",
    "cifar10",
    "digits",
    "fashion_mnist",
    "gaussian_moments",
    "gaussian_views",
    "few_patients",
    "heart_beats",
    "sprites",
    "CommunityGraph",
    "Interactions",
    "ItemSequences",
    "community_graph",
    "interactions",
    "item_sequences",
    "LabelNoise",
    "flip_labels",
    "long_tailed",
    "noise_transition",
    "noisy_labels",
    "polluted_moments",
    "LibraryPreferences",
    "LibraryText",
    "Preferences",
    "abstract_sentences",
    "library_preferences",
    "library_text",
    "planted_preferences",
    "Decisions",
    "AssembledClouds",
    "PointClouds",
    "assembled_clouds",
    "combination_lock",
    "lock_factors",
    "low_rank_game",
    "low_rank_mdp",
    "point_clouds",
    "CitationGraph",
    "FilmNetwork",
    "Ratings",
    "cora",
    "imdb",
    "library_functions",
    "LibraryCode",
    "LibrarySentences",
    "library_code",
    "library_sentences",
    "python_tokens",
    "movielens_100k",
    "sprite_captions",
    "attributed_interactions",
    "item_bundles",
    "paper_network",
    "Facts",
    "PeakedBandit",
    "ProxyBandit",
    "Redundant",
    "named_facts",
    "peaked_bandit",
    "proxy_bandit",
    "redundant_regression",
    "class_captions",
    "class_synonyms",
    "Patients",
    "patients",
    "Rationales",
    "arithmetic_rationales",
    "rationale_text",
    "spoil_rationales",
    "TextDraws",
    "change_texts",
    "draw_text_changes",
    "remove_words",
    "toy_text",
    "CONCEPTS",
    "REVIEW_WORDS",
    "SENTENCE_WORDS",
    "WORD_KINDS",
    "Reviews",
    "SentencePairs",
    "Sentences",
    "cued_reviews",
    "review_text",
    "sentence_text",
    "template_pairs",
    "template_sentences",
    "SoftDraws",
    "augment_tokens",
    "draw_soft",
    "soft_pair",
]

# What people look for first, under its name elsewhere.
_INSTEAD = {
    "CIFAR10": 'cifar10("train", root=...)',
    "CIFAR100": 'cifar10("train", root=...); CIFAR-100 is not here, torchvision has it',
    "FashionMNIST": 'fashion_mnist("train"), or with full=True',
    "MNIST": 'digits("train") or fashion_mnist("train"); MNIST itself is not here, torchvision has it',
    "STL10": 'cifar10("train", root=...); STL-10 is not here, torchvision has it',
    "ImageFolder": "torchvision's ImageFolder: cl_teach.training.pretrain takes it as it is, with transform=",
}


def __getattr__(name: str) -> NoReturn:
    """A name from elsewhere is answered with the one from here."""
    if name not in _INSTEAD:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    message = f"module {__name__!r} has no {name}; use {_INSTEAD[name]}"
    caller = sys._getframe(1)
    importing = caller.f_code.co_code[caller.f_lasti] == dis.opmap["IMPORT_FROM"]
    # ``from ... import`` would replace the words of an AttributeError by its own.
    raise ImportError(message) if importing else AttributeError(message)
