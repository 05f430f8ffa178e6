"""What helps an item that nobody has met? A gate over fields and a contrast of pairs, on generated users and items.

100 users and 300 items with twelve fields each, of which three decide who likes what; 40 % of the items are never met.
(In a first world, with 400 users and 15 % cold items, every arm but the gate found all of them: no room.) Every arm
knows the same fields and ids and hides them at random in training. Arms: *mean* of the fields, the fair content
baseline; *contrast*, the mean with the contrast of pairs; *gate*; *gate and contrast*, the method. Without training:
*overlap*, how many fields agree, and *oracle fields*, how many of the three that decide do. Recall@10 of liked items
among the cold ones and among the warm ones that were not met. Two interactions a user, and five. The learning rate is
tuned for every arm alike in worlds of their own.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from _runner import LOOKS, Claim, Experiment, Metric, Tuning, main

from cl_teach.datasets.networks import AttributedInteractions, attributed_interactions
from cl_teach.evaluation import recall_at_k
from cl_teach.graphs.cold_start import ColdStart, draw_batch
from cl_teach.training import at_scale, seed_everything

STEPS, BATCH = at_scale(100, 2000, smoke=4), 128
INFORMATIVE = 3


@cache
def world(seed: int, met: int) -> AttributedInteractions:
    """Users, items and what they like."""
    return attributed_interactions(100, 300, 12, 3, informative=INFORMATIVE, met=met, cold=0.4, seed=seed)


def train(arm: str, met: int, learning_rate: float, seed: int) -> ColdStart:
    """The fused vectors of one arm."""
    data, draws = world(seed, met), torch.Generator().manual_seed(seed)
    seed_everything(seed)
    model = ColdStart(
        data.user_fields,
        data.item_fields,
        data.cold,
        gate=arm in ("gate", "both"),
        weight=0.3 if arm in ("contrast", "both") else 0.0,
    )
    if arm != "untrained":
        optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
        for _ in range(STEPS):
            optimizer.zero_grad()
            model.loss(*draw_batch(data.train, BATCH, generator=draws), generator=draws).loss.backward()
            optimizer.step()
    return model.eval()


def trial(seed: int, arm: str, met: int, learning_rate: float) -> dict[str, float]:
    """Recall@10 in percent of cold and of warm items, and the gate's weight on the fields that decide."""
    data = world(seed, met)
    on_fields = 0.0
    if arm in ("overlap", "oracle fields"):
        agree = (data.user_fields[:, None] == data.item_fields[None, :]).float()  # (I, J, F)
        ranked = agree[..., : INFORMATIVE if arm == "oracle fields" else None].sum(2)
        ranked = ranked + 1e-3 * torch.rand(
            ranked.shape, generator=torch.Generator().manual_seed(seed)
        )  # ties by chance
    else:
        model = train(arm, met, learning_rate, seed)
        users, items = (torch.arange(n) for n in data.liked.shape)
        ranked = model.scores(users, items)
        with torch.no_grad():
            on_fields = float(model.fuse_items(items).gate[:, :INFORMATIVE].sum(1).mean())
    found = {"gate": on_fields}
    for name, columns in (("cold", data.cold), ("warm", ~data.cold)):
        asked = (data.liked & ~data.train)[:, columns]
        some = asked.any(1)
        table = ranked.masked_fill(data.train, -1e9)[:, columns]
        found[name] = 100 * recall_at_k(table[some], asked[some], 10)
    return found


def score(seed: int, **settings: Any) -> float:
    """Recall of cold and of warm items in worlds that no record has."""
    found = trial(seed, **settings)
    return found["cold"] + found["warm"]


NAMES = {
    "mean": "mean of the fields",
    "contrast": "mean and contrast",
    "gate": "gate",
    "both": "gate and contrast",
    "untrained": "untrained",
    "overlap": "number of fields that agree",
    "oracle fields": "agreement of the three fields that decide",
}
NO_TRAINING = ("untrained", "overlap", "oracle fields")
ARMS: dict[str, dict[str, Any]] = {
    f"{arm}, {met}": {"arm": arm, "met": met} | ({"learning_rate": 0.0} if arm in NO_TRAINING else {})
    for met in (2, 5)
    for arm in NAMES
    if met == 2 or arm not in NO_TRAINING
}
COLD = Metric("Recall@10 of liked items among the cold ones", "cold", "points")
WARM = Metric("Recall@10 of liked items among the warm ones", "warm", "points")
EXPERIMENT = Experiment(
    "cold-start",
    ARMS,
    trial,
    [
        Claim(
            "cold",
            "Gate and contrast find more cold items than a mean of the fields.",
            COLD,
            "mean, 2",
            "both, 2",
            headline=True,
        ),
        Claim("warm", "Gate and contrast find more warm items than a mean of the fields.", WARM, "mean, 2", "both, 2"),
        Claim("gate", "The gate alone finds more cold items than a mean.", COLD, "mean, 2", "gate, 2"),
        Claim("gate-warm", "The gate alone finds more warm items than a mean.", WARM, "mean, 2", "gate, 2"),
        Claim("contrast", "The contrast alone finds more cold items than a mean.", COLD, "mean, 2", "contrast, 2"),
        Claim(
            "gate-beside",
            "Beside the contrast, the gate finds more cold items.",
            COLD,
            "contrast, 2",
            "both, 2",
            origin="ours",
        ),
        Claim(
            "many",
            "With five interactions, too, the contrast finds more cold items.",
            COLD,
            "mean, 5",
            "contrast, 5",
            origin="ours",
        ),
        Claim(
            "overlap",
            "Gate and contrast find more cold items than counting fields that agree.",
            COLD,
            "overlap, 2",
            "both, 2",
            origin="ours",
        ),
    ],
    {f"{arm}, {met}": words for met in (2, 5) for arm, words in NAMES.items()},
    f"100 users, 300 items, two interactions a user unless said, {STEPS} steps of Adam in batches of {BATCH} pairs. "
    "Learning rate tuned for every arm alike in other worlds.",
    seeds=range(20),
    looks=LOOKS,
    tuning=Tuning(
        {"learning_rate": (3e-3, 1e-2, 3e-2)},
        score,
        like={f"{arm}, 5": f"{arm}, 2" for arm in ("mean", "contrast", "gate", "both")},
    ),
)

if __name__ == "__main__":
    main(__file__, EXPERIMENT)
