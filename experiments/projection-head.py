r"""What a projection head takes away: linear features, a thresholding network and trained encoders, five seeds each.

1. *Linear.* Deep linear networks trained on sampled pairs: how unequal are the features after each layer? And a probe
   with 12 labels below and above the head, for a feature that pre-training saw scrambled, weak or strong.
2. *Threshold.* The diagonal network with a soft threshold: what is left of a fully scrambled feature in each layer.
3. *Encoders.* A small convolutional encoder with a representation of 128 numbers, and a head of three layers, each 128
   wide, so that no layer is judged better for being wider. Three tasks:

   - *scramble*: SimCLR on sprites whose views turn the hue at random; the control leaves the hue alone;
   - *spurious*: SupCon (and cross-entropy) for the shape of sprites whose color names the shape in 95 % of all cases,
     judged on sprites without that tie;
   - *coarse*: SupCon with three coarse classes of Fashion-MNIST, judged by the ten fine ones.

   Each task also runs with the fixed head :math:`\kappa^{-k}` in place of the trained one; kappa = 1 is no head.

All arms share data, batches, steps, optimizer and learning rate; nothing was tuned.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from _runner import Claim, Experiment, Metric, main
from torch import Tensor, nn
from torch.nn import functional as F

from cl_teach.augment import Compose, color_jitter, gaussian_noise, random_resized_crop, simclr_augment
from cl_teach.core import nt_xent, sup_con
from cl_teach.datasets import fashion_mnist, gaussian_views, sprites
from cl_teach.evaluation import effective_rank, linear_probe
from cl_teach.models import ConvEncoder, ProjectionHead
from cl_teach.theory import linear_model
from cl_teach.theory.projection_head import FixedHead, balanced_layers, diagonal_loss, feature_weights
from cl_teach.training import at_scale, device, fit, seed_everything

KAPPAS = (1.0, 1.02, 1.05, 1.2)
TEMPERATURE, WIDTH = 0.2, 128
OPTIONS: dict[str, Any] = {
    "epochs": at_scale(6, 60, smoke=1),
    "batch_size": at_scale(256, 256, smoke=64),
    "learning_rate": 2e-3,
    "weight_decay": 1e-4,
    "progress": False,
}
FEW = at_scale(5000, 5000, smoke=128)  # garments to train on
PROBE_STEPS = at_scale(100, 100, smoke=2)
PROBED = at_scale(2000, 2000, smoke=200)
COARSE = (0, 2, 0, 0, 0, 1, 0, 1, 2, 1)  # Fashion-MNIST: clothes for the upper body, shoes, trousers and bags
Run = dict[str, Any]


def row(task: str, arm: str, seed: int, layer: str, metric: str, target: str, value: float | Tensor) -> Run:
    """One measured number."""
    return dict(task=task, arm=arm, seed=seed, layer=layer, metric=metric, target=target, value=float(value))


# ------------------------------------------------------------------------------------------------------------ linear


def train_linear(seed: int, depth: int) -> list[Run]:
    """Weights of six features after each layer of a deep network, trained on 4,000 pairs."""
    phi = torch.tensor([2, 1.4, 1, 0.7, 0.5, 0.3], dtype=torch.float64)
    alpha = torch.tensor([0.1, 0.3, 0.1, 0.8, 0.1, 0.1], dtype=torch.float64)
    data = gaussian_views(4000, phi, alpha, 0.25, seed=seed, rotate=True, dtype=torch.float64)
    M, C = moments(data.view1, data.view2)
    generator = torch.Generator().manual_seed(seed)
    layers = [w.detach() for w in balanced_layers(depth, 6, 0.3 ** (2 / depth), generator=generator)]
    for _ in range(at_scale(8000, 8000, smoke=10)):
        maps = [torch.eye(6, dtype=torch.float64)]
        for layer in layers:
            maps.append(layer @ maps[-1])
        above, G = torch.eye(6, dtype=torch.float64), linear_model.population_gradient(maps[-1], M, C)
        for i in reversed(range(depth)):  # from the output down
            gradient = above.mT @ G @ maps[i].mT
            above = above @ layers[i]
            layers[i] = layers[i] - 0.02 * gradient
    return [
        row("linear", f"depth {depth}", seed, str(i), "weight", str(k), w)
        for i, weights in enumerate(feature_weights(layers, data.features), start=1)
        for k, w in enumerate(weights)
    ]


def moments(view1: Tensor, view2: Tensor) -> tuple[Tensor, Tensor]:
    """Second moments of sampled pairs, the cross moment made symmetric."""
    M = (view1.mT @ view1 + view2.mT @ view2) / (2 * len(view1))
    C = view1.mT @ view2 / len(view1)
    return M, (C + C.mT) / 2


FEW_LABELS = [("disruption", value, 0.05) for value in (0.0, 0.5, 0.9, 0.99)]
FEW_LABELS += [("strength", value, 0.25) for value in (0.1, 0.3, 1.0, 3.0, 10.0)]


def few_labels(seed: int, arm: str, dim: int = 20, labels: int = 12) -> list[Run]:
    """Accuracy of the least-norm linear probe on ``labels`` samples, on either side of the head.

    Feature 0 alone is changed, and only in pre-training; it is also what the downstream task asks for. The probe has
    fewer samples than coordinates: it fits all of them, and prefers directions of large variance.
    """
    name, value, noise = next(case for case in FEW_LABELS if f"{case[0]} {case[1]:g}" == arm)
    phi, alpha = torch.ones(dim, dtype=torch.float64), torch.full((dim,), 0.1, dtype=torch.float64)
    (alpha if name == "disruption" else phi)[0] = value
    data = gaussian_views(
        at_scale(20_000, 20_000, smoke=500), phi, alpha, noise, seed=seed, rotate=True, dtype=torch.float64
    )
    best = linear_model.minimizer(*moments(data.view1, data.view2), dim)
    values, vectors = torch.linalg.eigh(best.pre_gram)
    below = vectors * values.clamp_min(0).sqrt() @ vectors.mT  # a map with this Gram matrix
    generator = torch.Generator().manual_seed(seed)
    right, repetitions = torch.zeros(2), at_scale(200, 200, smoke=3)
    for _ in range(repetitions):  # downstream: strength 1 for every feature, whatever pre-training saw
        signs = (torch.randint(0, 2, (labels + 500, dim), generator=generator) * 2 - 1).double()
        x = signs @ data.features.mT
        x = x + math.sqrt(noise) * torch.randn(x.shape, generator=generator, dtype=torch.float64)
        for side, head in enumerate((below, best.pre_gram)):
            h = x @ head.mT  # the square of `below` is `pre_gram`: the representation above the head
            probe = torch.linalg.pinv(h[:labels]) @ signs[:labels, 0]
            right[side] += ((h[labels:] @ probe).sign() == signs[labels:, 0]).double().mean() / repetitions
    sides = zip(("pre", "post"), 100 * right, strict=True)
    return [row("few labels", arm, seed, layer, "probe", "feature 0", accuracy) for layer, accuracy in sides]


def threshold(seed: int, b: float) -> list[Run]:
    """Sizes of a fully scrambled feature in the diagonal network, from a random start, with or without threshold."""
    strength = torch.tensor([1.2, 0.9, 1.2, 0.9], dtype=torch.float64)
    disruption = torch.tensor([0.1, 0.3, 1.0, 0.9], dtype=torch.float64)
    w = (0.7 + 0.4 * torch.rand(2, 4, generator=torch.Generator().manual_seed(seed)).double()).requires_grad_()
    for _ in range(at_scale(20_000, 20_000, smoke=20)):
        (gradient,) = torch.autograd.grad(diagonal_loss(w[0], w[1], strength, disruption, b), w)
        w = (w - 0.01 * gradient).detach().requires_grad_()
    pre = w[0].abs() * strength
    post = w[1].abs() * (pre - b).clamp_min(0)
    sizes = {"pre": pre.tolist(), "post": post.tolist()}
    return [
        row("threshold", f"b {b:g}", seed, layer, "weight", str(k), size[k])
        for k in range(4)
        for layer, size in sizes.items()
    ]


# ---------------------------------------------------------------------------------------------------------- encoders


class Encoder(nn.Module):
    """Convolutions, then one linear layer to a representation as wide as the layers of the head."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.convolutions = ConvEncoder(channels, size, width=16)
        self.linear = nn.Linear(self.convolutions.feature_dim, WIDTH)

    def forward(self, images: Tensor) -> Tensor:
        """Represent ``(n, c, h, w)`` as ``(n, 128)``."""
        return self.linear(self.convolutions(images))


@torch.no_grad()
def after_each_layer(encoder: Encoder, head: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Convolutional features, the representation, and the output of every layer of the head, in order."""
    x = encoder.convolutions(images)
    found = {"convolutions": x, "representation": encoder.linear(x)}
    if isinstance(head, ProjectionHead):
        x = found["representation"]
        for part in head.mlp.layers:
            x = part(x)
            if isinstance(part, nn.ReLU):
                found[f"head {len(found) - 1}"] = x
        found["output"] = x
    return found


def share(features: Tensor, labels: Tensor) -> float:
    """Share of the variance that lies between the classes of a factor: how large the factor is in these features."""
    x = features - features.mean(0)
    means = torch.stack([x[labels == k].mean(0) for k in labels.unique()])  # (classes, d)
    weight = torch.stack([(labels == k).float().mean() for k in labels.unique()])
    return float((weight[:, None] * means.square()).sum() / x.square().sum(1).mean())


def red_or_green(features: Tensor, color: Tensor) -> tuple[Tensor, Tensor]:
    """Only the red and the green sprites: their features, and which of the two they are."""
    rows = (color == 0) | (color == 2)
    return features[rows], color[rows] // 2


def new_head(name: str, out: int = WIDTH) -> nn.Module:
    """A trained head of three layers, or a fixed one such as "kappa 1.05"."""
    if name.startswith("kappa"):
        return FixedHead(WIDTH, float(name.split()[1]))
    return ProjectionHead(WIDTH, out, hidden=WIDTH, layers=3)


def train(task: str, arm: str, seed: int) -> list[Run]:
    """Train one encoder and probe it after every layer."""
    torch.set_flush_denormal(True)  # a large kappa makes numbers so small that a processor slows down sixfold
    where = device()
    seed_everything(seed)
    generator = torch.Generator(where).manual_seed(seed)
    crop = partial(random_resized_crop, scale=(0.4, 1.0), flip=0.5)
    noise, turn = partial(gaussian_noise, std=0.05), partial(color_jitter, hue=0.5)
    encoder: Encoder = Encoder(1, 28) if task == "coarse" else Encoder(3, 32)
    head = new_head(arm, 6) if arm == "cross-entropy" else new_head(arm)
    data: tuple[Tensor, ...]
    if task == "coarse":
        garments = fashion_mnist("train", device=where)
        coarse = torch.tensor(COARSE, device=where)
        data, views = (garments.images[:FEW], coarse[garments.labels[:FEW]]), simclr_augment(scale=(0.3, 1.0))
    else:
        tie = {"color": ("shape", 0.95)} if task == "spurious" else None
        pictures = sprites(at_scale(4000, 40_000, smoke=128), seed=10 * seed, correlate=tie, device=where)
        views = Compose([crop, turn, noise] if task == "scramble" and arm != "control" else [crop, noise])
        data = (pictures.images,) if task == "scramble" else (pictures.images, pictures.factors["shape"])

    def embeddings(images: Tensor) -> Tensor:
        return head(encoder(torch.cat([views(images, generator), views(images, generator)])))

    def contrast(z: Tensor) -> Tensor:
        z1, z2 = z.chunk(2)
        return nt_xent(z1, z2, TEMPERATURE)

    losses: dict[str, Callable[..., Tensor]] = {
        "scramble": lambda images: contrast(embeddings(images)),
        "supervised": lambda images, labels: sup_con(embeddings(images), labels.repeat(2), TEMPERATURE),
        "cross-entropy": lambda images, labels: F.cross_entropy(embeddings(images), labels.repeat(2)),
    }
    which = "scramble" if task == "scramble" else arm if arm == "cross-entropy" else "supervised"
    fit(nn.ModuleList([encoder, head]), losses[which], data, seed=seed, **OPTIONS)
    return judge(task, arm, seed, encoder, head, data)


def judge(task: str, arm: str, seed: int, encoder: Encoder, head: nn.Module, data: tuple[Tensor, ...]) -> list[Run]:
    """Probes after every layer; for sprites on pictures in which the factors are independent."""
    if task == "coarse":
        labeled, test = fashion_mnist("train", device=device()), fashion_mnist("test", device=device())
        coarse = torch.tensor(COARSE, device=device())
        targets = {"fine": (labeled.labels[: FEW // 2], test.labels[:PROBED])}
        targets["coarse"] = coarse[targets["fine"][0]], coarse[targets["fine"][1]]
        pictures, probes = labeled.images[: FEW // 2], test.images[:PROBED]
    else:
        free, other = sprites(PROBED, seed=10 * seed + 1, device=device()), sprites(PROBED, seed=10 * seed + 2)
        names = ("shape", "texture") if task == "spurious" else tuple(free.factors)
        targets = {name: (free.factors[name], other.factors[name].to(device())) for name in names}
        pictures, probes = free.images, other.images.to(device())
    a, b = after_each_layer(encoder, head, pictures), after_each_layer(encoder, head, probes)
    tied = after_each_layer(encoder, head, data[0][:PROBED]) if task == "spurious" else {}
    runs = []
    for layer in a:
        for name, (train_y, test_y) in targets.items():
            accuracy = 100 * linear_probe(a[layer], train_y, b[layer], test_y, max_iter=PROBE_STEPS)
            runs.append(row(task, arm, seed, layer, "probe", name, accuracy))
            if not arm.startswith("kappa"):
                runs.append(row(task, arm, seed, layer, "share", name, share(b[layer], test_y)))
        if task == "spurious":
            accuracy = linear_probe(tied[layer], data[1][:PROBED], b[layer], targets["shape"][1], max_iter=PROBE_STEPS)
            runs.append(row(task, arm, seed, layer, "tied probe", "shape", 100 * accuracy))
        if task == "scramble" and not arm.startswith("kappa"):
            # Turning the hue keeps the sum of the channels, which differs between most colors, but not between these.
            (one, one_y), (two, two_y) = (
                red_or_green(x[layer], y) for x, y in zip((a, b), targets["color"], strict=True)
            )
            accuracy = 100 * linear_probe(one, one_y, two, two_y, max_iter=PROBE_STEPS)
            runs.append(row(task, arm, seed, layer, "probe", "red or green", accuracy))
            runs.append(row(task, arm, seed, layer, "share", "red or green", share(two, two_y)))
        runs.append(row(task, arm, seed, layer, "rank", "all", float(effective_rank(b[layer]))))
    return runs


# ----------------------------------------------------------------------------------------------------------- records

KEYS = ("task", "arm", "layer", "target", "metric")
TOP, BOTTOM = "output", "representation"


def measured(rows: dict[str, Any]) -> dict[str, float]:
    """Every number of a seed by its names, and what the claims make of them."""
    found = {" / ".join(r[k] for k in KEYS): r["value"] for each in rows.values() for r in each}
    for layer in ("1", "2", "3"):
        weights = [found[f"linear / depth 3 / {layer} / {k} / weight"] for k in range(6)]
        found[f"uneven {layer}"] = max(weights) / min(weights)
    for arm in ("control", "head"):
        high, low = (found[f"scramble / {arm} / {layer} / color / probe"] for layer in (TOP, BOTTOM))
        found[f"color lost {arm}"] = low - high
    for layer in (TOP, BOTTOM):
        found[f"hue {layer}"] = 100 * found[f"scramble / head / {layer} / red or green / share"]
        factors = ("shape", "color", "texture", "column", "row", "size")
        shares = [found[f"scramble / head / {layer} / {name} / share"] for name in factors]
        found[f"uneven {layer}"] = max(shares) / min(shares)
    return found


def claim(
    claim_id: str,
    sentence: str,
    words: str,
    names: tuple[str, str],
    *sides: str,
    effect: tuple[str, float | None, str] = ("points", None, ""),
    **more: Any,
) -> Claim:
    """A claim of two derived numbers."""
    baseline, method = (f"derived:{each}" for each in sides)
    unit, smallest, reason = effect
    return Claim(claim_id, sentence, Metric(words, "", unit, smallest, reason), baseline, method, names=names, **more)


SIDES = ("above the head", "below the head")
RATIO = ("", 0.1, "A tenth of a ratio.")
LABELS = "20 features, the exact minimizer on 20,000 sampled pairs, 200 draws of the labels a seed."
CASES = (
    ("linear-disrupted", "disruption 0.9", "that the augmentation scrambles in 90 % of the pairs"),
    ("linear-weak", "strength 0.1", "that is too weak in pre-training (a tenth of the others)"),
    ("linear-strong", "strength 10", "that is too strong in pre-training (ten times the others)"),
)
WITHOUT = (
    ("probe", "", "fitted on 2,000 sprites without the tie"),
    ("tied probe", "-tied", "fitted on 2,000 of the tied training sprites"),
)
READ = (
    ("scramble", "color", "the scrambled color"),
    ("coarse", "fine", "fine classes after coarse labels"),
    ("spurious", "shape", "the shape beside a spurious color"),
)
CLAIMS = [
    claim(
        "linear-uneven",
        "Features become more unequal from layer to layer of a deep linear network.",
        "Largest over smallest feature weight",
        ("layer 1 of 3", "layer 3 of 3"),
        "uneven 1",
        "uneven 3",
        effect=RATIO,
        note="Six features, 4,000 sampled pairs a seed, gradient descent from balanced layers.",
    ),
    *(
        claim(
            claim_id,
            f"Below a linear head, a few labels find a feature {words} more often.",
            "Accuracy of a least-norm probe with 12 labels",
            SIDES,
            *(f"few labels / {arm} / {layer} / feature 0 / probe" for layer in ("post", "pre")),
            note=LABELS,
        )
        for claim_id, arm, words in CASES
    ),
    claim(
        "threshold",
        "A threshold lets the head delete a scrambled feature that the layer below keeps.",
        "Size of the fully scrambled feature after training",
        SIDES,
        *(f"threshold / b 0.3 / {layer} / 2 / weight" for layer in ("post", "pre")),
        effect=("", 0.05, "A twentieth of the size that the feature starts with."),
        note="Diagonal network, threshold 0.3, random starts; with feature strength 1.2.",
    ),
    claim(
        "scrambled-color",
        "The color that the views scramble is easier to read below the head.",
        "Linear-probe accuracy for the color of sprites",
        SIDES,
        *(f"scramble / head / {layer} / color / probe" for layer in (TOP, BOTTOM)),
        headline=True,
        note="SimCLR, all layers 128 wide, 6 classes.",
    ),
    claim(
        "scrambled-color-control",
        "It is the scrambling: with the hue left alone, the head takes less of the color.",
        "Color accuracy lost in the head",
        ("hue left alone", "hue scrambled"),
        "color lost control",
        "color lost head",
        origin="ours",
    ),
    claim(
        "red-or-green",
        "Red and green, which differ in hue alone, are easier to tell apart below the head.",
        "Linear-probe accuracy, red against green sprites",
        SIDES,
        *(f"scramble / head / {layer} / red or green / probe" for layer in (TOP, BOTTOM)),
        origin="ours",
        note="SimCLR with scrambled hue; chance is 50 %.",
    ),
    claim(
        "red-or-green-share",
        "The size of the scrambled hue falls in the head.",
        "Share of the variance between red and green sprites",
        ("below the head", "above the head"),
        f"hue {BOTTOM}",
        f"hue {TOP}",
        expected="lower",
        origin="ours",
        note="SimCLR with scrambled hue.",
    ),
    claim(
        "shares-uneven",
        "The factors of sprites become more unequal in size in the head of a trained network.",
        "Largest over smallest share of the variance between values of a factor",
        ("below the head", "above the head"),
        f"uneven {BOTTOM}",
        f"uneven {TOP}",
        effect=RATIO,
        origin="ours",
        note="SimCLR with scrambled hue, six factors.",
    ),
    claim(
        "kept-shape",
        "Even a factor that the views keep, the shape, is easier to read below the head.",
        "Linear-probe accuracy for the shape of sprites",
        SIDES,
        *(f"scramble / head / {layer} / shape / probe" for layer in (TOP, BOTTOM)),
        origin="ours",
        note="SimCLR with scrambled hue.",
    ),
    claim(
        "coarse-to-fine",
        "After supervised contrast with coarse labels, fine classes are easier to read below the head.",
        "Linear-probe accuracy for ten classes of Fashion-MNIST",
        SIDES,
        *(f"coarse / head / {layer} / fine / probe" for layer in (TOP, BOTTOM)),
        note="SupCon with three coarse classes.",
    ),
    *(
        claim(
            f"spurious-{arm.replace('head', 'supcon')}{suffix}",
            f"After {name} with a spurious color, the shape is easier to read below the head.",
            f"Accuracy for shape without the tie, probe {words}",
            SIDES,
            *(f"spurious / {arm} / {layer} / shape / {metric}" for layer in (TOP, BOTTOM)),
            origin="paper" if (arm, suffix) == ("head", "") else "ours",
            note="Color names the shape in 95 % of the training sprites.",
        )
        for arm, name in (("head", "SupCon"), ("cross-entropy", "cross-entropy"))
        for metric, suffix, words in WITHOUT
    ),
    *(
        claim(
            f"{ending}-head-{task}",
            f"Training through a {ending} head makes {words} easier to read from the representation.",
            "Linear-probe accuracy of the representation",
            ("no head", name),
            f"{task} / kappa 1 / {BOTTOM} / {target} / probe",
            f"{task} / {arm} / {BOTTOM} / {target} / probe",
            origin="paper" if ending == "fixed" else "ours",
        )
        for task, target, words in READ
        for arm, name, ending in (
            ("head", "trained head", "trained"),
            ("kappa 1.05", "fixed head, kappa 1.05", "fixed"),
        )
    ),
]


def trial(seed: int, task: str, arm: str) -> list[Run]:
    """All numbers of one task and arm."""
    if task == "linear":
        return train_linear(seed, int(arm.split()[1]))
    if task == "few labels":
        return few_labels(seed, arm)
    if task == "threshold":
        return threshold(seed, float(arm.split()[1]))
    return train(task, arm, seed)


TASKS = {
    "linear": [f"depth {depth}" for depth in (1, 2, 3)],
    "few labels": [f"{name} {value:g}" for name, value, _ in FEW_LABELS],
    "threshold": ["b 0.3", "b 0"],
    "scramble": ["control", "head", *(f"kappa {kappa:g}" for kappa in KAPPAS)],
    "spurious": ["cross-entropy", "head", *(f"kappa {kappa:g}" for kappa in KAPPAS)],
    "coarse": ["head", *(f"kappa {kappa:g}" for kappa in KAPPAS)],
}
EXPERIMENT = Experiment(
    "projection-head",
    {f"{task} / {arm}": {"task": task, "arm": arm} for task, arms in TASKS.items() for arm in arms},
    trial,
    CLAIMS,
    derive=measured,
)

if __name__ == "__main__":
    main(__file__, EXPERIMENT)
