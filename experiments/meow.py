"""Which weights of negatives help? MEOW on a generated network of papers, authors and subjects.

300 papers of three classes; features of papers say little, those of their authors much. Arms: *plain*, InfoNCE
between the coarse and the fine view; *MEOW*, negatives of one cluster left out, with prototypes; *without prototypes*;
*learned* weights (AdaMEOW) and *centered* ones; *oracle*, negatives of one class left out, by the labels. Without
training: the features of papers, and the mean features of their authors. Measured on the frozen fine view: a linear
probe that knows 20 papers of each class, and normalized mutual information of K-means. The learning rate is tuned for
every arm alike, by the probe on other networks. And on IMDB, films with actors and directors, where the wheel
``graphdatascience`` and ``pyarrow`` are installed: two arms, and those without training.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import torch
from _data import nodes
from _runner import LOOKS, Claim, Experiment, Metric, Tuning, main
from torch import Tensor

from cl_teach.datasets.installed import imdb
from cl_teach.datasets.networks import PaperNetwork, paper_network
from cl_teach.graphs.meow import MEOW
from cl_teach.models.meta_paths import MetaPath, MetaPathNetwork
from cl_teach.training import at_scale, seed_everything

EPOCHS, EACH, CLASSES = at_scale(100, 500, smoke=2), 20, 3
COUNTS = (6, 12)
FILM_EPOCHS = at_scale(40, 300, smoke=1)


@cache
def network_of(seed: int, world: str) -> PaperNetwork:
    """Papers, authors, subjects; or the films whose genre is known with their actors and directors in these places."""
    if world == "generated":
        return paper_network(seed=seed)
    data = imdb()
    known = data.labels >= 0
    acted, directed = data.acted[known], data.directed[known]
    actors, directors = acted.sum(0) > 0, directed.sum(0) > 0
    people = data.actors[actors], data.directors[directors], acted[:, actors], directed[:, directors]
    return PaperNetwork(data.films[known], *people, data.labels[known])


def train(arm: str, learning_rate: float, seed: int, world: str) -> Tensor:
    """Features ``(n, d)`` of all papers."""
    data, draws = network_of(seed, world), torch.Generator().manual_seed(seed)
    if arm == "papers":
        return data.papers
    if arm == "authors":
        return data.writes @ data.authors / data.writes.sum(1, keepdim=True)
    seed_everything(seed)
    paths = [MetaPath(data.authors, data.writes), MetaPath(data.subjects, data.about)]
    network = MetaPathNetwork(data.papers, paths, 32, generator=draws)
    weights: str | Tensor = {"meow": "clusters", "no prototypes": "clusters"}.get(arm, arm)
    if arm == "oracle":
        weights = (data.labels[:, None] != data.labels[None, :]).float()
    prototypes = 0.0 if arm == "no prototypes" else 1.0
    chosen = "plain" if arm == "untrained" else weights
    model = MEOW(network, weights=chosen, counts=COUNTS, prototype_weight=prototypes)
    if arm != "untrained":
        optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
        for _ in range(EPOCHS if world == "generated" else FILM_EPOCHS):
            optimizer.zero_grad()
            model.loss(generator=draws).backward()
            optimizer.step()
    with torch.no_grad():
        return model.eval()()


def trial(seed: int, arm: str, learning_rate: float, world: str = "generated") -> dict[str, float]:
    """Train and measure one arm."""
    features, labels = train(arm, learning_rate, seed, world), network_of(seed, world).labels
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    known = torch.cat([order[labels[order] == c][:EACH] for c in range(CLASSES)])
    asked = order[~torch.isin(order, known)]
    return nodes(features, labels, known, asked, seed)


def score(seed: int, **settings: Any) -> float:
    """Accuracy of the probe on networks that no record has."""
    return trial(seed, **settings)["probe"]


NAMES = {
    "plain": "InfoNCE",
    "meow": "MEOW",
    "no prototypes": "MEOW without prototypes",
    "learned": "learned weights",
    "centered": "learned weights, centered",
    "oracle": "negatives of other classes only",
    "untrained": "untrained network",
    "authors": "mean features of the authors",
    "papers": "features of the papers",
}
PROBE = Metric("Accuracy of a linear probe, 20 labeled papers a class", "probe", "points")
NMI = Metric(
    "Normalized mutual information of K-means and classes",
    "nmi",
    smallest_effect=0.02,
    reason="A fiftieth of the way from chance to a perfect partition.",
)
NO_TRAINING = ("untrained", "authors", "papers")
GENERATED = Experiment(
    "meow",
    {arm: {"arm": arm} | ({"learning_rate": 0.0} if arm in NO_TRAINING else {}) for arm in NAMES},
    trial,
    [
        Claim(
            "probe",
            "MEOW classifies papers better than InfoNCE on the same views.",
            PROBE,
            "plain",
            "meow",
            headline=True,
        ),
        Claim("clusters", "MEOW clusters papers better than InfoNCE on the same views.", NMI, "plain", "meow"),
        Claim(
            "prototypes", "Prototypes add to the weights of negatives.", PROBE, "no prototypes", "meow", origin="ours"
        ),
        Claim("learned", "Learned weights classify better than clusters.", PROBE, "meow", "learned"),
        Claim(
            "centered",
            "Learned weights are better when rows have mean one.",
            PROBE,
            "learned",
            "centered",
            origin="ours",
        ),
        Claim(
            "oracle",
            "Leaving out true false negatives classifies better than leaving out clusters.",
            PROBE,
            "meow",
            "oracle",
            origin="ours",
        ),
        Claim(
            "authors",
            "MEOW classifies better than the mean features of the authors.",
            PROBE,
            "authors",
            "meow",
            origin="ours",
        ),
        Claim(
            "untrained", "MEOW classifies better than an untrained network.", PROBE, "untrained", "meow", origin="ours"
        ),
    ],
    NAMES,
    f"Generated networks of 300 papers, {EPOCHS} epochs of Adam, clusterings of 6 and 12. "
    "Learning rate tuned for every arm alike on other networks.",
    seeds=range(20),
    looks=LOOKS,
    tuning=Tuning(
        {"learning_rate": (1e-3, 3e-3, 1e-2)},
        score,
        like={"no prototypes": "meow", "oracle": "plain", "centered": "learned"},
    ),
)

FILM_PROBE = replace(PROBE, words="Accuracy of a linear probe, 20 labeled films a genre")
FILM_NMI = replace(NMI, words="Normalized mutual information of K-means and genres of films")
FILMS = Experiment(
    "meow",
    {
        arm: {"world": "imdb", "arm": arm, "learning_rate": rate}
        for arm, rate in {"plain": 3e-3, "meow": 3e-3, "untrained": 0.0, "authors": 0.0, "papers": 0.0}.items()
    },
    trial,
    [
        Claim("imdb-probe", "On IMDB, MEOW classifies films better than InfoNCE.", FILM_PROBE, "plain", "meow"),
        Claim("imdb-clusters", "On IMDB, MEOW clusters films better than InfoNCE.", FILM_NMI, "plain", "meow"),
        Claim(
            "imdb-actors",
            "On IMDB, MEOW classifies films better than the mean features of their actors.",
            FILM_PROBE,
            "authors",
            "meow",
            origin="ours",
        ),
    ],
    NAMES | {"authors": "mean features of the actors", "papers": "features of the films"},
    f"2,939 films of three genres with their actors and directors, {FILM_EPOCHS} epochs of Adam at 0.003, nothing "
    "tuned; clusterings of 6 and 12. Seeds differ in the network, the draws and the labels that are known.",
    runs="meow-imdb",
    needs=imdb,
)
EXPERIMENTS = (GENERATED, FILMS)

if __name__ == "__main__":
    main(__file__, *EXPERIMENTS)
