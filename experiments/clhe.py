"""What do the two contrasts of CLHE buy? Bundles of generated items, some without feedback, some incomplete.

300 items of twelve styles with noisy content, text and a vector from feedback, which 30 % of the items lack; 60 bundles
of four to six items of one style to learn from, 40 others to complete. Arms: *no contrast*; *items*, the contrast of
two views of an item with descriptions dropped; *bundles*, of a bundle and a part of it; *both*, the method. Without
training: *content*, the items whose content and text are most like the mean of those given. Precision: the share of
items of the right style among the ten best, with one, two or three items given; *dropped*: with two given and all
feedback missing at the test; *cosine*: how alike a bundle's vector is with and without feedback. The learning rate is
tuned for every arm alike, on other items.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from _runner import LOOKS, Claim, Experiment, Metric, Tuning, main
from torch import Tensor
from torch.nn import functional as F

from cl_teach.core import normalize
from cl_teach.datasets.networks import ItemBundles, item_bundles
from cl_teach.graphs.clhe import CLHE
from cl_teach.training import at_scale, seed_everything

EPOCHS = at_scale(80, 400, smoke=2)
WEIGHTS = {"none": (0.0, 0.0), "items": (0.5, 0.0), "bundles": (0.0, 0.5), "both": (0.5, 0.5), "untrained": (0.0, 0.0)}
TOP = 10


@cache
def shop(seed: int) -> ItemBundles:
    """Items and bundles."""
    return item_bundles(noise=2.0, seed=seed)


def train(arm: str, learning_rate: float, seed: int) -> CLHE:
    """One arm; a step sees all bundles."""
    data, draws = shop(seed), torch.Generator().manual_seed(seed)
    seed_everything(seed)
    sources = (data.content, data.text, data.feedback)
    model = CLHE(sources, data.warm, weights=WEIGHTS[arm], temperatures=(0.5, 0.2))
    if arm != "untrained":
        optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, weight_decay=1e-5)
        for _ in range(EPOCHS):
            optimizer.zero_grad()
            model.loss(data.train, generator=draws).loss.backward()
            optimizer.step()
    return model.eval()


def precision(scores: Tensor, given: list[Tensor], styles: Tensor) -> float:
    """Share of items of the bundle's style among the ten best that were not given, in percent."""
    for row, bundle in zip(scores, given, strict=True):
        row[bundle] = -torch.inf
    wanted = styles[torch.stack([bundle[0] for bundle in given])]
    return 100 * float((styles[scores.topk(TOP).indices] == wanted[:, None]).double().mean())


@torch.no_grad()
def trial(seed: int, arm: str, learning_rate: float) -> dict[str, float]:
    """Measure one arm."""
    data = shop(seed)
    dropped = torch.zeros(len(data.styles), 3, dtype=torch.bool)
    dropped[:, 2] = True
    found = {}
    if arm == "content":
        looks = normalize(torch.cat([normalize(data.content), normalize(data.text)], 1))
        for k in (1, 2, 3):
            given = [bundle[:k] for bundle in data.test]
            found[f"given {k}"] = precision(
                torch.stack([looks[b].mean(0) for b in given]) @ looks.mT, given, data.styles
            )
        return found | {"dropped": found["given 2"], "cosine": 1.0}
    with torch.enable_grad():
        model = train(arm, learning_rate, seed)
    for k in (1, 2, 3):
        given = [bundle[:k] for bundle in data.test]
        found[f"given {k}"] = precision(model.scores(given), given, data.styles)
    two = [bundle[:2] for bundle in data.test]
    found["dropped"] = precision(model.scores(two, dropped=dropped), two, data.styles)
    found["cosine"] = float(F.cosine_similarity(model(two), model(two, dropped=dropped)).mean())
    return found


def score(seed: int, **settings: Any) -> float:
    """Precision with two items given, on items that no record has."""
    return trial(seed, **settings)["given 2"]


NAMES = {
    "none": "no contrast",
    "items": "contrast of items",
    "bundles": "contrast of bundles",
    "both": "CLHE, both contrasts",
    "untrained": "untrained",
    "content": "likeness of content",
}
ONE, TWO, MISSING = (
    Metric(f"Items of the right style among the ten best, {words}", key, "points")
    for key, words in (("given 1", "one given"), ("given 2", "two given"), ("dropped", "two given, no feedback"))
)
COSINE = Metric(
    "Cosine of bundle vectors with and without feedback",
    "cosine",
    smallest_effect=0.01,
    reason="A hundredth of the way from unrelated to equal.",
)
EXPERIMENT = Experiment(
    "clhe",
    {arm: {"arm": arm} | ({"learning_rate": 0.0} if arm in ("untrained", "content") else {}) for arm in NAMES},
    trial,
    [
        Claim("complete", "Both contrasts complete bundles better than none.", TWO, "none", "both", headline=True),
        Claim("one-given", "Both contrasts help most where one item is given.", ONE, "none", "both"),
        Claim("missing", "Both contrasts help where feedback is missing.", MISSING, "none", "both"),
        Claim("bundles", "The contrast of bundles helps.", TWO, "none", "bundles"),
        Claim("items", "The contrast of items helps.", TWO, "none", "items"),
        Claim("vector", "The contrast of items keeps vectors where feedback is missing.", COSINE, "none", "items"),
        Claim(
            "content", "CLHE completes bundles better than likeness of content.", TWO, "content", "both", origin="ours"
        ),
        Claim(
            "content-one",
            "With one item given, too, CLHE is better than likeness of content.",
            ONE,
            "content",
            "both",
            origin="ours",
        ),
        Claim("untrained", "CLHE completes bundles better than untrained.", TWO, "untrained", "both", origin="ours"),
    ],
    NAMES,
    f"300 items, 60 bundles, {EPOCHS} steps of Adam on all bundles. Learning rate tuned for every arm alike on "
    "other items.",
    seeds=range(20),
    looks=LOOKS,
    tuning=Tuning({"learning_rate": (2e-3, 6e-3, 2e-2)}, score),
)

if __name__ == "__main__":
    main(__file__, EXPERIMENT)
