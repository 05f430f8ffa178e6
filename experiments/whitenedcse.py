"""Does whitening inside the contrast spread sentences better? WhitenedCSE on sentences of docstrings.

The encoder reads the mean of word vectors through one linear layer, with dropout of 0.1 between them. It begins as
pre-trained encoders do, in a cone: word vectors from the texts that words stand in (latent semantic analysis), and the
identity as layer. Nobody tells which sentences belong together; two readings with dropout are a positive pair.

Arms, all with three readings of a sentence and as many steps: *SimCSE*, with the head of the method (linear, tanh) but
no whitening; *no head*; *no shuffle*, whitening in fixed groups; *WhitenedCSE*, eight groups of eight channels;
*groups of 1* and *of 32*. *Two readings*: SimCSE as published. Not trained: the start, the start whitened afterward,
and counting rare words.

Measured on sentences of functions that were never trained on, with the plain encoder: Spearman correlation of cosines
with relatedness (2: two sentences of one docstring, 1: of one file, 0: of two files; 2,000 pairs each), and how evenly
the sentences lie. Learning rates are tuned alike, by that correlation on other functions; arms that differ in a part
take over the choice of *SimCSE* or *WhitenedCSE*.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from _runner import LOOKS, Claim, Experiment, Metric, Tuning, main
from scipy.stats import spearmanr
from torch import Tensor, nn

from cl_teach.core import normalize
from cl_teach.datasets import LibrarySentences, library_sentences
from cl_teach.datasets.code_search import FIRST_WORD
from cl_teach.evaluation import alignment, effective_rank, embed, uniformity
from cl_teach.language.whitenedcse import WhitenedCSE, draw_shuffles, dropout_views, one_to_many_contrast
from cl_teach.models.hashed_words import HashedWords, latent_vectors, word_rarity, word_scores
from cl_teach.training import at_scale, fit, seed_everything

BUCKETS, DIM, BATCH, TEMPERATURE, RIDGE = 4096, 64, 64, 0.05, 1e-4
STEPS, PAIRS = at_scale(200, 2000, smoke=10), at_scale(2000, 2000, smoke=200)
WORDS = FIRST_WORD + BUCKETS


@cache
def library() -> LibrarySentences:
    """Read once."""
    return library_sentences(buckets=BUCKETS)


def split(seed: int, tuning: bool) -> tuple[Tensor, Tensor]:
    """Sentences to train on and to test on, by function; a fixed fifth of the functions is for tuning alone."""
    function = library().function
    count = int(function.max()) + 1
    order = torch.randperm(count, generator=torch.Generator().manual_seed(12345))
    spare, kept = order[: count // 5], order[count // 5 :]
    kept = kept[torch.randperm(len(kept), generator=torch.Generator().manual_seed(seed))]
    test = spare if tuning else kept[: count // 5]
    rows = [torch.isin(function, part).nonzero()[:, 0] for part in (kept[count // 5 :], test)]
    return rows[0], rows[1]


def related(rows: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Pairs ``(3 PAIRS, 2)`` of places in ``rows``, and how related they are."""
    draws, data = torch.Generator().manual_seed(seed), library()
    function, file = data.function[rows], data.file[rows]
    found: list[Tensor] = []
    for grade in (0, 1, 2):
        kept: list[Tensor] = []
        while sum(map(len, kept)) < PAIRS:
            i, j = torch.randint(len(rows), (2, 100_000), generator=draws)
            same = (function[i] == function[j], file[i] == file[j])
            fits = (~same[1], same[1] & ~same[0], same[0] & (i != j))[grade]
            kept.append(torch.stack([i, j], 1)[fits])
        found.append(torch.cat(kept)[:PAIRS])
    return torch.cat(found), torch.arange(3).repeat_interleave(PAIRS)


def start(rows: Tensor, dropout: float = 0.1) -> HashedWords:
    """The encoder before training."""
    data = library()
    texts: dict[int, list[int]] = {}
    for i in rows.tolist():
        texts.setdefault(int(data.function[i]), []).extend(data.words[i][data.words[i] > 0].tolist())
    tokens = torch.tensor([(text + [0] * 96)[:96] for text in texts.values()])
    encoder = HashedWords(
        WORDS, DIM, (DIM,), dropout=dropout, vectors=8 * latent_vectors(tokens, WORDS, DIM) / DIM**0.5
    )
    layer = encoder.layers.layers[0]
    with torch.no_grad():
        layer.weight.copy_(torch.eye(DIM))
        layer.bias.zero_()
    return encoder


def train(encoder: HashedWords, rows: Tensor, arm: str, groups: int, views: int, rate: float, seed: int) -> None:
    """One run."""
    draws = torch.Generator().manual_seed(seed)
    method = WhitenedCSE(DIM, groups, temperature=TEMPERATURE, ridge=RIDGE)

    def step(words: Tensor) -> Tensor:
        read = dropout_views(encoder, words, views)
        if arm == "no head":
            return one_to_many_contrast(read, TEMPERATURE).sum()
        if arm == "simcse":
            return one_to_many_contrast([torch.tanh(method.head(h)) for h in read], TEMPERATURE).sum()
        fixed = torch.arange(DIM).expand(views, DIM)
        orders = fixed if arm == "no shuffle" else draw_shuffles(views, DIM, generator=draws)
        return method.terms(read, orders).sum()

    drawn = rows[torch.randint(len(rows), (STEPS * BATCH,), generator=draws)]
    module = nn.ModuleList([encoder] if arm == "no head" else [encoder, method])
    options = {"epochs": 1, "batch_size": BATCH, "seed": seed, "progress": False}
    fit(module, step, library().words[drawn], learning_rate=rate, **options)


def spearman(cosines: Tensor, grade: Tensor) -> float:
    """Rank correlation of the cosines of pairs with their grades."""
    return float(spearmanr(cosines.double().numpy(), grade.numpy()).statistic)


def measured(encoder: HashedWords, rows: Tensor, test: Tensor, seed: int) -> dict[str, float]:
    """How well cosines follow relatedness, as they are and whitened afterward, and how the sentences lie."""
    words = library().words
    pairs, grade = related(test, seed)
    z, seen = embed(encoder, words[test]), embed(encoder, words[rows[:4000]])
    values, axes = torch.linalg.eigh((seen - seen.mean(0)).mT @ (seen - seen.mean(0)) / len(seen))
    white = (z - seen.mean(0)) @ (axes / values.clamp(min=1e-6).sqrt())

    def cosines(x: Tensor) -> Tensor:
        unit = normalize(x)
        return (unit[pairs[:, 0]] * unit[pairs[:, 1]]).sum(1)

    part = z[:1000]
    encoder.train()
    with torch.no_grad():
        close = alignment(encoder(words[test[:1000]]), encoder(words[test[:1000]]))
        centered = [encoder(words[test[:1000]]) - z.mean(0) for _ in range(2)]
    encoder.eval()
    return {
        "spearman": spearman(cosines(z), grade),
        "whitened": spearman(cosines(white), grade),
        "centered": spearman(cosines(z - seen.mean(0)), grade),
        "uniformity": float(uniformity(part)),
        "centered_uniformity": float(uniformity(part - part.mean(0))),
        "alignment": float(close),
        "centered_alignment": float(alignment(*centered)),
        "rank": float(effective_rank(part)),
        "cone": float(normalize(part).mean(0).norm()),
    }


def counted(rows: Tensor, test: Tensor, seed: int) -> float:
    """Correlation of what counting rare words says."""
    words, (pairs, grade) = library().words, related(test, seed)
    table = word_scores(words[test], words[test], WORDS, word_rarity(words[rows], WORDS))
    return spearman(table[pairs[:, 0], pairs[:, 1]], grade)


def trial(
    seed: int, arm: str, learning_rate: float, groups: int = 8, views: int = 3, tuning: bool = False
) -> dict[str, float]:
    """Train and measure one arm."""
    rows, test = split(seed, tuning)
    encoder = start(rows)
    seed_everything(seed)
    if arm != "untrained":
        train(encoder, rows, arm, groups, views, learning_rate, seed)
    found = measured(encoder, rows, test, seed)
    return found | ({"counted": counted(rows, test, seed)} if arm == "untrained" else {})


def score(seed: int, **settings: Any) -> float:
    """Correlation on functions that no record sees."""
    return trial(seed, tuning=True, **settings)["spearman"]


ARMS = {
    "simcse": {"arm": "simcse", "groups": 8, "views": 3},
    "no head": {"arm": "no head", "groups": 8, "views": 3},
    "no shuffle": {"arm": "no shuffle", "groups": 8, "views": 3},
    "whitened": {"arm": "whitened", "groups": 8, "views": 3},
    "groups of 1": {"arm": "whitened", "groups": 64, "views": 3},
    "groups of 32": {"arm": "whitened", "groups": 2, "views": 3},
    "two readings": {"arm": "simcse", "groups": 8, "views": 2},
    "untrained": {"arm": "untrained", "groups": 8, "views": 3, "learning_rate": 0.0},
}
STS = Metric(
    "Spearman correlation of cosines with relatedness",
    "spearman",
    smallest_effect=0.01,
    reason="A point, the digit in which results on sentence similarity are quoted.",
)
EVEN = Metric("Uniformity of the encoder's output", "uniformity", smallest_effect=0.05, reason="A twentieth of a nat.")
CENTERED = Metric(
    "Uniformity after centering", "centered_uniformity", smallest_effect=0.05, reason="A twentieth of a nat."
)
CLOSE = Metric(
    "Alignment: squared distance between two readings with dropout",
    "alignment",
    smallest_effect=0.01,
    reason="A twentieth of its size.",
)


def claim(name: str, sentence: str, baseline: str, method: str, **more: Any) -> Claim:
    """Most claims are about the correlation."""
    return Claim(name, sentence, more.pop("metric", STS), baseline, method, **more)


LOW = {"expected": "lower"}
CLAIMS = [
    claim(
        "similarity",
        "Cosines follow relatedness better with whitening in the contrast than without.",
        "simcse",
        "whitened",
        headline=True,
    ),
    claim("even", "Whitening spreads the encoder's output.", "simcse", "whitened", metric=EVEN, **LOW),
    claim("even-centered", "Whitening spreads it after centering.", "simcse", "whitened", metric=CENTERED, **LOW),
    claim("close", "Whitening with shuffles brings readings closer.", "simcse", "whitened", metric=CLOSE, **LOW),
    claim("shuffle", "Shuffled groups are better than fixed ones.", "no shuffle", "whitened"),
    claim("group-1", "Groups of eight are better than each channel alone.", "groups of 1", "whitened", origin="ours"),
    claim("group-32", "Groups of eight are better than groups of 32.", "groups of 32", "whitened", origin="ours"),
    claim("readings", "A third reading improves SimCSE.", "two readings", "simcse", origin="ours"),
    claim("head", "The method is better than plain contrast without a head.", "no head", "whitened", origin="ours"),
    claim("start", "The method is better than its start.", "untrained", "whitened", origin="ours"),
    claim(
        "afterward",
        "The method is better than its start, whitened afterward without any training.",
        "untrained:whitened",
        "whitened",
        origin="ours",
    ),
    claim(
        "afterward-both",
        "Whitened afterward, the method is still better than its start, whitened.",
        "untrained:whitened",
        "whitened:whitened",
        origin="ours",
    ),
    claim("counting", "The method is better than counting rare words.", "untrained:counted", "whitened", origin="ours"),
]
NAMES = {
    "simcse": "SimCSE, three readings",
    "no head": "plain contrast, three readings",
    "no shuffle": "whitened in fixed groups",
    "whitened": "WhitenedCSE",
    "groups of 1": "WhitenedCSE, groups of 1",
    "groups of 32": "WhitenedCSE, groups of 32",
    "two readings": "SimCSE, two readings",
    "untrained": "the start",
    "untrained:whitened": "the start, whitened afterward",
    "untrained:counted": "counting rare words",
    "whitened:whitened": "WhitenedCSE, whitened afterward",
}
LIKE = {"groups of 1": "whitened", "groups of 32": "whitened", "two readings": "simcse", "untrained": "simcse"}
WHITENED = Experiment(
    "whitenedcse",
    ARMS,
    trial,
    CLAIMS,
    NAMES,
    "12,140 sentences of docstrings, standard library of Python 3.11; 64 dimensions, 200 steps, batch 64, temperature "
    "0.05, dropout 0.1; whitening with a ridge of 0.0001. Learning rate tuned on other functions.",
    seeds=range(20),
    looks=LOOKS,
    tuning=Tuning({"learning_rate": (0.01, 0.03, 0.1)}, score, like=LIKE),
)
EXPERIMENTS = (WHITENED,)

if __name__ == "__main__":
    main(__file__, *EXPERIMENTS)
