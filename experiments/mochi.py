"""What do mixed negatives change? MoCHi against MoCo on digits.

The host is that of ``_queue_host.py``; the 64 hardest of 512 negatives are mixed, as 64 pairs and, in one arm, 16
times with the query. "copies" adds as many entries but mixes nothing: the same draws of hard negatives, unchanged.
"colder" is the host with a temperature of 0.16, at which half of the push comes from as many negatives as with MoCHi
at 0.2 (looked up once, with the host's features of seed 0, before this arm was trained). The proxy accuracy (how
often the positive has the highest score) is counted twice, with the negatives that the loss saw and with the queue
alone. Temperature and learning rate are otherwise those of the host. ``make evidence ONLY=mochi`` writes the records.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from _queue_host import TEMPERATURE, Method, Seen, Trained, moco, run, train
from torch import Tensor
from tqdm.auto import tqdm

from cl_teach.core import info_nce, normalize
from cl_teach.evidence import record, save_runs
from cl_teach.losses.mochi import draw_mixture, hardest_rows, mix, mochi

SLUG = "mochi"
SEEDS = tuple(range(10))
HARD, COLDER = 64, 0.16
SIZES = (1, 4, 16, 64, 256, 512)


def mixed(query: Tensor, key: Tensor, queue: Tensor, *, pairs: int, with_query: int, copy: bool = False) -> Seen:
    """MoCHi's loss and all scores in it."""
    mixture = draw_mixture(hardest_rows(query, queue, HARD), pairs, with_query)
    if copy:  # mixed with itself a point stays where it is
        mixture = mixture._replace(second=mixture.first, beta=torch.zeros_like(mixture.beta))
    plain = moco(query, key, queue)
    points = torch.cat(mix(query, queue, mixture), 1)  # (B, s + s', d)
    synthetic = (points @ normalize(query)[..., None]).squeeze(-1)
    loss = mochi(query, key, queue, mixture, TEMPERATURE)
    return Seen(loss, plain.positive, torch.cat([plain.negatives, synthetic], 1))


def colder(query: Tensor, key: Tensor, queue: Tensor) -> Seen:
    """The host with a lower temperature."""
    return moco(query, key, queue)._replace(loss=info_nce(query, key, queue, COLDER))


ARMS: dict[str, Method] = {
    "moco": moco,
    "colder": colder,
    "pairs": partial(mixed, pairs=64, with_query=0),
    "mochi": partial(mixed, pairs=64, with_query=16),
    "copies": partial(mixed, pairs=64, with_query=16, copy=True),
}


def same_class(result: Trained) -> dict[str, float]:
    """Of the N queue entries nearest to each, in percent: how many are of its class (itself left out)."""
    z, labels = result.queue, result.labels
    order = (z @ z.mT).fill_diagonal_(-2).argsort(dim=1, descending=True)
    same = (labels[order] == labels[:, None]).double()[:, :-1]
    return {f"same_{n}": round(100 * same[:, :n].mean().item(), 3) for n in SIZES}


def main() -> None:
    """Run all arms and write the records."""
    runs: list[dict[str, Any]] = []
    for seed in tqdm(SEEDS, desc=SLUG):
        runs += [run(arm, seed, method) for arm, method in ARMS.items()]
    save_runs(SLUG, runs)
    same = [{"seed": seed} | same_class(train(moco, seed)) for seed in tqdm(SEEDS, desc="same class")]
    save_runs(f"{SLUG}-same-class", same)
    write(runs, same)


def write(runs: list[dict[str, Any]], same: list[dict[str, Any]]) -> None:
    """Write the records."""

    def values(arm: str, key: str) -> list[float]:
        return [row[key] for row in runs if row["arm"] == arm]

    common: dict[str, Any] = {
        "seeds": SEEDS,
        "seconds": sum(row["seconds"] for row in runs),
        "note": "Digits, 25 epochs, queue of 512, temperature 0.2; 64 mixed pairs and 16 mixed with the query.",
    }
    pair = {"baseline_name": "MoCo", "method_name": "MoCHi"}
    results = [
        record(
            SLUG,
            claim_id,
            claim=claim,
            metric=metric,
            unit=unit,
            expected=expected,
            baseline=values("moco", key),
            method=values("mochi", key),
            **pair,
            **common,
        )
        for claim_id, claim, metric, unit, expected, key in (
            (
                "proxy-accuracy",
                "Mixed negatives make the proxy task harder.",
                "Proxy accuracy as the loss sees it",
                "points",
                "lower",
                "proxy",
            ),
            (
                "proxy-accuracy-queue",
                "Against the real negatives alone, MoCHi's positives win more often.",
                "Proxy accuracy against the queue",
                "points",
                "higher",
                "queue",
            ),
            (
                "uniformity",
                "MoCHi's embeddings are more uniform.",
                "Uniformity of the test images",
                "",
                "lower",
                "uniformity",
            ),
            ("knn-digits", "MoCHi's features are better.", "kNN accuracy", "points", "higher", "knn"),
        )
    ]
    results += [
        record(
            SLUG,
            claim_id,
            claim=claim,
            metric="Uniformity of the test images",
            unit="",
            expected="lower",
            baseline_name=name,
            method_name="MoCHi",
            baseline=values(arm, "uniformity"),
            method=values("mochi", "uniformity"),
            **(common | {"note": common["note"] + " Noticed in first runs, recorded afterwards." * (arm == "pairs")}),
        )
        for claim_id, claim, name, arm in (
            (
                "mixing-beyond-copies",
                "Mixing makes embeddings more uniform than as many unmixed copies of hard negatives do.",
                "copies of hard negatives",
                "copies",
            ),
            (
                "query-mixtures",
                "Mixtures with the query make embeddings more uniform than pairs alone do.",
                "64 pairs only",
                "pairs",
            ),
            (
                "beyond-colder",
                "MoCHi makes embeddings more uniform than a temperature that concentrates the push as much.",
                "MoCo at temperature 0.16",
                "colder",
            ),
        )
    ]
    results.append(
        record(
            SLUG,
            "false-negatives",
            claim="A hard negative is more often of the query's own class than a random one.",
            metric="Share of the query's class",
            unit="points",
            expected="higher",
            baseline_name="all 511 others in the queue",
            method_name="the 64 hardest",
            baseline=[row["same_512"] for row in same],
            method=[row["same_64"] for row in same],
            **(common | {"note": "MoCo on digits, the queue at the end of training."}),
        )
    )
    for result in results:
        print(f"{result.claim_id}: {result.verdict}, {result.interval}")


if __name__ == "__main__":
    main()
