"""Are hallucinated positives harder, and do they help? The Hallucinator on MoCo and digits.

The host is that of ``_queue_host.py``, with the published largest push of 0.1. Other arms: no push, a push ten times
as large, and the push without a network. After training every hallucination is made twice, with the query's own key
and with another image's; the difference is what the network has read of the answer. Temperature and learning rate are
those of the host. That queries become longer was noticed in these runs and recorded afterwards. The
method's headline is in ``losses.py``.
"""

from __future__ import annotations

from typing import Any

import torch
from _queue_host import DIM, KNN, NOTE, TEMPERATURE, VIEWS, Method, Seen, measured, moco, train
from _runner import Claim, Experiment, Metric, main
from torch import Tensor, nn

from cl_teach.core import normalize
from cl_teach.datasets import digits
from cl_teach.losses.hallucinator import Hallucinator, draw_ratio, hallucinated_moco
from cl_teach.training import device, seed_everything


class Push(Hallucinator):
    """The push without the network."""

    def forward(self, query: Tensor, key: Tensor, ratio: float) -> Tensor:
        """Move the query away from its key."""
        return (1 + ratio) * query - ratio * key


ARMS: dict[str, tuple[type[Hallucinator], float]] = {
    "full": (Hallucinator, 0.1),
    "no push": (Hallucinator, 0.0),
    "large push": (Hallucinator, 1.0),
    "no network": (Push, 0.1),
}


def with_network(network: Hallucinator, largest: float) -> Method:
    """The loss, and the scores of both halves."""

    def method(query: Tensor, key: Tensor, queue: Tensor) -> Seen:
        ratio = draw_ratio(largest) if largest else 0.0
        loss, both = hallucinated_moco(network, query, key, queue, ratio, TEMPERATURE)
        return Seen(loss, (both * key.repeat(2, 1)).sum(1), both @ queue.mT)

    return method


@torch.no_grad()
def look(network: nn.Module, hallucinator: Hallucinator, largest: float) -> dict[str, float]:
    """Mean cosines with the key: of the query, the pushed query, and the hallucination with own and another's key."""
    images = digits("test", device=device()).images
    generator = torch.Generator(device()).manual_seed(0)
    query, key = (network(VIEWS(images, generator=generator)) for _ in range(2))
    key, r = normalize(key), largest / 2

    def cosine(rows: Tensor) -> float:
        return round((normalize(rows) * key).sum(1).mean().item(), 5)

    return {
        "cos_query": cosine(query),
        "cos_pushed": cosine((1 + r) * query - r * key),
        "cos_own": cosine(hallucinator(query, key, r)),
        "cos_other": cosine(hallucinator(query, key.roll(1, 0), r)),
    }


def trial(seed: int, arm: str) -> dict[str, float]:
    """Train one arm."""
    if arm == "moco":
        result = train(moco, seed)
        return measured(result) | look(result.network, Push(DIM), 0.1)  # what the push alone would do to the host
    kind, largest = ARMS[arm]
    seed_everything(seed)
    hallucinator = kind(DIM).to(device())
    result = train(with_network(hallucinator, largest), seed, trained=hallucinator, warm_up=0)
    return measured(result) | look(result.network, hallucinator, largest)


def gaps(rows: dict[str, Any]) -> dict[str, float]:
    """How much harder than the query a hallucination is."""
    return {arm: rows[arm]["cos_own"] - rows[arm]["cos_query"] for arm in ("full", "no push")}


HUNDREDTH = (0.01, "A hundredth of a cosine.")
KEYS = ("hallucination with another image's key", "with its own")
COSINE = Metric("Cosine with the key", "", "", *HUNDREDTH)
EXPERIMENT = Experiment(
    "hallucinator",
    {arm: {"arm": arm} for arm in ("moco", *ARMS)},
    trial,
    [
        Claim(
            "harder",
            "Hallucinated positives are harder than the real ones.",
            COSINE,
            "full:cos_query",
            "full:cos_own",
            "lower",
        ),
        Claim(
            "reads-the-key",
            "The hallucination uses what it has seen of the key.",
            COSINE,
            "full:cos_other",
            "full:cos_own",
            origin="ours",
            names=KEYS,
        ),
        Claim(
            "reads-the-key-large-push",
            "With a push ten times as large, the hallucination uses what it has seen of the key.",
            COSINE,
            "large push:cos_other",
            "large push:cos_own",
            origin="ours",
            names=KEYS,
        ),
        Claim(
            "push-harder",
            "The push makes hallucinations harder than the network alone does.",
            Metric("Cosine with the key, hallucination minus query", "", "", *HUNDREDTH),
            "derived:no push",
            "derived:full",
            "lower",
        ),
        Claim(
            "longer-queries",
            "The push makes the encoder's queries longer, which weakens it.",
            Metric(
                "Mean length of the query before normalization",
                "length",
                smallest_effect=0.05,
                reason="A twentieth of the length of a unit vector.",
            ),
            "no push",
            "full",
            origin="post hoc",
        ),
        Claim("knn-digits", "Hallucinated positives give better features.", KNN, "moco", "full"),
        Claim("push", "The push gives better features than the network alone.", KNN, "no push", "full", origin="ours"),
    ],
    {
        "moco": "MoCo",
        "full": "Hallucinator",
        "no push": "Hallucinator without push",
        "derived:no push": "Hallucinator without push",
        "derived:full": "Hallucinator",
        "full:cos_query": "query",
        "full:cos_own": "hallucination",
    },
    f"{NOTE} Test images after training, r at half its maximum.",
    seeds=range(10),
    derive=gaps,
)

if __name__ == "__main__":
    main(__file__, EXPERIMENT)
