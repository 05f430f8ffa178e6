"""Contrastive search on docstrings: as diverse as real text, is it more coherent than nucleus sampling?

A recurrent language model of width 64 learns the docstrings of Python's library (60 % of the documents, 400 steps). It
goes on with 48 prompts of eight tokens for 40 words, by greedy search, contrastive search (k = 4), nucleus sampling, a
penalty for words that have been said already, and greedy search that repeats no group of 2, 3 or 4 words. Diversity is
1 - repetition of pairs, triples and quadruples, multiplied; coherence is the mean log-probability of the new words
under a judge: a wider model trained on 30 % of the documents that the first has not read. Prompts come from the rest.

No decoder's setting is chosen: each has a curve of coherence against diversity over all its settings, and the claims
read the curves at the diversity of the docstrings themselves, by straight lines between neighbors. SimCTG is the same
training with margin 0.5; margin -1 is none. Rare words and a new beginning are never written, by no decoder.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from _runner import LOOKS, Claim, Experiment, Metric, main
from torch import Tensor

from cl_teach.datasets import LibraryText, library_text
from cl_teach.language.contrastive_search import coherence, contrastive_search, diversity, isotropy, simctg_terms
from cl_teach.models import LanguageModel
from cl_teach.models.reading import Reading, reader
from cl_teach.training import at_scale, seed_everything

VOCABULARY, PROMPT, NEW, PROMPTS, K = 2000, 8, at_scale(40, 40, smoke=6), at_scale(48, 128, smoke=4), 4
STEPS, JUDGE_STEPS, WIDTH, JUDGE_WIDTH = at_scale(400, 4000, smoke=3), at_scale(700, 6000, smoke=3), 64, 128
ALPHAS = at_scale((0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8), (0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8), smoke=(0.0, 0.6))
MASSES = at_scale((0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0), (0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0), smoke=(0.1, 1.0))
WORDS = at_scale((0.0, 0.02, 0.05, 0.1, 0.2, 0.4), (0.0, 0.02, 0.05, 0.1, 0.2, 0.4), smoke=(0.0, 0.4))
GRAMS = at_scale((2, 3, 4), (2, 3, 4), smoke=(2, 3))


def train(documents: Sequence[Tensor], width: int, steps: int, margin: float, seed: int) -> LanguageModel:
    """A language model of documents, one after the other."""
    stream = torch.cat(list(documents))
    seed_everything(seed)
    draws = torch.Generator().manual_seed(seed)
    model = LanguageModel(VOCABULARY, width)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    for _ in range(steps):
        at = torch.randint(len(stream) - 33, (32,), generator=draws)
        loss = simctg_terms(model, stream[at[:, None] + torch.arange(33)], margin=margin).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@functools.lru_cache(maxsize=1)
def judge() -> tuple[LibraryText, LanguageModel]:
    """The docstrings, and a model of those that no other model reads."""
    text = library_text(VOCABULARY)
    n = len(text.documents)
    return text, train(text.documents[6 * n // 10 : 9 * n // 10], JUDGE_WIDTH, JUDGE_STEPS, -1.0, 999)


def plain_reader(model: LanguageModel) -> Callable[[Tensor, Any], Reading]:
    """Reads, and never writes the two tokens that are no words."""
    read = reader(model)

    def quiet(tokens: Tensor, cache: Any) -> Reading:
        said = read(tokens, cache)
        return said._replace(logits=said.logits.index_fill(-1, torch.tensor([0, 1]), -torch.inf))

    return quiet


@torch.no_grad()
def write(
    read: Callable[[Tensor, Any], Reading], prefix: Tensor, steps: int, choose: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Go on with a rule that picks a token ``(n,)`` from probabilities ``(n, V)`` and what has been said ``(n, t)``."""
    ids, said = prefix, read(prefix, None)
    for _ in range(steps):
        token = choose(said.logits[:, -1].softmax(1), ids)[:, None]
        ids, said = torch.cat([ids, token], 1), read(token, said.cache)
    return ids


def nucleus(mass: float, draws: torch.Generator) -> Callable[[Tensor, Tensor], Tensor]:
    """Draw among the likeliest tokens that hold this probability together."""

    def choose(chances: Tensor, ids: Tensor) -> Tensor:
        ordered, tokens = chances.sort(dim=1, descending=True, stable=True)
        kept = ordered * (ordered.cumsum(1) - ordered < mass)
        return tokens.gather(1, torch.multinomial(kept, 1, generator=draws))[:, 0]

    return choose


def said_already(alpha: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Contrastive search without states: the penalty is 1 for a word that stands in the text, 0 for any other."""

    def choose(chances: Tensor, ids: Tensor) -> Tensor:
        seen = torch.zeros_like(chances).scatter(1, ids, 1.0)
        best, tokens = chances.topk(K)
        return tokens.gather(1, ((1 - alpha) * best - alpha * seen.gather(1, tokens)).argmax(1, keepdim=True))[:, 0]

    return choose


def no_group_twice(n: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Greedy, but no group of n tokens comes twice."""

    def choose(chances: Tensor, ids: Tensor) -> Tensor:
        chances = chances.clone()
        for row, text in enumerate(ids.tolist()):
            tail = text[-(n - 1) :]
            banned = [text[i + n - 1] for i in range(len(text) - n + 1) if text[i : i + n - 1] == tail]
            chances[row, banned] = -1.0
        return chances.argmax(1)

    return choose


def at_diversity(target: float, diverse: Sequence[float], coherent: Sequence[float]) -> float:
    """Coherence where a curve first reaches this diversity; its nearest end where it does not."""
    for i in range(1, len(diverse)):
        if diverse[i - 1] <= target <= diverse[i]:
            part = (target - diverse[i - 1]) / max(diverse[i] - diverse[i - 1], 1e-9)
            return coherent[i - 1] + part * (coherent[i] - coherent[i - 1])
    return coherent[0] if target < diverse[0] else coherent[-1]


def trial(seed: int, margin: float) -> dict[str, float]:
    """Train one model and let it write with all decoders."""
    text, critic = judge()
    n = len(text.documents)
    model = train(text.documents[: 6 * n // 10], WIDTH, STEPS, margin, seed)
    pool = text.prompts(9 * n // 10, PROMPT, PROMPT + NEW)
    draws = torch.Generator().manual_seed(seed)
    real = pool[torch.randperm(len(pool), generator=draws)[:PROMPTS]]
    prefix, read = real[:, :PROMPT], plain_reader(model)
    with torch.no_grad():
        states, logits = model(real)
    cost = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), real[:, 1:].flatten()).item()
    found = {"isotropy": isotropy(states).item(), "loss": cost}

    def look(name: str, ids: Tensor) -> tuple[float, float]:
        pair = diversity(ids[:, PROMPT:].tolist()), coherence(critic, ids, PROMPT).mean().item()
        found[f"{name} diversity"], found[f"{name} coherence"] = pair
        return pair

    target, human = look("real", real)
    curves = {
        "search": [look(f"search {a}", contrastive_search(read, prefix, NEW, k=K, alpha=a).ids) for a in ALPHAS],
        "nucleus": [look(f"nucleus {p}", write(read, prefix, NEW, nucleus(p, draws))) for p in MASSES],
        "words": [look(f"words {a}", write(read, prefix, NEW, said_already(a))) for a in WORDS],
    }
    for name, pairs in curves.items():
        found[name] = at_diversity(target, *zip(*pairs, strict=True))
        found[f"{name} from real"] = abs(found[name] - human)
    for length in GRAMS:
        reached, value = look(f"grams {length}", write(read, prefix, NEW, no_group_twice(length)))
        found[f"search at grams {length}"] = at_diversity(reached, *zip(*curves["search"], strict=True))
    return found


NATS = "A factor of 1.1 in a word's probability."
COHERENCE = Metric("Coherence at the docstrings' own diversity", "search", "nats a word", 0.1, NATS)
THERE = Metric("Coherence at the control's diversity", "search", "nats a word", 0.1, NATS)
DIVERSITY = Metric("Diversity", "search 0.6 diversity", "", 0.05, "One pair of words in twenty.")
REAL = Metric("Distance of the coherence from that of docstrings", "search from real", "nats a word", 0.1, NATS)
ISOTROPY = Metric("Isotropy of the states of new docstrings", "isotropy", "", 0.02, "A tenth of the way to orthogonal.")
LOSS = Metric("Loss on new docstrings", "loss", "nats a word", 0.05, "A factor of 1.05 in a word's probability.")
SEARCH = "contrastive search"
EXPERIMENTS = (
    Experiment(
        "contrastive-search",
        {"plain": {"margin": -1.0}, "simctg": {"margin": 0.5}},
        trial,
        [
            Claim(
                "coherence",
                "At the diversity of real text, contrastive search is more coherent than nucleus sampling.",
                COHERENCE,
                "plain:nucleus",
                "plain:search",
                headline=True,
                names=("nucleus sampling", SEARCH),
            ),
            Claim(
                "diversity",
                "Contrastive search with alpha = 0.6 is more diverse than greedy search.",
                DIVERSITY,
                "plain:search 0.0 diversity",
                "plain:search 0.6 diversity",
                names=("greedy search", SEARCH),
            ),
            Claim(
                "greedy",
                "At the diversity of real text, it is as coherent as greedy search, or more.",
                COHERENCE,
                "plain:search 0.0 coherence",
                "plain:search",
                names=("greedy search", SEARCH),
            ),
            Claim(
                "words",
                "At that diversity it is more coherent than a penalty for words that were said already.",
                COHERENCE,
                "plain:words",
                "plain:search",
                origin="ours",
                names=("penalty for words", SEARCH),
            ),
            Claim(
                "triples",
                "At the diversity of greedy search without repeated triples it is more coherent than that.",
                THERE,
                "plain:grams 3 coherence",
                "plain:search at grams 3",
                origin="ours",
                names=("greedy search, no triple twice", SEARCH),
            ),
            Claim(
                "pairs",
                "With alpha = 0.6 it is more coherent than greedy search without repeated pairs, which is as diverse.",
                THERE,
                "plain:grams 2 coherence",
                "plain:search 0.6 coherence",
                origin="post hoc",
                names=("greedy search, no pair twice", "contrastive search, alpha 0.6"),
            ),
            Claim(
                "real",
                "At that diversity its coherence is nearer to that of real text than nucleus sampling's.",
                REAL,
                "plain:nucleus from real",
                "plain:search from real",
                expected="lower",
                origin="ours",
                names=("nucleus sampling", SEARCH),
            ),
            Claim("isotropy", "SimCTG makes the states more isotropic.", ISOTROPY, "plain", "simctg"),
            Claim("loss", "SimCTG costs no likelihood.", LOSS, "plain", "simctg", expected="lower"),
            Claim("simctg", "After SimCTG contrastive search is more coherent.", COHERENCE, "plain", "simctg"),
        ],
        {"plain": "next-token loss", "simctg": "SimCTG"},
        "Recurrent language model of width 64 on docstrings, 48 prompts, 40 new words, judge of width 128.",
        seeds=range(20),
        looks=LOOKS,
    ),
)

if __name__ == "__main__":
    main(__file__, *EXPERIMENTS)
