"""Learning without negatives on Fashion-MNIST: with a trained, a computed and no predictor; with and without
stop-gradient.

Every arm has the same encoder, the same initial weights for a seed, the same views, batch size, number of steps,
optimizer and momentum teacher. The embeddings have no batch normalization at their end, which would hide a collapse.

- ``trained``: a linear predictor, trained with the rest (the baseline of the paper);
- ``mlp``: a predictor with one hidden layer, as in BYOL and SimSiam;
- ``directpred``, ``directcopy``: a linear predictor that is set from the correlation of the embeddings;
- ``no-predictor``: the identity;
- ``no-stop-gradient``: a trained linear predictor, the online network as its own target, gradient on both sides.

kNN is that of the features below the head; the effective rank is that of the test embeddings that the loss sees.

Nothing was tuned for these arms. That is unfair to the trained predictor, which a larger learning rate of its own
helps; ``directpred-tuned`` compares again (the headline): the learning rate of both is tuned alike, and that of the
predictor, as a multiple, where there is one to train.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from _data import garments, knn, rows
from _runner import LOOKS, Claim, Experiment, Metric, Tuning, main
from torch import Tensor, nn
from torch.nn import functional as F

from cl_teach.augment import simclr_augment
from cl_teach.core import MomentumTeacher, normalize
from cl_teach.datasets import ImageSet, fashion_mnist
from cl_teach.evaluation import effective_rank, embed
from cl_teach.models import ConvEncoder, PredictionHead, ProjectionHead
from cl_teach.theory.directpred import DirectPredictor, byol_loss
from cl_teach.training import at_scale, device, fit, seed_everything

ARMS = ("trained", "mlp", "directpred", "directcopy", "no-predictor", "no-stop-gradient")
DIM = 64
EPOCHS = at_scale(6, 100, smoke=1)
OPTIONS: dict[str, Any] = {"batch_size": at_scale(256, 256, smoke=64), "weight_decay": 1e-4, "progress": False}


@cache
def data(tuned: bool) -> ImageSet:
    """All training images, or those that leave some to tune on."""
    few = at_scale(None, None, smoke=200)
    return garments().train if tuned else rows(fashion_mnist("train", device=device()), slice(few))


class Faster(nn.Linear):
    """A linear map whose learning rate under Adam is ``times`` that of the others.

    Adam's steps do not depend on the size of a gradient. So the weights are stored ``times`` smaller than they count.
    """

    def __init__(self, dim: int, times: float) -> None:
        super().__init__(dim, dim, bias=False)
        self.times = times
        with torch.no_grad():
            self.weight.div_(times)

    def forward(self, z: Tensor) -> Tensor:
        """``(n, dim)`` to ``(n, dim)``."""
        return F.linear(z, self.times * self.weight)


def make_predictor(arm: str, faster: float) -> nn.Module:
    """The predictor of an arm."""
    if arm == "mlp":
        return PredictionHead(DIM)
    if arm in ("directpred", "directcopy"):
        return DirectPredictor(DIM, form="code" if arm == "directpred" else "copy")
    if arm == "no-predictor":
        return nn.Identity()
    return Faster(DIM, faster)


def train(
    seed: int, arm: str, rate: float = 2e-3, faster: float = 1.0, tuned: bool = False
) -> tuple[nn.Module, nn.Module, Tensor]:
    """One run; returns encoder, head and the loss of every step."""
    seed_everything(seed)
    encoder = ConvEncoder(width=16)
    head = ProjectionHead(encoder.feature_dim, DIM, hidden=128)
    online = nn.Sequential(encoder, head).to(device())
    predictor = make_predictor(arm, faster).to(device())
    teacher = MomentumTeacher(online, momentum=0.99)
    augment, generator = simclr_augment(scale=(0.3, 1.0)), torch.Generator(device()).manual_seed(seed)

    def step(batch: Tensor) -> Tensor:
        views = torch.cat([augment(batch, generator), augment(batch, generator)])
        z1, z2 = online(views).chunk(2)
        if isinstance(predictor, DirectPredictor):
            predictor.update(z1, z2)
        p1, p2 = predictor(torch.cat([z1, z2])).chunk(2)
        if arm == "no-stop-gradient":  # byol_loss detaches its targets, so the cosines are written out here
            cosines = (normalize(p1) * normalize(z2)).sum(1) + (normalize(p2) * normalize(z1)).sum(1)
            return -2 * cosines.mean()
        t1, t2 = teacher(views).chunk(2)
        return byol_loss(p1, p2, t2, t1)

    history = fit(
        nn.ModuleList([online, predictor]),
        step,
        data(tuned).images,
        epochs=EPOCHS,
        learning_rate=rate,
        seed=seed,
        after_step=lambda: teacher.update(online),
        **OPTIONS,
    )
    return encoder, head, history.losses


def trial(seed: int, **settings: Any) -> dict[str, float]:
    """Where the embeddings are and what the features are worth."""
    encoder, head, losses = train(seed, **settings)
    test = garments().test
    z = normalize(embed(nn.Sequential(encoder, head), test.images))
    return {
        "loss": losses[-20:].mean().item(),
        "rank": effective_rank(z).item(),
        "spread": (z.std(0) * DIM**0.5).mean().item(),  # 1: directions all over the sphere, 0: collapsed
        "knn": knn(encoder, data(settings.get("tuned", False)), test),
    }


def score(seed: int, **settings: Any) -> float:
    """KNN accuracy on the images to tune on."""
    return knn(train(seed, **settings)[0], data(True), garments().held_out)


KNN = Metric("kNN accuracy", "knn", "points")
RANK = Metric("Effective rank of the embeddings", "rank", "", 1.0, "One dimension.")
SPREAD = Metric("Spread", "spread", "", 0.05, "A twentieth of the spread of directions over the whole sphere.")
BETTER = "DirectPred learns better features than a trained linear predictor"
EXPERIMENTS = (
    Experiment(
        "directpred",
        {arm: {"arm": arm} for arm in ARMS},
        trial,
        [
            Claim(
                "predictor-needed",
                "Without a predictor the embeddings spread less.",
                SPREAD,
                "trained",
                "no-predictor",
                "lower",
            ),
            Claim(
                "stop-gradient-needed",
                "Without the stop-gradient the embeddings spread less, down to collapse.",
                SPREAD,
                "trained",
                "no-stop-gradient",
                "lower",
            ),
            Claim(
                "directpred-keeps-rank",
                "A computed predictor keeps more dimensions than none.",
                RANK,
                "no-predictor",
                "directpred",
                origin="ours",
            ),
            Claim("directpred-beats-linear", f"{BETTER}.", KNN, "trained", "directpred"),
            Claim(
                "directcopy-beats-linear",
                "DirectCopy learns better features than a trained linear predictor.",
                KNN,
                "trained",
                "directcopy",
            ),
        ],
        {arm: arm.replace("-", " ") for arm in ARMS},
        f"Fashion-MNIST subset, {EPOCHS} epochs, the same settings for every arm.",
    ),
    Experiment(
        "directpred",
        {
            "trained": {"arm": "trained", "tuned": True},
            "directpred": {"arm": "directpred", "tuned": True, "faster": 1.0},
        },
        trial,
        [Claim("directpred-beats-linear-tuned", f"{BETTER}, both tuned.", KNN, "trained", "directpred", headline=True)],
        note=f"Fashion-MNIST, 8,000 images, {EPOCHS} epochs; learning rates tuned alike, the predictor's too.",
        seeds=range(LOOKS[-1]),
        looks=LOOKS,
        tuning=Tuning({"rate": (1e-3, 2e-3, 4e-3), "faster": (1.0, 10.0, 100.0)}, score),
        runs="directpred-tuned",
    ),
)

if __name__ == "__main__":
    main(__file__, *EXPERIMENTS)
