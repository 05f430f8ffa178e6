"""DebCSE: does it pay to draw pairs that mean the same and look different?

Word vectors come from 2,000 template sentences (mutual information of words in one sentence). A bag of words starts
from them and is trained on 320 other sentences, 80 meanings in 4 forms: 300 steps of SimCSE (the same sentence under
two draws of dropout), which gives the *first* encoder. It is the scorer, and where every arm starts. Then 300 more
steps:

- *simcse*: the same loss goes on;
- *debcse*: positives and one hard negative an anchor from inverse propensities, the scorer being the first encoder;
- *semantic*: the same with lambda = 0, pairs by meaning alone; *surface*: with nu = 0, by looks alone; *uniform*: with
  both 0, evenly from the same candidates;
- *positives*: drawn positives, no hard negatives; *negatives*: hard negatives, dropout as positive;
- *counts*: DebCSE with a scorer that only counts words; *sharp*: DebCSE with lambda 8;
- *oracle*: another form of the same meaning as the positive, sentences of the same meaning no negatives.

Candidates are the 5 nearest sentences by meaning (positives) and by looks (negatives), lambda 2, nu 8, temperature
0.05, dropout 0.1, 64 anchors a step. Judged on pairs of new sentences: *natural* pairs, which share 0 to 4 concepts,
each with the same word every second time; and pairs of *controlled overlap*, which share 1 to 4 concepts and one word.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from _runner import LOOKS, Claim, Experiment, Metric, Tuning, main
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional as F

from cl_teach.datasets import SENTENCE_WORDS, Sentences, sentence_text, template_pairs, template_sentences
from cl_teach.language.debcse import DebCSE, debcse_loss, effective_choices
from cl_teach.models import BagOfWords, context_vectors, word_counts, word_overlap
from cl_teach.training import at_scale

WORDS, DIM, TEMPERATURE, BATCH = len(SENTENCE_WORDS), 32, 0.05, 64
PRETRAINING, MEANINGS, FORMS = at_scale(2000, 5000, smoke=200), at_scale(80, 200, smoke=20), 4
STEPS, PAIRS = at_scale(300, 1000, smoke=5), at_scale(2000, 10_000, smoke=100)
CANDIDATES, POWER, SHARPNESS, FIRST_RATE = 5, 8.0, 2.0, 1e-3
TABLES = {
    "debcse": {},
    "semantic": {"sharpness": 0.0},
    "surface": {"power": 0.0},
    "uniform": {"sharpness": 0.0, "power": 0.0},
    "positives": {},
    "negatives": {},
    "counts": {},
    "sharp": {"sharpness": 8.0},
}


class World(NamedTuple):
    """Sentences to train on, pairs to judge by, and the first encoder."""

    train: Sentences
    natural: Any
    controlled: Any
    weights: dict[str, Tensor]


def encoder() -> BagOfWords:
    """The network."""
    return BagOfWords(WORDS, DIM)


def train(network: BagOfWords, loss: Any, rate: float, seed: int, n: int) -> None:
    """Adam on batches of sentence numbers."""
    draws = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    network.train()
    for _ in range(STEPS):
        value = loss(torch.randperm(n, generator=draws)[:BATCH], draws)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    network.eval()


@lru_cache(maxsize=4)
def world(seed: int) -> World:
    """What all arms of a seed share."""
    habits = template_sentences(PRETRAINING, 1, seed=10_000 + seed)
    vectors = context_vectors(habits.tokens, WORDS, DIM)
    made = template_sentences(MEANINGS, FORMS, seed=seed)
    draws = torch.Generator().manual_seed(20_000 + seed)
    concepts = torch.randint(5, (PAIRS,), generator=draws)
    words = torch.binomial(concepts.float(), torch.full((PAIRS,), 0.5), generator=draws).long()
    natural = template_pairs(concepts, words, seed=30_000 + seed)
    concepts = torch.randint(1, 5, (PAIRS,), generator=draws)
    controlled = template_pairs(concepts, torch.ones_like(concepts), seed=40_000 + seed)
    torch.manual_seed(seed)
    network = BagOfWords(WORDS, DIM, vectors=vectors / vectors.square().sum(1).mean().sqrt())

    def simcse(index: Tensor, _: torch.Generator) -> Tensor:
        x = made.tokens[index]
        return debcse_loss(network(x), network(x), None, TEMPERATURE)

    train(network, simcse, FIRST_RATE, seed, len(made.tokens))
    weights = {key: value.clone() for key, value in network.state_dict().items()}
    return World(made, natural, controlled, weights)


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's, times 100."""
    return 100 * float(spearmanr(a.numpy(), b.numpy()).statistic)


@torch.no_grad()
def judge(similarity: Any, data: World) -> dict[str, float]:
    """Does a similarity of pairs order them by meaning, and does it follow words where the meaning is the same?"""
    natural, controlled = similarity(*data.natural[:2]), similarity(*data.controlled[:2])
    shared = data.natural.shared_concepts
    words = [rank_correlation(natural[shared == k], data.natural.shared_words[shared == k]) for k in (2, 3, 4)]
    return {
        "natural": rank_correlation(natural, shared),
        "controlled": rank_correlation(controlled, data.controlled.shared_concepts),
        "follows_words": sum(words) / len(words),
    }


def trial(seed: int, arm: str, learning_rate: float) -> dict[str, float]:
    """Train one arm and judge it."""
    data = world(seed)
    if arm == "overlap":
        return judge(word_overlap, data)
    made, row = data.train, {}
    torch.manual_seed(1000 + seed)
    network = encoder()
    network.load_state_dict(data.weights)
    network.eval()

    def cosine(a: Tensor, b: Tensor) -> Tensor:
        return F.cosine_similarity(network(a), network(b))

    if arm == "vectors":
        vectors = context_vectors(template_sentences(PRETRAINING, 1, seed=10_000 + seed).tokens, WORDS, DIM)
        network = BagOfWords(WORDS, DIM, vectors=vectors).eval()
    if arm in ("first", "vectors"):
        return judge(cosine, data)

    def encode(index: Tensor) -> Tensor:
        return network(made.tokens[index])

    if arm in TABLES:
        corpus = [text.split() for text in sentence_text(made.tokens)]
        options = {"power": POWER, "sharpness": SHARPNESS} | TABLES[arm]
        method = DebCSE(corpus, candidates=CANDIDATES, temperature=TEMPERATURE, **options)
        with torch.no_grad():
            method.refresh(word_counts(made.tokens, WORDS) if arm == "counts" else network(made.tokens))
        same = made.meaning[:, None] == made.meaning
        row = {
            "right_positives": 100 * float((method.positives * same).sum(1).mean()),
            "wrong_negatives": 100 * float((method.negatives * same).sum(1).mean()),
            "surface_positives": float((method.positives * method.surface).sum(1).mean()),
            "surface_negatives": float((method.negatives * method.surface).sum(1).mean()),
            "effective": float(effective_choices(method.positives).mean()),
        }

    def loss(index: Tensor, draws: torch.Generator) -> Tensor:
        if arm == "simcse":
            return debcse_loss(encode(index), encode(index), None, TEMPERATURE)
        if arm == "oracle":
            other = made.meaning[index] * FORMS + torch.randint(FORMS, (len(index),), generator=draws)
            meanings = made.meaning[index]
            return debcse_loss(encode(index), encode(other), None, TEMPERATURE, index=(meanings, meanings, None))
        if arm == "positives":
            other = torch.multinomial(method.positives[index], 1, generator=draws)[:, 0]
            return debcse_loss(encode(index), encode(other), None, TEMPERATURE, index=(index, other, None))
        if arm == "negatives":
            hard = torch.multinomial(method.negatives[index], 1, generator=draws)
            h = encode(hard.flatten())[:, None]
            return debcse_loss(encode(index), encode(index), h, TEMPERATURE, index=(index, index, hard))
        return method.loss(encode, index, generator=draws)

    train(network, loss, learning_rate, 2000 + seed, len(made.tokens))
    return judge(cosine, data) | row


def score(seed: int, **settings: Any) -> float:
    """Order of natural pairs, of worlds that no record looks at."""
    return trial(seed, **settings)["natural"]


REASON = "Papers on sentence embeddings report gains of one to two points of rank correlation."
NATURAL = Metric("Rank correlation with meaning, natural pairs, times 100", "natural", "points", 1.0, REASON)
CONTROLLED = Metric(
    "Rank correlation with meaning, pairs that share one word, times 100", "controlled", "points", 1.0, REASON
)
FOLLOWS = Metric(
    "Rank correlation with shared words at the same meaning, times 100", "follows_words", "points", 1.0, REASON
)
RIGHT = Metric(
    "Share of drawn positives that mean the same", "right_positives", "points", 1.0, "One positive in a hundred."
)
LOOKS_LIKE = Metric(
    "Surface similarity of drawn positives", "surface_positives", "", 0.01, "A tenth of a token in a sentence of ten."
)
NAMES = {
    "overlap": "shared words, no training",
    "vectors": "word vectors as they come",
    "first": "SimCSE, the first encoder",
    "simcse": "SimCSE, 300 steps more",
    "debcse": "DebCSE",
    "semantic": "pairs by meaning alone (lambda 0)",
    "surface": "pairs by looks alone (nu 0)",
    "uniform": "pairs drawn evenly from the candidates",
    "positives": "DebCSE's positives without hard negatives",
    "negatives": "DebCSE's negatives with dropout as positive",
    "counts": "DebCSE with a scorer that counts words",
    "oracle": "true paraphrases as positives",
    "sharp": "DebCSE with lambda 8",
}
FIXED = {"overlap", "vectors", "first"}
EXPERIMENT = Experiment(
    "debcse",
    {arm: {"arm": arm} | ({"learning_rate": 0.0} if arm in FIXED else {}) for arm in NAMES},
    trial,
    [
        Claim(
            "natural",
            "DebCSE orders natural pairs by meaning better than SimCSE that trains as long.",
            NATURAL,
            "simcse",
            "debcse",
            headline=True,
        ),
        Claim(
            "controlled",
            "At the same word overlap DebCSE orders pairs by meaning better than SimCSE that trains as long.",
            CONTROLLED,
            "simcse",
            "debcse",
        ),
        Claim(
            "first",
            "DebCSE orders natural pairs better than the SimCSE encoder it starts from.",
            NATURAL,
            "first",
            "debcse",
            origin="ours",
        ),
        Claim(
            "follows-words",
            "At the same meaning DebCSE follows shared words less than SimCSE that trains as long.",
            FOLLOWS,
            "simcse",
            "debcse",
            "lower",
        ),
        Claim(
            "propensities",
            "Inverse propensities are better than pairs by meaning alone.",
            NATURAL,
            "semantic",
            "debcse",
        ),
        Claim(
            "propensities-controlled",
            "At the same word overlap, inverse propensities are better than pairs by meaning alone.",
            CONTROLLED,
            "semantic",
            "debcse",
        ),
        Claim(
            "propensities-follow",
            "With inverse propensities the encoder follows shared words less than with pairs by meaning alone.",
            FOLLOWS,
            "semantic",
            "debcse",
            "lower",
        ),
        Claim("meaning", "Weights by meaning are better than by looks alone.", NATURAL, "surface", "debcse"),
        Claim(
            "even",
            "Weights are better than drawing evenly from the same candidates.",
            NATURAL,
            "uniform",
            "debcse",
            origin="ours",
        ),
        Claim("negatives", "Hard negatives help the drawn positives.", NATURAL, "positives", "debcse"),
        Claim("positives", "Drawn positives are better than dropout.", NATURAL, "negatives", "debcse"),
        Claim(
            "scorer",
            "A scorer that counts words spoils DebCSE.",
            NATURAL,
            "debcse",
            "counts",
            "lower",
            origin="ours",
        ),
        Claim("overlap", "DebCSE orders natural pairs better than shared words do.", NATURAL, "overlap", "debcse"),
        Claim(
            "right",
            "Inverse propensities find as many true paraphrases as meaning alone.",
            RIGHT,
            "semantic",
            "debcse",
            origin="ours",
        ),
        Claim("looks", "Drawn positives look less alike.", LOOKS_LIKE, "semantic", "debcse", "lower"),
        Claim("sharper", "Lambda 8 is better than 2.", NATURAL, "debcse", "sharp", origin="post hoc"),
        Claim(
            "sharper-follow",
            "With lambda 8 the encoder follows shared words less than SimCSE that trains as long.",
            FOLLOWS,
            "simcse",
            "sharp",
            "lower",
            origin="post hoc",
        ),
        Claim("truth", "True paraphrases would be better positives.", NATURAL, "debcse", "oracle", origin="ours"),
    ],
    NAMES,
    f"{MEANINGS} meanings in {FORMS} forms, word vectors from {PRETRAINING} others, lambda 2, nu 8, 5 candidates; "
    "both sides start from the same SimCSE encoder and make as many updates; learning rate tuned for every arm alike.",
    seeds=range(20),
    looks=LOOKS,
    tuning=Tuning({"learning_rate": (3e-4, 1e-3, 3e-3)}, score),
)

if __name__ == "__main__":
    main(__file__, EXPERIMENT)
