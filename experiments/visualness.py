"""Can CLIP learn which texts have no picture, and still retrieve? TIP-CLIP on sprites and sentences.

A third of the sentences describe a sprite (shape, color, texture, size, and six words that mean nothing visible); the
others are made of such words, with a word for something visible by accident in one place of seven. Arms: *CLIP*,
trained on the visual pairs alone and then asked how far a text is from the NULL image; *TIP-CLIP*; *one image for all*,
where the visual texts, too, share one image, which separates just as well; *words*, no training at all: how many of a
text's words name something visible. Each is asked for the area under the ROC curve of its visualness, and for the
reciprocal rank of the right sprite among 300. *Another NULL*: other random pixels, and a photograph-like garment.
The learning rate is tuned alike, by area plus reciprocal rank on sentences that no record sees.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import torch
from _runner import LOOKS, Claim, Experiment, Metric, Tuning, main
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from cl_teach.crossmodal.visualness import TIPCLIP, draw_null_image, tip_clip
from cl_teach.datasets import abstract_sentences, fashion_mnist, sprite_captions, sprites
from cl_teach.datasets.captions import CAPTION_WORDS
from cl_teach.datasets.sprites import SPRITE_FACTORS
from cl_teach.models import ConvEncoder
from cl_teach.training import at_scale, fit, seed_everything

SAID = ("shape", "color", "texture", "size")
SHARE, ASKED = 0.35, 300
TRAIN = at_scale(3000, 20000, smoke=128)
EPOCHS, BATCH, DIM, SIZE = at_scale(10, 30, smoke=1), 64, 32, 16
VISIBLE = 1 + sum(len(values) for values in SPRITE_FACTORS.values())  # words from here on mean nothing visible


class Corpus(NamedTuple):
    """Sentences ``(n, L)``, whether each is visual, and the pictures ``(n, 3, 16, 16)`` of those that are."""

    images: Tensor
    texts: Tensor
    is_visual: Tensor


@cache
def corpus(n: int, seed: int) -> Corpus:
    """Sprites with captions, and sentences without a picture, mixed."""
    draws = torch.Generator().manual_seed(seed)
    is_visual = torch.rand(n, generator=draws) < SHARE
    seen = sprites(n, seed=seed, size=SIZE)
    said = sprite_captions(seen.factors, SAID, generator=draws)
    unseen = abstract_sentences(n, SAID, generator=draws)
    return Corpus(seen.images, torch.where(is_visual[:, None], said, unseen), is_visual)


def null_image(kind: str) -> Tensor:
    """Random pixels, or a garment in gray."""
    if kind == "garment":
        return fashion_mnist("test").images[0, :, 6:22, 6:22].expand(3, -1, -1).clone()
    return draw_null_image((3, SIZE, SIZE), generator=torch.Generator().manual_seed({"pixels": 0, "others": 1}[kind]))


def train(arm: str, null: str, learning_rate: float, seed: int) -> TIPCLIP:
    """Both towers."""
    seed_everything(seed)
    encoder = ConvEncoder(3, SIZE, norm="none")
    image_tower = nn.Sequential(encoder, nn.Linear(encoder.feature_dim, DIM))
    text_tower = nn.Sequential(nn.EmbeddingBag(len(CAPTION_WORDS), 64, padding_idx=0), nn.ReLU(), nn.Linear(64, DIM))
    data = corpus(TRAIN, seed)
    model = TIPCLIP(image_tower, text_tower, null_image(null))
    common = data.images[data.is_visual.nonzero()[0, 0]]

    def step(images: Tensor, texts: Tensor, is_visual: Tensor) -> Tensor:
        if arm == "clip":  # the pairs that have a picture, and nothing else
            images, texts = images[is_visual], texts[is_visual]
            if len(images) < 2:
                return 0 * model.log_scale
            image, text = model.image_tower(images), model.text_tower(texts)
            null = model.null_embedding.detach()
            return tip_clip(image, text, null, torch.ones(len(text), dtype=torch.bool), model.log_scale)
        if arm == "one image":
            images = common.expand_as(images)
        return model.loss(images, texts, is_visual)

    if arm != "untrained":
        options = {"batch_size": BATCH, "weight_decay": 1e-4, "seed": seed, "progress": False}
        fit(
            model, step, tuple(data), epochs=EPOCHS, learning_rate=learning_rate, after_step=model.after_step, **options
        )
    return model.eval()


@torch.no_grad()
def measured(model: TIPCLIP, data: Corpus) -> dict[str, float]:
    """Area under the curve in percent, and mean reciprocal rank of the right picture."""
    visual = data.is_visual.nonzero()[:ASKED, 0]
    similarity = model.similarity(data.texts[visual], data.images[visual])
    rank = 1 + (similarity > similarity.diagonal()[:, None]).sum(1)
    return {
        "area": 100 * float(roc_auc_score(data.is_visual, model.score(data.texts))),
        "retrieval": 100 * float((1 / rank).mean()),
    }


def trial(seed: int, arm: str, null: str, learning_rate: float, tuning: bool = False) -> dict[str, float]:
    """Train and measure one arm."""
    data = corpus(1000, seed + (20_000 if tuning else 10_000))
    if arm == "words":
        count = ((data.texts > 0) & (data.texts < VISIBLE)).sum(1)
        return {"area": 100 * float(roc_auc_score(data.is_visual, count)), "retrieval": 0.0}
    return measured(train(arm, null, learning_rate, seed), data)


def score(seed: int, **settings: Any) -> float:
    """Area plus retrieval, on sentences that no record sees."""
    return sum(trial(seed, tuning=True, **settings).values())


ARMS = {
    "clip": ("clip", "pixels"),
    "tip": ("tip", "pixels"),
    "one image": ("one image", "pixels"),
    "other pixels": ("tip", "others"),
    "garment": ("tip", "garment"),
    "untrained": ("untrained", "pixels"),
    "words": ("words", "pixels"),
}
NAMES = {
    "clip": "CLIP and the NULL image",
    "tip": "TIP-CLIP",
    "one image": "one image for all visual texts",
    "other pixels": "TIP-CLIP, other random pixels",
    "garment": "TIP-CLIP, a garment as NULL",
    "untrained": "untrained towers",
    "words": "counting words for visible things",
}
AREA = Metric("Area under the ROC curve of visualness", "area", "points")
RETRIEVAL = Metric(f"Mean reciprocal rank of the right sprite among {ASKED}", "retrieval", "points")
FIXED = {"untrained": {"learning_rate": 0.0}, "words": {"learning_rate": 0.0}}
EXPERIMENT = Experiment(
    "visualness",
    {name: {"arm": arm, "null": null} | FIXED.get(name, {}) for name, (arm, null) in ARMS.items()},
    trial,
    [
        Claim(
            "area",
            "TIP-CLIP tells texts with a picture from others better than CLIP and a NULL image.",
            AREA,
            "clip",
            "tip",
            headline=True,
        ),
        Claim(
            "kept",
            "TIP-CLIP retrieves better than with one image for all visual texts.",
            RETRIEVAL,
            "one image",
            "tip",
        ),
        Claim("price", "TIP-CLIP retrieves better than CLIP.", RETRIEVAL, "clip", "tip", origin="ours"),
        Claim(
            "one-image",
            "TIP-CLIP tells texts apart better than with one image for all visual texts.",
            AREA,
            "one image",
            "tip",
            origin="ours",
        ),
        Claim("other-pixels", "Other random pixels as NULL tell texts apart better.", AREA, "tip", "other pixels"),
        Claim("garment", "A garment as NULL tells texts apart better than random pixels.", AREA, "tip", "garment"),
        Claim(
            "words",
            "TIP-CLIP tells texts apart better than counting words for visible things.",
            AREA,
            "words",
            "tip",
            origin="ours",
        ),
        Claim(
            "untrained",
            "TIP-CLIP tells texts apart better than untrained towers.",
            AREA,
            "untrained",
            "tip",
            origin="ours",
        ),
    ],
    NAMES,
    f"{TRAIN:,} sentences, a third of them with a 16x16 sprite; bag of words and a small convolutional network, "
    f"{EPOCHS} epochs of AdamW in batches of {BATCH}. Learning rate tuned for every arm alike.",
    seeds=range(20),
    looks=LOOKS,
    tuning=Tuning(
        {"learning_rate": (1e-3, 3e-3, 1e-2)},
        score,
        like={"other pixels": "tip", "garment": "tip"},
    ),
)

if __name__ == "__main__":
    main(__file__, EXPERIMENT)
