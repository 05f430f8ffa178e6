"""Are hallucinated positives harder, and do they help? The Hallucinator on MoCo and digits.

The host is that of ``_queue_host.py``, with the published largest push of 0.1. Other arms: no push, a push ten times
as large, and the push without a network. After training every hallucination is made twice, with the query's own key
and with another image's; the difference is what the network has read of the answer. Temperature and learning rate are
those of the host. That queries become longer was noticed in these runs and recorded afterwards. ``make evidence
ONLY=hallucinator`` writes the records.
"""

from __future__ import annotations

from typing import Any

import torch
from _queue_host import DIM, TEMPERATURE, VIEWS, Method, Seen, Trained, moco, train
from torch import Tensor, nn
from tqdm.auto import tqdm

from cl_teach.core import normalize
from cl_teach.datasets import digits
from cl_teach.evidence import record, save_runs
from cl_teach.losses.hallucinator import Hallucinator, draw_ratio, hallucinated_moco
from cl_teach.training import device, seed_everything

SLUG = "hallucinator"
SEEDS = tuple(range(10))


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


def one(arm: str, seed: int) -> dict[str, Any]:
    """Train one arm."""
    found: dict[str, Any] = {"arm": arm, "seed": seed}
    if arm == "moco":
        result: Trained = train(moco, seed)
        found |= look(result.network, Push(DIM), 0.1)  # what the push alone would do to the host's queries
    else:
        kind, largest = ARMS[arm]
        seed_everything(seed)
        hallucinator = kind(DIM).to(device())
        result = train(with_network(hallucinator, largest), seed, trained=hallucinator, warm_up=0)
        found |= look(result.network, hallucinator, largest)
    found |= {key: round(value, 5) for key, value in result.last.items()}
    print(found, flush=True)
    return found


def main() -> None:
    """Run all arms and write the records."""
    runs = [one(arm, seed) for seed in tqdm(SEEDS, desc=SLUG) for arm in ("moco", *ARMS)]
    save_runs(SLUG, runs)
    write(runs)


def write(runs: list[dict[str, Any]]) -> None:
    """Write the records."""

    def values(arm: str, key: str) -> list[float]:
        return [row[key] for row in runs if row["arm"] == arm]

    def gap(arm: str) -> list[float]:
        return [own - query for own, query in zip(values(arm, "cos_own"), values(arm, "cos_query"), strict=True)]

    full = "Hallucinator"
    claims: tuple[tuple[str, str, str, str, str, str, list[float], str, list[float]], ...] = (
        (
            "harder",
            "Hallucinated positives are harder than the real ones.",
            "Cosine with the key",
            "",
            "lower",
            "query",
            values("full", "cos_query"),
            "hallucination",
            values("full", "cos_own"),
        ),
        (
            "reads-the-key",
            "The hallucination uses what it has seen of the key.",
            "Cosine with the key",
            "",
            "higher",
            "hallucination with another image's key",
            values("full", "cos_other"),
            "with its own",
            values("full", "cos_own"),
        ),
        (
            "reads-the-key-large-push",
            "With a push ten times as large, the hallucination uses what it has seen of the key.",
            "Cosine with the key",
            "",
            "higher",
            "hallucination with another image's key",
            values("large push", "cos_other"),
            "with its own",
            values("large push", "cos_own"),
        ),
        (
            "push-harder",
            "The push makes hallucinations harder than the network alone does.",
            "Cosine with the key, hallucination minus query",
            "",
            "lower",
            "Hallucinator without push",
            gap("no push"),
            full,
            gap("full"),
        ),
        (
            "longer-queries",
            "The push makes the encoder's queries longer, which weakens it.",
            "Mean length of the query before normalization",
            "",
            "higher",
            "Hallucinator without push",
            values("no push", "length"),
            full,
            values("full", "length"),
        ),
        (
            "knn-digits",
            "Hallucinated positives give better features.",
            "kNN accuracy",
            "points",
            "higher",
            "MoCo",
            values("moco", "knn"),
            full,
            values("full", "knn"),
        ),
        (
            "push",
            "The push gives better features than the network alone.",
            "kNN accuracy",
            "points",
            "higher",
            "Hallucinator without push",
            values("no push", "knn"),
            full,
            values("full", "knn"),
        ),
    )
    for claim_id, claim, metric, unit, expected, baseline_name, baseline, method_name, method in claims:
        result = record(
            SLUG,
            claim_id,
            claim=claim,
            metric=metric,
            unit=unit,
            expected=expected,
            baseline_name=baseline_name,
            method_name=method_name,
            seeds=SEEDS,
            baseline=baseline,
            method=method,
            seconds=sum(row["seconds"] for row in runs),
            note="Digits, 25 epochs, queue of 512, temperature 0.2; test images after training, r at half its maximum."
            + " Noticed in these runs, recorded afterwards." * (claim_id == "longer-queries"),
        )
        print(f"{result.claim_id}: {result.verdict}, {result.interval}")


if __name__ == "__main__":
    main()
