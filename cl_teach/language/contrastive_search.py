r"""Contrastive Search Is What You Need For Neural Text Generation. Yixuan Su, Nigel Collier; TMLR, 2022;
https://arxiv.org/abs/2210.14140. The decoder and its training loss (SimCTG): Su et al., A Contrastive Framework for
Neural Text Generation (2022); https://arxiv.org/abs/2202.06417.

Among the k most probable next tokens v, choose the one that is likely *and* whose hidden state resembles none of the
states so far, with cosine similarity s:

.. math::
    x_t = \arg\max_{v}\; (1-\alpha)\,p(v\mid x_{<t}) - \alpha\max_{1\le j\le t-1} s(h_v, h_{x_j}).

This needs states that can be told apart. SimCTG trains for it, and isotropy I says whether a model has them:

.. math::
    L = L_{MLE} + \frac{\sum_{i\ne j}\max\{0,\; \rho - 1 + s(h_i,h_j)\}}{\#\text{pairs}}, \qquad
    I = 1 - \frac{\sum_{i\ne j} s(h_i,h_j)}{\#\text{pairs}} \in [0, 2],

both over the ordered pairs of valid tokens within a sequence, all sequences of a batch or corpus together.

What changes and why: the most probable continuation repeats itself, since a phrase that was just said makes itself more
likely. A repeated phrase has states much like the earlier ones, and the penalty sees that; sampling avoids loops by
chance and loses the thread. The SimCTG paper trains the states apart first. This one measures that most pretrained
models do not need it: only two English ones were found with states in a narrow cone.

Paper versus code. The released code and the abstract were the sources; the body of the paper was not read. (1) The
state :math:`h_v` is the one *after* v has been read, so k candidates cost one batched forward pass; the state before v
would give all candidates the same penalty. (2) p is a probability of the whole vocabulary, neither a logarithm nor
renormalized over the k. (3) The maximum runs over the prompt, too. (4) The released n-gram counter leaves out the last
n-gram of every text (``released=True``) and rounds; here all are counted, unrounded. (5) The isotropy script counts the
first token, whose state is an outlier in many models (``skip_first`` leaves it out). (6) Lengths are counted from
padding tokens, which therefore stand at the right end only; anything else is an error here. (7) k = 4 and
:math:`\alpha` = 0.6, :math:`\rho` = 0.5 are the customary values of SimCTG, not checked against the paper.
(8) Chosen here: a small recurrent language model and a toy language in place of pretrained transformers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.checks import (
    check_batch,
    check_embeddings,
    check_in_range,
    check_mask,
    check_positive,
    check_same_length,
    check_same_shape,
    check_same_width,
)
from ..core.similarity import normalize
from ..models.language_model import LanguageModel
from ..models.sequence import token_log_probability

__all__ = [
    "Choice",
    "Decoded",
    "Reading",
    "SimCTGTerms",
    "coherence",
    "contrastive_choice",
    "contrastive_search",
    "diversity",
    "isotropy",
    "reader",
    "repetition",
    "simctg_contrast",
    "simctg_step",
    "simctg_terms",
    "toy_text",
    "valid_tokens",
]


class Reading(NamedTuple):
    """What a model makes of n rows of T tokens: ``states (n, T, d)``, ``logits (n, T, V)`` and a ``cache (n, ...)``."""

    states: Tensor
    logits: Tensor
    cache: Tensor


class Choice(NamedTuple):
    """``scores (n, k)`` and ``penalty (n, k)`` of the candidates, and the index ``chosen (n,)``."""

    scores: Tensor
    penalty: Tensor
    chosen: Tensor


class Decoded(NamedTuple):
    """``ids (n, T + steps)`` with the prefix, and ``scores (n, steps)`` of the chosen tokens."""

    ids: Tensor
    scores: Tensor


class SimCTGTerms(NamedTuple):
    """Scalars: the sum, the next-token loss, and the contrast between the tokens of a sequence."""

    total: Tensor
    likelihood: Tensor
    contrast: Tensor


def contrastive_choice(context: Tensor, candidates: Tensor, probabilities: Tensor, alpha: float = 0.6) -> Choice:
    r"""Weigh probability against the nearest state of the context.

    Args:
        context: ``(n, t, d)`` states of all tokens so far, prompt included, any scale.
        candidates: ``(n, k, d)`` states after each candidate has been read.
        probabilities: ``(n, k)`` of the candidates, from the softmax over the whole vocabulary.
        alpha: weight of the penalty in [0, 1]; 0 is greedy, 1 ignores the probabilities.

    Returns:
        Scores in [-alpha, 1], penalties in [-1, 1], and the first index of the highest score.

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes do not fit, NaN, a number out of range.

    Source: Su and Collier (2022), released decoding step.
    """
    check_embeddings(ndim=3, context=context, candidates=candidates)
    check_embeddings(probabilities=probabilities)
    check_same_width(context=context, candidates=candidates)
    check_same_length(context=context, candidates=candidates, probabilities=probabilities)
    check_same_shape(probabilities=probabilities, candidates=candidates[..., 0])
    check_in_range(0, 1, alpha=alpha, probabilities=probabilities)
    penalty = (normalize(candidates) @ normalize(context).mT).amax(2)  # (n, k, t) to (n, k)
    scores = (1 - alpha) * probabilities - alpha * penalty
    return Choice(scores, penalty, scores.argmax(1))


@torch.no_grad()
def contrastive_search(
    read: Callable[[Tensor, Tensor | None], Reading],
    prefix: Tensor,
    steps: int,
    *,
    k: int = 4,
    alpha: float = 0.6,
    end: int | None = None,
) -> Decoded:
    """Continue several prefixes of one length; deterministic.

    Args:
        read: goes on reading ``(n, T)`` tokens where the cache stopped (None: at the start), see `reader`.
        prefix: ``(n, T)`` int64.
        steps: number of new tokens.
        k: number of candidates; 1 is greedy search.
        alpha: see `contrastive_choice`; 0 is greedy search.
        end: a row that has chosen this token is filled up with it; the search stops when all rows have.

    Returns:
        Tokens and scores; fewer than ``steps`` where all rows ended early.

    Raises:
        ValueError: k above the vocabulary, a number out of range.
    """
    check_positive(steps=steps, k=k)
    check_in_range(0, 1, alpha=alpha)
    context, logits, cache = read(prefix, None)
    check_in_range(1, logits.shape[-1], k=k)
    n, width = len(prefix), context.shape[-1]
    logits, ids, scores = logits[:, -1], prefix, []
    ended = torch.zeros(n, dtype=torch.bool, device=prefix.device)
    for _ in range(steps):
        ordered, tokens = logits.softmax(1).sort(dim=1, descending=True, stable=True)  # ties: the lower token first
        probabilities, tokens = ordered[:, :k], tokens[:, :k]  # (n, k)
        # Every candidate is read once, behind its own copy of the cache; the winner's reading is kept.
        ahead = read(tokens.reshape(n * k, 1), cache.repeat_interleave(k, 0))
        choice = contrastive_choice(context, ahead.states.view(n, k, width), probabilities, alpha)
        row = torch.arange(n, device=prefix.device) * k + choice.chosen
        token = tokens.flatten()[row]
        if end is not None:
            token = token.masked_fill(ended, end)
            ended = ended | (token == end)
        context = torch.cat([context, ahead.states[row]], 1)  # (n, t + 1, d)
        logits, cache = ahead.logits[row, -1], ahead.cache[row]
        ids = torch.cat([ids, token[:, None]], 1)
        scores.append(choice.scores.gather(1, choice.chosen[:, None]))
        if ended.all():
            break
    return Decoded(ids, torch.cat(scores, 1))


def reader(model: LanguageModel) -> Callable[[Tensor, Tensor | None], Reading]:
    """Read with a `LanguageModel` step by step; its cache is the state of the recurrence."""

    def read(tokens: Tensor, cache: Tensor | None) -> Reading:
        start = None if cache is None else cache[None].contiguous()  # (1, n, d), one layer
        raw, last = model.recurrence(model.embedding(tokens), start)
        states = model.norm(raw)
        return Reading(states, model.output(states), last[0])

    return read


def valid_tokens(ids: Tensor, pad: int | None) -> Tensor:
    """``(n, T)`` boolean, true where ``ids (n, T)`` is no padding; with ``pad=None`` everywhere.

    Raises:
        ValueError: a padding token with a word behind it.
    """
    valid = torch.ones_like(ids, dtype=torch.bool) if pad is None else ids != pad
    if bool((valid[:, 1:] & ~valid[:, :-1]).any()):
        raise ValueError(f"ids: expected padding ({pad}) at the right end only, got a word behind it")
    return valid


def simctg_contrast(states: Tensor, valid: Tensor | None = None, margin: float = 0.5) -> Tensor:
    r"""Push the states of a sequence apart until their cosines are below :math:`1-\rho`.

    Args:
        states: ``(n, T, d)``, any scale.
        valid: ``(n, T)`` boolean, tokens that count; None means all.
        margin: :math:`\rho` in [-1, 1].

    Returns:
        Scalar: the mean over the pairs of all sequences, so a longer sequence counts more.

    Raises:
        TypeError: wrong dtype.
        ValueError: shapes do not fit, NaN, no sequence with two valid tokens, margin out of range.

    Source: Su et al. (2022), released loss.
    """
    check_in_range(-1, 1, margin=margin)
    cosines = _pair_cosines(states, valid)  # (pairs,)
    return (margin - 1 + cosines).relu().mean()  # the similarity of a state with itself is 1


def isotropy(states: Tensor, valid: Tensor | None = None, *, skip_first: bool = False) -> Tensor:
    """How far the states of a sequence point in different directions: 0 for one direction, 1 for orthogonal ones.

    Args:
        states: ``(n, T, d)``, any scale.
        valid: ``(n, T)`` boolean, tokens that count; None means all.
        skip_first: leave out the first token of each sequence.

    Returns:
        Scalar in [0, 2].

    Raises:
        TypeError: wrong dtype.
        ValueError: shapes do not fit, NaN, no sequence with two valid tokens.

    Source: Su and Collier (2022).
    """
    if skip_first:
        states, valid = states[:, 1:], None if valid is None else valid[:, 1:]
    return 1 - _pair_cosines(states, valid).mean()


def _pair_cosines(states: Tensor, valid: Tensor | None) -> Tensor:
    """Cosines of all ordered pairs of different valid tokens of a sequence, in one row."""
    check_embeddings(ndim=3, states=states)
    n, time, _ = states.shape
    if valid is None:
        valid = torch.ones(n, time, dtype=torch.bool, device=states.device)
    check_mask(valid, (n, time), name="valid")
    pairs = valid[:, :, None] & valid[:, None, :] & ~torch.eye(time, dtype=torch.bool, device=states.device)
    if not pairs.any():
        raise ValueError("valid: expected a sequence with at least two valid tokens, got none")
    z = normalize(states)
    return (z @ z.mT)[pairs]


def simctg_terms(model: LanguageModel, tokens: Tensor, *, margin: float = 0.5, pad: int | None = None) -> SimCTGTerms:
    """Next-token loss plus contrast of a batch; ``tokens (n, T)`` int64, ``pad`` and ``margin`` as above."""
    valid = valid_tokens(tokens, pad)
    states, logits = model(tokens)
    predicted = torch.where(valid, tokens, -100)[:, 1:]  # -100 is ignored
    likelihood = F.cross_entropy(logits[:, :-1].flatten(0, 1), predicted.flatten())
    contrast = simctg_contrast(states, valid, margin)
    return SimCTGTerms(likelihood + contrast, likelihood, contrast)


def simctg_step(model: LanguageModel, tokens: Tensor, optimizer: torch.optim.Optimizer, **settings: Any) -> SimCTGTerms:
    """One step of SimCTG; ``margin=-1`` is plain language modeling. Returns the terms from before it, detached."""
    terms = simctg_terms(model, tokens, **settings)
    optimizer.zero_grad()
    terms.total.backward()
    optimizer.step()
    return SimCTGTerms(*(term.detach() for term in terms))


def repetition(texts: Sequence[Sequence[Hashable]], n: int, *, released: bool = False) -> float:
    """Share of the n-grams that have been there before in their text: 1 - different ones / all of them.

    Args:
        texts: lists of tokens; counts are added up over the texts before the division.
        n: length of an n-gram.
        released: leave out the last n-gram of every text, as the released counter does.

    Raises:
        ValueError: no text is long enough, n not positive.
    """
    check_positive(n=n)
    grams = [[tuple(text[i : i + n]) for i in range(len(text) - n + 1 - released)] for text in texts]
    total = sum(map(len, grams))
    if not total:
        raise ValueError(f"texts: expected a text of at least {n + released} tokens, got {[len(x) for x in texts]}")
    return 1 - sum(len(set(one)) for one in grams) / total


def diversity(texts: Sequence[Sequence[Hashable]], *, released: bool = False) -> float:
    """Product of 1 - `repetition` for 2-, 3- and 4-grams: 1 if nothing is said twice."""
    return math.prod(1 - repetition(texts, n, released=released) for n in (2, 3, 4))


@torch.no_grad()
def coherence(judge: LanguageModel, ids: Tensor, prefix_length: int) -> Tensor:
    """``(n,)`` mean log-probability of the tokens of ``ids (n, T)`` behind the prefix, under another model."""
    check_in_range(1, ids.shape[1] - 1, prefix_length=prefix_length)
    logits = judge(ids)[1]
    return token_log_probability(logits[:, :-1], ids[:, 1:])[:, prefix_length - 1 :].mean(1)


def toy_text(
    n: int, length: int, vocabulary: int = 40, successors: int = 5, *, language: int = 0, generator: torch.Generator
) -> Tensor:
    """Texts of a toy language, in which always taking the likeliest next word runs into a loop, as in real text.

    Args:
        n: number of texts.
        length: words of a text.
        vocabulary: number of words.
        successors: number of words that can follow a word; the r-th has a probability proportional to 0.7 to the r.
        language: seed of the table of successors.
        generator: of the texts, on the CPU.

    Returns:
        ``(n, length)`` int64.
    """
    check_positive(n=n, length=length, successors=successors)
    check_batch(vocabulary, successors, name="vocabulary", why="(a word for each successor)")
    table = torch.Generator().manual_seed(language)
    follows = torch.rand(vocabulary, vocabulary, generator=table).argsort(1)[:, :successors]  # (V, successors)
    chances = 0.7 ** torch.arange(successors)
    words = [torch.randint(vocabulary, (n,), generator=generator)]
    for _ in range(length - 1):
        rank = torch.multinomial(chances, n, replacement=True, generator=generator)
        words.append(follows[words[-1], rank])
    return torch.stack(words, 1)
