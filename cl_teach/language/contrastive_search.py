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

What changes and why: the most probable continuation repeats itself: a phrase that leads back to a state like the one
before it is said again. Its states are much like the earlier ones, and the penalty sees that; sampling avoids loops by
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

from ..core.checks import (
    check_callable,
    check_count,
    check_entries,
    check_flag,
    check_in_range,
    check_shapes,
    check_type,
)
from ..core.precision import full_precision
from ..core.similarity import normalize
from ..models.reading import Reading, select_rows
from ..models.sequence import token_log_probability

__all__ = [
    "Choice",
    "Continuation",
    "SimCTGTerms",
    "coherence",
    "contrastive_choice",
    "contrastive_search",
    "diversity",
    "isotropy",
    "repetition",
    "simctg_contrast",
    "simctg_terms",
    "valid_tokens",
]


class Choice(NamedTuple):
    """``scores (n, k)`` and ``penalty (n, k)`` of the candidates, and the index ``chosen (n,)``."""

    scores: Tensor
    penalty: Tensor
    chosen: Tensor


class Continuation(NamedTuple):
    """``ids (n, T + steps)`` with the prefix, and ``scores (n, steps)`` of the chosen tokens."""

    ids: Tensor
    scores: Tensor


class SimCTGTerms(NamedTuple):
    """Scalars: the sum, the next-token loss, and the contrast between the tokens of a sequence."""

    loss: Tensor
    likelihood: Tensor
    contrast: Tensor


@full_precision
def contrastive_choice(context: Tensor, candidates: Tensor, probabilities: Tensor, alpha: float = 0.6) -> Choice:
    r"""Weigh probability against the nearest state of the context.

    Args:
        context: ``(n, t, d)`` states of all tokens so far, prompt included, any scale.
        candidates: ``(n, k, d)`` states after each candidate has been read.
        probabilities: ``(n, k)`` of the candidates, from the softmax over the whole vocabulary.
        alpha: weight of the penalty in [0, 1]; 0 is greedy, 1 ignores the probabilities.

    Returns:
        Scores in [-alpha, 1], penalties in [-1, 1], and the first index of the highest score.

    Source: Su and Collier (2022), released decoding step.

    Example:
        >>> said, new = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
        >>> choice = contrastive_choice(said, new, torch.tensor([[0.7, 0.2]]))  # the likely word repeats the state
        >>> [round(score, 2) for score in choice.scores[0].tolist()], choice.chosen.item()
        ([-0.32, 0.08], 1)
    """
    check_shapes(context=(context, "n t d"), candidates=(candidates, "n k d"), probabilities=(probabilities, "n k"))
    check_in_range(0, 1, alpha=alpha)
    check_entries(0, 1, probabilities=probabilities)
    penalty = (normalize(candidates) @ normalize(context).mT).amax(2)  # (n, k, t) to (n, k)
    scores = (1 - alpha) * probabilities - alpha * penalty
    return Choice(scores, penalty, scores.argmax(1))


@torch.no_grad()
def contrastive_search(
    read: Callable[[Tensor, Any], Reading],
    prefix: Tensor,
    steps: int,
    *,
    k: int = 4,
    alpha: float = 0.6,
    end: int | None = None,
) -> Continuation:
    """Continue several prefixes of one length; deterministic.

    Args:
        read: goes on reading ``(n, T)`` tokens where the cache stopped (None: at the start), see `reader`.
        prefix: ``(n, T)`` integers.
        steps: number of new tokens.
        k: number of candidates; 1 is greedy search.
        alpha: see `contrastive_choice`; 0 is greedy search.
        end: a row that has chosen this token is filled up with it; the search stops when all rows have.

    Returns:
        Tokens and scores; fewer than ``steps`` where all rows ended early.
    """
    check_callable(read=read)
    check_shapes(prefix=(prefix, "n T", int))
    check_count(steps=steps, k=k)
    check_in_range(0, 1, alpha=alpha)
    if end is not None:
        check_count(0, end=end)
    try:
        context, logits, cache = read(prefix.long(), None)
    except ValueError as error:
        raise ValueError(f"prefix: {error}") from error
    check_count(1, logits.shape[-1], k=k)
    n, width = len(prefix), context.shape[-1]
    logits, ids, scores = logits[:, -1], prefix.long(), []
    ended = torch.zeros(n, dtype=torch.bool, device=prefix.device)
    first = torch.arange(n, device=prefix.device)
    for _ in range(steps):
        # The order of ties: the lower token first.
        ordered, tokens = logits.float().softmax(1).sort(dim=1, descending=True, stable=True)
        probabilities, tokens = ordered[:, :k], tokens[:, :k]  # (n, k)
        # Every candidate is read once, behind its own copy of the cache; the winner's reading is kept.
        ahead = read(tokens.reshape(n * k, 1), select_rows(cache, first.repeat_interleave(k)))
        choice = contrastive_choice(context, ahead.states.view(n, k, width), probabilities, alpha)
        row = first * k + choice.chosen
        token = tokens.flatten()[row]
        if end is not None:
            token = token.masked_fill(ended, end)
            ended = ended | (token == end)
        context = torch.cat([context, ahead.states[row]], 1)  # (n, t + 1, d)
        logits, cache = ahead.logits[row, -1], select_rows(ahead.cache, row)
        ids = torch.cat([ids, token[:, None]], 1)
        scores.append(choice.scores.gather(1, choice.chosen[:, None]))
        if ended.all():
            break
    return Continuation(ids, torch.cat(scores, 1))


def valid_tokens(ids: Tensor, pad: int | None) -> Tensor:
    """``(n, T)`` boolean, true where ``ids (n, T)`` is no padding; with ``pad=None`` everywhere.

    Raises:
        ValueError: a padding token with a word behind it.
    """
    check_shapes(ids=(ids, "n T", int))
    if pad is None:
        return torch.ones_like(ids, dtype=torch.bool)
    check_count(0, pad=pad)
    valid = ids.long() != pad
    if bool((valid[:, 1:] & ~valid[:, :-1]).any()):
        raise ValueError(f"ids, pad: expected padding ({pad}) at the right end only, got a word behind it")
    return valid


@full_precision
def simctg_contrast(states: Tensor, valid: Tensor | None = None, margin: float = 0.5) -> Tensor:
    r"""Push the states of a sequence apart until their cosines are below :math:`1-\rho`.

    Args:
        states: ``(n, T, d)``, any scale.
        valid: ``(n, T)`` boolean, tokens that count, at least two of one sequence; None means all.
        margin: :math:`\rho` in [-1, 1].

    Returns:
        Scalar: the mean over the pairs of all sequences, so a longer sequence counts more.

    Source: Su et al. (2022), released loss.
    """
    check_in_range(-1, 1, margin=margin)
    cosines, pairs = _pair_cosines(states, valid)  # (n, T, T) each
    # The similarity of a state with itself is 1.
    return ((margin - 1 + cosines).relu() * pairs).sum() / pairs.sum()


@full_precision
def isotropy(states: Tensor, valid: Tensor | None = None, *, skip_first: bool = False) -> Tensor:
    """How far the states of a sequence point in different directions: 0 for one direction, 1 for orthogonal ones.

    Args:
        states: ``(n, T, d)``, any scale.
        valid: ``(n, T)`` boolean, tokens that count, at least two of one sequence; None means all.
        skip_first: leave out the first token of each sequence.

    Returns:
        Scalar in [0, 2].

    Source: Su and Collier (2022).
    """
    check_flag(skip_first=skip_first)
    check_shapes(states=(states, "n T d"), valid=(valid, "n T?", bool))
    if skip_first:
        if states.shape[1] < 3:
            raise ValueError(f"states: expected at least 3 tokens with skip_first, got shape {tuple(states.shape)}")
        states, valid = states[:, 1:], None if valid is None else valid[:, 1:]
    cosines, pairs = _pair_cosines(states, valid)
    return 1 - (cosines * pairs).sum() / pairs.sum()


def _pair_cosines(states: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Cosines ``(n, T, T)`` of the tokens of a sequence, and which are of two different valid ones."""
    check_shapes(states=(states, "n T d"), valid=(valid, "n T?", bool))
    n, time, _ = states.shape
    if valid is None:
        valid = torch.ones(n, time, dtype=torch.bool, device=states.device)
    pairs = valid[:, :, None] & valid[:, None, :] & ~torch.eye(time, dtype=torch.bool, device=states.device)
    if not pairs.any():
        raise ValueError("states, valid: expected a sequence with at least two valid tokens, got none")
    z = normalize(states)
    return z @ z.mT, pairs


def simctg_terms(
    model: Callable[[Tensor], tuple[Tensor, Tensor]], tokens: Tensor, *, margin: float = 0.5, pad: int | None = None
) -> SimCTGTerms:
    """Next-token loss plus contrast of a batch; ``margin=-1`` is plain language modeling.

    Train with ``fit(model, partial(simctg_terms, model), tokens)``.

    Args:
        model: tokens ``(n, T)`` to states ``(n, T, d)`` and logits ``(n, T, V)``.
        tokens: ``(n, T)`` integers.
        margin: see `simctg_contrast`.
        pad: the token that fills up the right end; None if nothing does.
    """
    check_callable(model=model)
    check_shapes(tokens=(tokens, "n T", int))
    check_in_range(-1, 1, margin=margin)
    try:
        valid = valid_tokens(tokens, pad)
    except ValueError as error:
        raise ValueError(f"tokens: {error}") from error
    if not valid[:, 1:].any():
        raise ValueError("tokens, pad: expected a sequence of at least two tokens that are no padding, got none")
    states, logits = model(tokens)
    likelihood = -token_log_probability(logits[:, :-1], tokens[:, 1:])[valid[:, 1:]].mean()
    contrast = simctg_contrast(states, valid, margin)
    return SimCTGTerms(likelihood + contrast, likelihood, contrast)


def repetition(texts: Sequence[Sequence[Hashable]], n: int, *, released: bool = False) -> float:
    """Share of the n-grams that have been there before in their text: 1 - different ones / all of them.

    Args:
        texts: lists of tokens; counts are added up over the texts before the division. One of them has n tokens.
        n: length of an n-gram.
        released: leave out the last n-gram of every text, as the released counter does.
    """
    check_type(Sequence, texts=texts)
    check_type(Sequence, **{f"texts[{i}]": text for i, text in enumerate(texts)})
    check_count(n=n)
    check_flag(released=released)
    grams = [[tuple(text[i : i + n]) for i in range(len(text) - n + 1 - released)] for text in texts]
    total = sum(map(len, grams))
    if not total:
        raise ValueError(f"texts: expected a text of at least {n + released} tokens, got {[len(x) for x in texts]}")
    return 1 - sum(len(set(one)) for one in grams) / total


def diversity(texts: Sequence[Sequence[Hashable]], *, released: bool = False) -> float:
    """Product of 1 - `repetition` for 2-, 3- and 4-grams: 1 if nothing is said twice."""
    return math.prod(1 - repetition(texts, n, released=released) for n in (2, 3, 4))


@torch.no_grad()
def coherence(judge: Callable[[Tensor], tuple[Tensor, Tensor]], ids: Tensor, prefix_length: int) -> Tensor:
    """``(n,)`` mean log-probability of the tokens of ``ids (n, T)`` behind the prefix, under another model.

    Args:
        judge: tokens to states and logits.
        ids: ``(n, T)`` integers.
        prefix_length: tokens that are not judged, at least 1 and fewer than T.
    """
    check_callable(judge=judge)
    check_shapes(ids=(ids, "n T", int))
    if ids.shape[1] < 2:
        raise ValueError(f"ids: expected at least two tokens, got shape {tuple(ids.shape)}")
    check_count(1, ids.shape[1] - 1, prefix_length=prefix_length)
    try:
        logits = judge(ids)[1]
    except ValueError as error:
        raise ValueError(f"ids: {error}") from error
    return token_log_probability(logits[:, :-1], ids[:, 1:])[:, prefix_length - 1 :].mean(1)
