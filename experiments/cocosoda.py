"""Does CoCoSoDa find functions better than the contrast of a batch, and than counting words?

The functions and methods of Python's standard library, each asked for by the first paragraph of its docstring. The
encoder is the mean of word vectors, the same for questions and code. It begins as a count of words: random vectors,
each as long as its word is rare. 500 functions that were never trained on are searched for among one another.

Arms of as many steps each: *in-batch* contrast, both directions; *in-batch, changed*, the same on softly changed code
and questions; *four times the batch*; *queues*, the four terms between code and questions with a slow copy and queues;
*six terms*, with the two within a modality; *CoCoSoDa*, with soft changes as well; *no slow copy*, the same with
momentum 0; *then fine-tuned*, the last third of the steps by the contrast of a batch. *Hidden*: what an author named
(the function, its arguments and variables) is hidden in all code. *Few*: 700 pairs to learn from. *Narrow start* and
*slow* say why training can lose against counting.

Learning rates are tuned alike, on 500 other functions that no record sees; arms that differ in a part take over the
choice of *in-batch* or *CoCoSoDa*.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from _runner import LOOKS, Claim, Experiment, Metric, Tuning, main
from torch import Tensor

from cl_teach.core import clip_loss, cosine_similarity, normalize
from cl_teach.datasets import LibraryCode, library_code, soft_pair
from cl_teach.datasets.code_search import FIRST_WORD, MASK, PADDING
from cl_teach.evaluation import alignment, mean_reciprocal_rank, uniformity
from cl_teach.language.cocosoda import CoCoSoDa, fine_tuning_loss
from cl_teach.models.hashed_words import HashedWords, word_rarity, word_scores
from cl_teach.training import at_scale, fit, seed_everything

BUCKETS, DIM, BATCH, QUEUE, TEMPERATURE = 4096, 64, 64, 512, 0.07
SLOW = 0.002
STEPS, TEST = at_scale(300, 1500, smoke=12), 500
WORDS = FIRST_WORD + BUCKETS
CHANGES = {"mask_id": MASK, "special_ids": [PADDING, MASK], "protect_first": 0}


@cache
def library(names: str) -> LibraryCode:
    """Read once."""
    return library_code(methods=True, names=names, code_length=64, buckets=BUCKETS)


def split(count: int, seed: int, tuning: bool) -> tuple[Tensor, Tensor]:
    """Rows to train on and to search; the first 500 of one fixed order are for tuning alone."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(12345))
    kept, spare = order[TEST:], order[:TEST]
    kept = kept[torch.randperm(len(kept), generator=torch.Generator().manual_seed(seed))]
    return kept[TEST:], spare if tuning else kept[:TEST]


def start(data: LibraryCode, rows: Tensor, counted: bool) -> HashedWords:
    """An encoder that counts words, with rare ones weighing more."""
    encoder = HashedWords(WORDS, DIM)
    if counted:
        texts = torch.cat([torch.nn.functional.pad(data.query[rows], (0, 40)), data.code[rows]])
        rarity = word_rarity(texts, WORDS)
        encoder.embedding.weight.data.mul_((rarity / rarity[rarity > 0].mean())[:, None])
    return encoder


def search(score: Tensor) -> float:
    """MRR of a table of scores, question by function."""
    return mean_reciprocal_rank(score, torch.arange(len(score)))


def untrained(data: LibraryCode, rows: Tensor, test: Tensor) -> dict[str, float]:
    """What needs no training."""
    query, code = data.query[test], data.code[test]
    texts = torch.cat([torch.nn.functional.pad(data.query[rows], (0, 40)), data.code[rows]])
    found = {
        "words": search(word_scores(query, code, WORDS)),
        "mrr": search(word_scores(query, code, WORDS, word_rarity(texts, WORDS))),
    }
    for dim in (16, 64, 256, 1024):
        encoder = HashedWords(WORDS, dim)
        with torch.no_grad():
            found[f"hashed-{dim}"] = search(cosine_similarity(encoder(query), encoder(code)))
    with torch.no_grad():
        encoder = start(data, rows, counted=True)
        found["start"] = search(cosine_similarity(encoder(query), encoder(code)))
    return found


def trial(
    seed: int,
    loss: str,
    learning_rate: float,
    names: str = "kept",
    pairs: int = 0,
    momentum: float = 0.99,
    batch: int = BATCH,
    counted: bool = True,
    slow: bool = False,
    tuning: bool = False,
) -> dict[str, float]:
    """Train and measure one arm; ``slow`` only names those whose rate is not tuned."""
    seed_everything(seed)
    data, draws = library(names), torch.Generator().manual_seed(seed)
    rows, test = split(len(data.query), seed, tuning)
    rows = rows[:pairs] if pairs else rows
    if loss == "untrained":
        return untrained(data, rows, test)
    encoder = start(data, rows, counted)
    method = CoCoSoDa(
        encoder, DIM, queue_size=QUEUE, temperature=TEMPERATURE, momentum=momentum, intra_modal=loss != "queues"
    )
    state: dict[str, Any] = {"step": 0, "keys": [], "aged": 0.0}

    def changed(code: Tensor, types: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        words = torch.arange(FIRST_WORD, WORDS)
        return soft_pair(code, types, query, state["step"], vocabulary=words, generator=draws, **CHANGES)

    def step(code: Tensor, types: Tensor, query: Tensor) -> Tensor:
        state["step"] += 1
        if loss == "in-batch" or (loss == "tuned" and state["step"] > 2 * STEPS // 3):
            if loss == "tuned":
                return fine_tuning_loss(encoder(query), encoder(code))
            return clip_loss(encoder(code), encoder(query), -math.log(TEMPERATURE))
        views = (code, query) if loss in ("queues", "six") else changed(code, types, query)
        if loss == "changed":
            return clip_loss(encoder(views[0]), encoder(views[1]), -math.log(TEMPERATURE))
        state["keys"].append(views[0])
        return method.loss(encoder, code, query, *views)

    def after_step() -> None:
        if loss not in ("in-batch", "changed"):
            method.after_step()
            if state["step"] == STEPS // 2:
                state["aged"] = aged(method, state["keys"][-(QUEUE // BATCH) :])

    drawn = rows[torch.randint(len(rows), (STEPS * batch,), generator=draws)]
    fit(
        encoder,
        step,
        (data.code[drawn], data.types[drawn], data.query[drawn]),
        epochs=1,
        batch_size=batch,
        learning_rate=learning_rate,
        after_step=after_step,
        seed=seed,
        progress=False,
    )
    with torch.no_grad():
        code, query = encoder(data.code[test]), encoder(data.query[test])
    return {
        "mrr": search(cosine_similarity(query, code)),
        "alignment": float(alignment(code, query)),
        "uniformity": float(uniformity(code)),
        "aged": state["aged"],
    }


@torch.no_grad()
def aged(method: CoCoSoDa, keys: list[Tensor]) -> float:
    """Cosine of the oldest stored keys of code with what the slow copy makes of the same code now."""
    queue = method.memory["code_key"]
    first = int(queue.cursor) if queue.is_full else 0  # the oldest rows begin where the next batch will go
    stored = queue.storage[first : first + len(keys[0])]
    return float((normalize(method.teacher(keys[0])) * stored).sum(1).mean())


def score(seed: int, **settings: Any) -> float:
    """MRR on functions that no record sees."""
    return trial(seed, tuning=True, **settings)["mrr"]


def arm(loss: str, **more: Any) -> dict[str, Any]:
    """All settings, so that a stored run tells its arm."""
    return (
        {"loss": loss, "names": "kept", "pairs": 0, "momentum": 0.99, "batch": BATCH}
        | {"counted": True, "slow": False}
        | more
    )


ARMS = {
    "in-batch": arm("in-batch"),
    "changed": arm("changed"),
    "large batch": arm("in-batch", batch=4 * BATCH),
    "queues": arm("queues"),
    "six": arm("six"),
    "cocosoda": arm("soda"),
    "no slow copy": arm("soda", momentum=0.0),
    "then fine-tuned": arm("tuned"),
    "untrained": arm("untrained", learning_rate=0.0),
    "in-batch, hidden": arm("in-batch", names="hidden"),
    "cocosoda, hidden": arm("soda", names="hidden"),
    "untrained, hidden": arm("untrained", names="hidden", learning_rate=0.0),
    "in-batch, few": arm("in-batch", pairs=700),
    "cocosoda, few": arm("soda", pairs=700),
    "untrained, few": arm("untrained", pairs=700, learning_rate=0.0),
    "in-batch, plain start": arm("in-batch", counted=False),
    "in-batch, slow": arm("in-batch", counted=False, slow=True, learning_rate=SLOW),
    "in-batch, few, slow": arm("in-batch", pairs=700, counted=False, slow=True, learning_rate=SLOW),
}
MRR = Metric(
    "Mean reciprocal rank of the right one among 500 functions",
    "mrr",
    smallest_effect=0.01,
    reason="A point of MRR, the digit in which results on code search are quoted.",
)
AGED = Metric(
    "Cosine of the oldest keys in the queue with the same code encoded anew, half-way through training",
    "aged",
    smallest_effect=0.005,
    reason="Half a hundredth, about a twentieth of a radian at these angles.",
)
EVEN = Metric("Uniformity of the code embeddings", "uniformity", smallest_effect=0.05, reason="A twentieth of a nat.")


def claim(name: str, sentence: str, baseline: str, method: str, **more: Any) -> Claim:
    """Most claims are ours, and about MRR."""
    return Claim(name, sentence, more.pop("metric", MRR), baseline, method, **{"origin": "ours"} | more)


CLAIMS = [
    claim(
        "mrr",
        "CoCoSoDa finds functions better than the contrast of a batch.",
        "in-batch",
        "cocosoda",
        origin="paper",
        headline=True,
    ),
    claim("queues", "Queues and a slow copy improve search.", "in-batch", "queues", origin="paper"),
    claim("within", "The two terms within a modality improve search.", "queues", "six", origin="paper"),
    claim("soft", "Soft changes improve search.", "six", "cocosoda", origin="paper"),
    claim("even", "The terms within a modality spread code.", "queues", "six", metric=EVEN, expected="lower"),
    claim("changed", "Soft changes improve the contrast of a batch.", "in-batch", "changed"),
    claim("large", "CoCoSoDa searches better than a batch four times as large.", "large batch", "cocosoda"),
    claim("slow-copy", "The slow copy improves search.", "no slow copy", "cocosoda", origin="paper"),
    claim("aged", "The slow copy keeps old keys comparable.", "no slow copy", "cocosoda", metric=AGED, origin="paper"),
    claim("fine-tuned", "Fine-tuning at the end improves search.", "cocosoda", "then fine-tuned", origin="paper"),
    claim("counting", "CoCoSoDa searches better than counting rare words.", "untrained", "cocosoda"),
    claim("counting-batch", "The contrast of a batch searches better than counting.", "untrained", "in-batch"),
    claim("hidden", "With names hidden CoCoSoDa is better than in-batch.", "in-batch, hidden", "cocosoda, hidden"),
    claim("counting-hidden", "With names hidden, it beats counting.", "untrained, hidden", "cocosoda, hidden"),
    claim("few", "From 700 pairs CoCoSoDa is better than in-batch.", "in-batch, few", "cocosoda, few"),
    claim("counting-few", "From 700 pairs, it beats counting.", "untrained, few", "cocosoda, few"),
    claim(
        "start",
        "Beginning with a count of rare words helps.",
        "in-batch, plain start",
        "in-batch",
    ),
    claim("slow", "At a small learning rate, training beats counting.", "untrained", "in-batch, slow"),
    claim(
        "slow-few", "At a small rate and from 700 pairs, it beats counting.", "untrained, few", "in-batch, few, slow"
    ),
]
NAMES = {
    "in-batch": "in-batch contrast",
    "changed": "in-batch contrast of changed texts",
    "large batch": "in-batch contrast, batches of 256",
    "queues": "four terms with queues",
    "six": "six terms with queues",
    "cocosoda": "CoCoSoDa",
    "no slow copy": "CoCoSoDa, keys of the encoder itself",
    "then fine-tuned": "CoCoSoDa, last third fine-tuning",
    "untrained": "counting rare words",
    "in-batch, hidden": "in-batch contrast, names hidden",
    "cocosoda, hidden": "CoCoSoDa, names hidden",
    "untrained, hidden": "counting rare words, names hidden",
    "in-batch, few": "in-batch contrast, 700 pairs",
    "cocosoda, few": "CoCoSoDa, 700 pairs",
    "untrained, few": "counting rare words, rarity from 700 pairs",
    "in-batch, plain start": "in-batch contrast from plain random vectors",
    "in-batch, slow": "in-batch contrast from plain random vectors, learning rate 0.002",
    "in-batch, few, slow": "in-batch contrast from plain random vectors, learning rate 0.002, 700 pairs",
}
LIKE = {name: "in-batch" for name in ARMS if name.startswith("in-batch, ")} | {
    "changed": "in-batch",
    "large batch": "in-batch",
}
LIKE |= {name: "cocosoda" for name in ("no slow copy", "then fine-tuned", "cocosoda, hidden", "cocosoda, few")}
LIKE |= {"queues": "six"}
LIKE |= {name: "cocosoda" for name in ARMS if name.startswith("untrained")}
COCOSODA = Experiment(
    "cocosoda",
    ARMS,
    trial,
    CLAIMS,
    NAMES,
    "Standard library of Python 3.11, functions and methods; mean of 64-dimensional word vectors, 300 steps, batch 64, "
    "queues of 512, temperature 0.07, momentum 0.99. Learning rate tuned on other functions.",
    seeds=range(20),
    looks=LOOKS,
    tuning=Tuning({"learning_rate": (0.03, 0.1, 0.3)}, score, like=LIKE),
)
EXPERIMENTS = (COCOSODA,)

if __name__ == "__main__":
    main(__file__, *EXPERIMENTS)
