"""Do the two branches of BaCon advise each other? Categories with few labels, in unknown proportions.

Digits: five known classes of which half of the samples have a label, five novel ones without any, both long-tailed from
120 images down to 12. Two small networks, one for contrast and one for the classifier, see the same views. After
training k-means on the features of the contrastive branch is matched to the classes of the balanced test set.

Arms take one piece of advice away at a time: *alone*, contrast without soft labels; *hard*, soft labels rounded to the
likeliest class; *no counts*, the classifier is held to equal frequencies instead of those that the contrastive branch
estimates; *true counts*, it is told the truth. *Fixed* arms train contrast on given pseudo-labels that favor frequent
classes (eight Gaussian classes), as one would get from a long-tailed classifier.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from _runner import LOOKS, Claim, Experiment, Metric, Tuning, main
from torch import Tensor, nn
from torch.nn import functional as F

from cl_teach.augment import gaussian_noise, random_resized_crop
from cl_teach.core.clusters import cluster_directions
from cl_teach.datasets import digits
from cl_teach.evaluation import embed
from cl_teach.labels import bacon
from cl_teach.labels.bacon import BaCon, BaConTerms, pair_weights, soft_contrast
from cl_teach.models import MLP
from cl_teach.models.cosine import CosineClassifier
from cl_teach.readouts import matched_accuracy
from cl_teach.training import at_scale, fit, seed_everything

SIZES = torch.tensor([120, 67, 38, 21, 12] * 2)  # known, then novel
EPOCHS = at_scale(30, 200, smoke=4)
EVERY = 10
STEPS = at_scale(250, 1000, smoke=20)
BLOBS = torch.tensor([160, 110, 75, 50, 35, 24, 16, 10])


class Discovery(NamedTuple):
    """Images, classes (known ones first) and who has a label; images and classes to test on."""

    x: Tensor
    y: Tensor
    labeled: Tensor
    test_x: Tensor
    test_y: Tensor


def discovery(seed: int, tuning: bool = False) -> Discovery:
    """Which digits are known, which are frequent, and which images stay is drawn. Tuning looks at the left-out ones."""
    draws = torch.Generator().manual_seed(seed)
    train, test = digits("train"), digits("test")
    name = torch.randperm(10, generator=draws)
    y, test_y = name[train.labels], name[test.labels]
    order = torch.randperm(len(y), generator=draws)
    rows = torch.cat([order[y[order] == c][: int(SIZES[c])] for c in range(10)])
    rank = torch.cat([torch.arange(int(size)) for size in SIZES])
    labeled = (y[rows] < 5) & (rank % 2 == 0)
    if tuning:
        rest = order[~torch.isin(order, rows)]
        return Discovery(train.images[rows].flatten(1), y[rows], labeled, train.images[rest].flatten(1), y[rest])
    return Discovery(train.images[rows].flatten(1), y[rows], labeled, test.images.flatten(1), test_y)


def view(x: Tensor, generator: torch.Generator) -> Tensor:
    """A crop with noise."""
    crop = random_resized_crop(x.view(-1, 1, 8, 8), (0.6, 1.0), generator=generator)
    return gaussian_noise(crop, 0.1, generator=generator).flatten(1)


class Hard(BaCon):
    """Rounds the soft labels of the classifier."""

    def contrastive_loss(self, z: Tensor, logits: Tensor, *args: Tensor, **settings: object) -> Tensor:
        """Far logits leave a softmax no doubt."""
        first, second = (logits / bacon.LOGIT_TEMPERATURE).softmax(1).chunk(2)
        sure = 1e3 * F.one_hot((first + second).argmax(1), logits.shape[1]).to(logits).repeat(2, 1)
        return super().contrastive_loss(z, sure, *args, **settings)


def trial(seed: int, arm: str, learning_rate: float, tuning: bool = False) -> dict[str, float]:
    """Train both branches; accuracy of head and tail classes by clusters, and how well sizes are known."""
    if arm.startswith("fixed"):
        return fixed(seed, arm.removeprefix("fixed "), learning_rate)
    data, draws = discovery(seed, tuning), torch.Generator().manual_seed(seed)
    seed_everything(seed)
    encoder, head = MLP([64, 128, 64]), MLP([64, 64, 32])
    classifier = nn.Sequential(MLP([64, 128, 64]), CosineClassifier(64, 10))
    method = (Hard if arm == "hard" else BaCon)(10, 5)
    total = len(data.x)
    if arm == "true counts":
        method.class_counts.copy_(SIZES.float())

    def step(x: Tensor, y: Tensor, labeled: Tensor) -> BaConTerms:
        both = torch.cat([view(x, draws), view(x, draws)])
        logits, z = classifier(both), head(encoder(both))
        told = method.classifier_loss(logits, y, labeled)
        found = method.contrastive_loss(z, logits, y, labeled, warm_up=arm == "alone", generator=draws)
        return BaConTerms(told + found, told, found)

    def refresh(epoch: int) -> None:
        if epoch % EVERY == 0 and arm not in ("no counts", "true counts"):
            method.refresh(encoder(data.x), data.y, data.labeled, generator=draws)

    # Labeled samples are shown twice as often, so that both halves of a batch have the same expected size.
    rows = torch.cat([torch.arange(total), data.labeled.nonzero()[:, 0]])
    parts = (data.x[rows], data.y[rows], data.labeled[rows])
    options = {"epochs": EPOCHS, "batch_size": 128, "learning_rate": learning_rate, "seed": seed, "progress": False}
    modules = nn.ModuleList([encoder, head, classifier])
    fit(modules, step, parts, after_epoch=refresh, after_step=method.after_step, **options)
    clusters, _ = cluster_directions(embed(encoder, data.test_x), 10, generator=draws)
    classes = matched_accuracy(clusters, data.test_y)
    said = matched_accuracy(embed(classifier, data.test_x).argmax(1), data.test_y)
    method.eval()
    method.refresh(embed(encoder, data.x), data.y, data.labeled, generator=draws)
    share, truth = method.class_counts / total, SIZES / total
    return named(classes) | {
        "classifier": 100 * float(said.mean()),
        "known": 100 * float(classes[:5].mean()),
        "novel": 100 * float(classes[5:].mean()),
        "total_variation": float((share - truth).abs().sum() / 2),
    }


def named(classes: Tensor) -> dict[str, float]:
    """Mean over all classes, over the frequent ones and over the rare ones, in percent."""
    head = torch.arange(len(classes)) % (5 if len(classes) == 10 else 8) < (2 if len(classes) == 10 else 4)
    parts = {"accuracy": classes, "head": classes[head], "tail": classes[~head]}
    return {name: 100 * float(part.mean()) for name, part in parts.items()}


def fixed(seed: int, weights: str, learning_rate: float) -> dict[str, float]:
    """Contrast on given pseudo-labels of eight Gaussian classes, soft or rounded."""
    draws = torch.Generator().manual_seed(seed)
    seed_everything(seed)
    y = torch.arange(8).repeat_interleave(BLOBS)
    centers = 1.5 * torch.randn(8, 12, generator=draws)
    x = centers[y] + torch.randn(len(y), 12, generator=draws)
    logits = 2.0 * F.one_hot(y, 8) + 1.3 * torch.randn(len(y), 8, generator=draws) + 0.6 * BLOBS.log()
    probs = logits.softmax(1)
    if weights == "hard":
        probs = F.one_hot(probs.argmax(1), 8).float()
    network = MLP([12, 64, 16])

    def step(rows: Tensor, p: Tensor) -> Tensor:
        both = torch.cat([rows + 0.3 * torch.randn(rows.shape, generator=draws) for _ in range(2)])
        return soft_contrast(network(both), pair_weights(p), 0.1)

    epochs = max(1, STEPS // 4)
    options = {"learning_rate": learning_rate, "seed": seed, "progress": False}
    fit(network, step, (x, probs), epochs=epochs, batch_size=128, **options)
    clusters, _ = cluster_directions(embed(network, x), 8, generator=draws)
    sizes = clusters.bincount(minlength=8).sort(descending=True).values
    return named(matched_accuracy(clusters, y)) | {
        "total_variation": float((sizes - BLOBS).abs().sum() / 2 / len(y)),
    }


def score(seed: int, **settings: Any) -> float:
    """Accuracy on images that were left out."""
    return trial(seed, tuning=True, **settings)["accuracy"]


FOUND = Metric("Share of test images in the right cluster, mean over classes", "accuracy", "points")
HEAD = Metric("Share of samples of the four frequent classes in the right cluster", "head", "points")
SIZES_FOUND = Metric(
    "Total variation between the sizes of clusters and of classes",
    "total_variation",
    smallest_effect=0.02,
    reason="Two samples of a hundred in the wrong place.",
)
SAID = Metric("Share of test images that the classifier names right, mean over classes", "classifier", "points")
NOTE = (
    "The released weights and temperatures for all arms, learning rate tuned for every arm alike on other images; "
    "multilayer perceptrons instead of a pretrained ViT."
)
ARMS = ("alone", "full", "hard", "no counts", "true counts", "fixed hard", "fixed soft")
EXPERIMENT = Experiment(
    "bacon",
    {arm: {"arm": arm} for arm in ARMS},
    trial,
    [
        Claim(
            "joint",
            "Soft labels of the classifier help the contrastive branch to find classes.",
            FOUND,
            "alone",
            "full",
            headline=True,
        ),
        Claim(
            "counts",
            "Estimated class sizes help the contrastive branch: who knows them gives better soft labels.",
            FOUND,
            "no counts",
            "full",
        ),
        Claim(
            "counts-classifier",
            "Class sizes estimated from the contrastive branch help the classifier.",
            SAID,
            "no counts",
            "full",
            names=("the classifier of BaCon, sizes taken as equal", "the classifier of BaCon"),
        ),
        Claim(
            "true-counts",
            "True class sizes would help more than estimated ones.",
            FOUND,
            "full",
            "true counts",
            origin="ours",
        ),
        Claim("soft", "Soft pairs are better than hard ones.", FOUND, "hard", "full"),
        Claim(
            "classifier",
            "Clusters of the contrastive branch are better than the classifier's answers.",
            FOUND,
            "full:classifier",
            "full",
            names=("the classifier of BaCon", "k-means on its contrastive branch"),
        ),
        Claim(
            "sizes",
            "Soft labels bring the sizes of clusters closer to those of the classes.",
            SIZES_FOUND,
            "alone",
            "full",
            "lower",
        ),
        Claim(
            "fixed-soft",
            "With pseudo-labels that favor frequent classes, soft pairs find more of the classes than hard ones.",
            FOUND,
            "fixed hard",
            "fixed soft",
        ),
        Claim(
            "fixed-soft-head",
            "With such pseudo-labels soft pairs keep frequent classes in one piece.",
            HEAD,
            "fixed hard",
            "fixed soft",
        ),
        Claim(
            "fixed-soft-sizes",
            "With such pseudo-labels soft pairs bring the sizes of clusters closer to those of the classes.",
            SIZES_FOUND,
            "fixed hard",
            "fixed soft",
            "lower",
        ),
    ],
    {
        "alone": "contrast alone",
        "full": "BaCon",
        "hard": "BaCon, hard pairs",
        "no counts": "BaCon, sizes taken as equal",
        "true counts": "BaCon, true sizes",
        "fixed hard": "hard pairs",
        "fixed soft": "soft pairs",
    },
    NOTE,
    seeds=range(20),
    looks=LOOKS,
    tuning=Tuning({"learning_rate": (1e-3, 3e-3, 1e-2)}, score),
)

if __name__ == "__main__":
    main(__file__, EXPERIMENT)
