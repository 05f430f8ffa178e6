"""What do mixed negatives change? MoCHi against MoCo on digits.

The host is that of ``_queue_host.py``; the 64 hardest of 512 negatives are mixed, as 64 pairs and, in one arm, 16
times with the query. "copies" adds as many entries but mixes nothing: the same draws of hard negatives, unchanged.
"colder" is the host with a temperature of 0.16, at which half of the push comes from as many negatives as with MoCHi
at 0.2 (looked up once, with the host's features of seed 0, before this arm was trained). That mixtures with the query
undo some of it was noticed in first runs and recorded afterwards. The proxy accuracy (how
often the positive has the highest score) is counted twice, with the negatives that the loss saw and with the queue
alone. Temperature and learning rate are otherwise those of the host. The method's headline is in ``losses.py``.
"""

from __future__ import annotations

from functools import partial

import torch
from _queue_host import KNN, NOTE, TEMPERATURE, UNIFORMITY, Method, Seen, Trained, measured, moco, train
from _runner import Claim, Experiment, Metric, main
from torch import Tensor

from cl_teach.core import info_nce, normalize
from cl_teach.losses.mochi import draw_mixture, hardest_rows, mix, mochi

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


def trial(seed: int, arm: str) -> dict[str, float]:
    """One run."""
    return measured(train(ARMS[arm], seed))


def neighbors(seed: int) -> dict[str, float]:
    """The queue of the host at the end of training."""
    return same_class(train(moco, seed))


PROXY = Metric("Proxy accuracy as the loss sees it", "proxy", "points")
QUEUE_PROXY = Metric("Proxy accuracy against the queue", "queue", "points")
EXPERIMENTS = (
    Experiment(
        "mochi",
        {arm: {"arm": arm} for arm in ARMS},
        trial,
        [
            Claim("proxy-accuracy", "Mixed negatives make the proxy task harder.", PROXY, "moco", "mochi", "lower"),
            Claim(
                "proxy-accuracy-queue",
                "Against the real negatives alone, MoCHi's positives win more often.",
                QUEUE_PROXY,
                "moco",
                "mochi",
                origin="ours",
            ),
            Claim("uniformity", "MoCHi's embeddings are more uniform.", UNIFORMITY, "moco", "mochi", "lower"),
            Claim("knn-digits", "MoCHi's features are better.", KNN, "moco", "mochi"),
            Claim(
                "mixing-beyond-copies",
                "Mixing makes embeddings more uniform than as many unmixed copies of hard negatives do.",
                UNIFORMITY,
                "copies",
                "mochi",
                "lower",
                "ours",
            ),
            Claim(
                "query-mixtures",
                "Mixtures with the query make embeddings more uniform than pairs alone do.",
                UNIFORMITY,
                "pairs",
                "mochi",
                "lower",
                "post hoc",
            ),
            Claim(
                "beyond-colder",
                "MoCHi makes embeddings more uniform than a temperature that concentrates the push as much.",
                UNIFORMITY,
                "colder",
                "mochi",
                "lower",
                "ours",
            ),
        ],
        {
            "moco": "MoCo",
            "colder": "MoCo at temperature 0.16",
            "pairs": "64 pairs only",
            "mochi": "MoCHi",
            "copies": "copies of hard negatives",
        },
        f"{NOTE} 64 mixed pairs and 16 mixed with the query.",
        seeds=range(10),
    ),
    Experiment(
        "mochi",
        {"moco": {}},
        neighbors,
        [
            Claim(
                "false-negatives",
                "A hard negative is more often of the query's own class than a random one.",
                Metric("Share of the query's class", "", "points"),
                "moco:same_512",
                "moco:same_64",
                origin="ours",
            )
        ],
        {"moco:same_512": "all 511 others in the queue", "moco:same_64": "the 64 hardest"},
        "MoCo on digits, the queue at the end of training.",
        seeds=range(10),
        runs="mochi-same-class",
    ),
)

if __name__ == "__main__":
    main(__file__, *EXPERIMENTS)
