"""Do learned views help a sequence model, at equal updates of the encoder? MCLRec on walks with and without taste.

Users walk over 200 items of ten topics. Without *taste* the last item says all there is to know of the next; with it
a user comes back to a topic of their own, and the whole sequence counts. The model sees random prefixes of 12 items
and is asked for the thirteenth, among all items. Arms, all with as many updates of the encoder: *next item only*;
*plain views*, two random augmentations in contrast; *jointly*, learned views, everything trained at once; *in turns*,
MCLRec, which updates the encoder twice a step and so takes half as many steps; and *in turns, as many steps*, which
updates it twice as often. Without training: *successors*, how often an item followed the last one in the training, and
*popular*. The learning rate is tuned for every arm alike, on other walks with taste.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from _runner import LOOKS, Claim, Experiment, Metric, Tuning, main
from torch import Tensor

from cl_teach.datasets.interactions import ItemSequences, item_sequences
from cl_teach.evaluation import ndcg
from cl_teach.graphs.mclrec import MCLRec
from cl_teach.models.item_sequences import SequenceEncoder
from cl_teach.training import at_scale, seed_everything

USERS, ITEMS, TOPICS, LENGTH = at_scale(800, 5000, smoke=40), 200, 10, 12
UPDATES, BATCH, DIM = at_scale(160, 3000, smoke=4), 64, 32
TASTE = {"taste": 0.6, "no taste": 0.0}


@cache
def walks(world: str, seed: int) -> ItemSequences:
    """What users bought, and what comes next."""
    return item_sequences(USERS, ITEMS, TOPICS, LENGTH, stay=0.3, follow=0.3, taste=TASTE[world], seed=seed)


def prefixes(sequences: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Every sequence cut at a random place, padded on the left, and the item that comes there."""
    n, length = sequences.shape
    cut = torch.randint(3, length, (n, 1), generator=generator)
    source = torch.arange(length)[None, :] + cut - length
    return sequences.gather(1, source.clamp_min(0)).masked_fill(source < 0, 0), sequences.gather(1, cut)[:, 0]


def scores(arm: str, data: ItemSequences, learning_rate: float, seed: int) -> Tensor:
    """``(n, items)`` scores of the next item."""
    past, last = data.sequences[:, :-1].flatten(), data.sequences[:, -1]
    follows = torch.zeros(ITEMS + 1, ITEMS + 1)
    follows.index_put_((past, data.sequences[:, 1:].flatten()), torch.ones(len(past)), accumulate=True)
    popular = follows.sum(0)[1:]
    if arm == "popular":
        return popular.expand(len(last), -1)
    if arm == "successors":  # ties by popularity
        return follows[last, 1:] + popular / popular.sum()
    seed_everything(seed)
    draws = torch.Generator().manual_seed(seed)
    weights = {"next": (0.0, 0.0), "plain": (0.1, 0.0)}.get(arm, (0.1, 0.1))
    model = MCLRec(
        SequenceEncoder(ITEMS, DIM, LENGTH),
        plain_weight=weights[0],
        learned_weight=weights[1],
        learning_rate=learning_rate,
    )
    for _ in range(UPDATES // 2 if arm == "turns" else UPDATES):
        rows = torch.randperm(len(last), generator=draws)[:BATCH]
        batch = prefixes(data.sequences[rows], draws)
        if arm == "next":  # no views are made: the two encodings they cost would count for nothing
            logits = model(batch[0]) @ model.encoder.items.weight[1:].mT
            model.encoder_optimizer.zero_grad()
            torch.nn.functional.cross_entropy(logits, batch[1] - 1).backward()
            model.encoder_optimizer.step()
        else:
            model.step(batch, joint=arm in ("plain", "joint"), generator=draws)
    return model.eval().scores(data.sequences)


def trial(seed: int, arm: str, world: str, learning_rate: float) -> dict[str, float]:
    """NDCG@10 in percent, and Recall@10."""
    data = walks(world, seed)
    ranked = scores(arm, data, learning_rate, seed)
    asked = torch.nn.functional.one_hot(data.targets - 1, ITEMS)
    own = ranked.gather(1, data.targets[:, None] - 1)
    return {
        "ndcg": 100 * ndcg(ranked, asked.float(), 10),
        "recall": 100 * float(((ranked > own).sum(1) < 10).double().mean()),
    }


def score(seed: int, **settings: Any) -> float:
    """NDCG on walks that no record has."""
    return trial(seed, **settings)["ndcg"]


NAMES = {
    "next": "next item only",
    "plain": "plain views",
    "joint": "learned views, jointly",
    "turns": "MCLRec, in turns",
    "turns, longer": "MCLRec, twice as many updates",
    "successors": "counts of successors",
    "popular": "popularity",
}
ARMS = {
    f"{world}, {arm}": {"arm": arm, "world": world}
    for world in TASTE
    for arm in NAMES
    if world == "taste" or arm in ("next", "turns", "successors")
}
for settings in ARMS.values():
    settings |= {"learning_rate": 0.0} if settings["arm"] in ("successors", "popular") else {}
NDCG = Metric("NDCG@10 of the next item among 200", "ndcg", "points")


def claim(name: str, sentence: str, one: str, other: str, world: str = "taste", **rest: Any) -> Claim:
    """One row; arms are named by world and arm."""
    return Claim(name, sentence, NDCG, f"{world}, {one}", f"{world}, {other}", **rest)


EXPERIMENT = Experiment(
    "mclrec",
    ARMS,
    trial,
    [
        claim(
            "turns",
            "Where taste matters, MCLRec recommends better than next item only, at equal encoder updates.",
            "next",
            "turns",
            headline=True,
        ),
        claim("turns-joint", "Turns are better than training jointly, at equal encoder updates.", "joint", "turns"),
        claim("learned", "Learned views are better than plain ones, at equal encoder updates.", "plain", "turns"),
        claim("plain", "Plain views are better than none, at equal encoder updates.", "next", "plain", origin="ours"),
        claim(
            "longer",
            "With twice as many updates MCLRec recommends better than next item only.",
            "next",
            "turns, longer",
            origin="ours",
        ),
        claim(
            "no-taste",
            "Where only the last item counts, MCLRec is better than next item only.",
            "next",
            "turns",
            "no taste",
            origin="ours",
        ),
        claim(
            "successors", "MCLRec recommends better than counts of successors.", "successors", "turns", origin="ours"
        ),
    ],
    {f"{world}, {arm}": words for world in TASTE for arm, words in NAMES.items()},
    f"{USERS} users, 200 items, {UPDATES} updates of the encoder in batches of {BATCH}. "
    "Learning rate tuned for every arm alike on other walks with taste.",
    seeds=range(20),
    looks=LOOKS,
    tuning=Tuning(
        {"learning_rate": (2e-3, 5e-3, 1.2e-2)},
        score,
        like={"taste, turns, longer": "taste, turns"}
        | {f"no taste, {arm}": f"taste, {arm}" for arm in ("next", "turns")},
    ),
)

if __name__ == "__main__":
    main(__file__, EXPERIMENT)
