r"""DebCSE: Rethinking Unsupervised Contrastive Sentence Embedding Learning in the Debiasing Perspective. Pu Miao,
Zeyao Du, Junlin Zhang; CIKM 2023; https://arxiv.org/abs/2309.07396.

**A reconstruction.** Only the abstract could be read and no code was found. The abstract says that positives and
negatives are drawn with inverse propensity weights that follow surface and semantic similarity; every formula and
constant below is ours, the simplest procedure that does this.

With the surface similarity :math:`a_{ij} = 1 - \mathrm{Lev}(t_i, t_j)/\max(|t_i|,|t_j|)` of two token lists, the
cosine :math:`c_{ij}` of a frozen scorer and :math:`m_{ij} = (c_{ij}+1)/2`, a rule that looks at the surface would
propose a pair with propensity

.. math::
    p^+_{ij} = \max\{e^{\lambda(a_{ij}-1)}, p_{\min}\}, \qquad p^-_{ij} = \max\{e^{-\lambda a_{ij}}, p_{\min}\},

and pairs are drawn with probability :math:`q^\pm_{ij} \propto w^\pm_{ij}`, :math:`j \ne i`,

.. math::
    w^+_{ij} = \min\{m_{ij}^\nu / p^+_{ij}, w_{\max}\}, \qquad
    w^-_{ij} = \min\{(1-m_{ij})^\nu / p^-_{ij}, w_{\max}\}.

The loss is supervised SimCSE with K drawn hard negatives for each anchor:

.. math::
    L = \frac1B\sum_i -\log\frac{e^{\cos(h_i,h_i^+)/\tau}}
        {\sum_j\big(e^{\cos(h_i,h_j^+)/\tau} + \sum_k e^{\cos(h_i,h_{jk}^-)/\tau}\big)} .

What changes and why: where the positive is the same sentence and negatives are random, positives share length and
words and negatives do not, so that surface is a shortcut. The weights favor a positive that means the same and looks
different, and a negative that looks the same and means something else.

Paper versus code. There is no code to compare with. Chosen here: (1) edit distance on tokens as surface similarity;
(2) :math:`\lambda=2, \nu=1, p_{\min}=10^{-3}`, no cap, K = 1, a temperature of 0.05; (3) draws with replacement; (4)
candidates from the nearest sentences, see `nearest`; (5) a drawn sentence that stands in the batch a second time is
no negative of its own anchor (masked by index). A scorer that follows word overlap itself makes the weights useless.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..core.checks import (
    check_batch,
    check_callable,
    check_count,
    check_entries,
    check_generator,
    check_in_range,
    check_labels,
    check_positive,
    check_shapes,
    check_square,
    check_type,
)
from ..core.contrast import check_temperature, softmax_contrast
from ..core.precision import full_precision
from ..core.similarity import cosine_similarity, normalize, self_mask
from ..core.surface import check_sentences, first_occurrences, surface_similarity

__all__ = [
    "DebCSE",
    "PairProbabilities",
    "debcse_loss",
    "draw_pairs",
    "effective_choices",
    "nearest",
    "pair_probabilities",
]

ROUNDING = 1e-3  # how far a cosine may leave [-1, 1]


class PairProbabilities(NamedTuple):
    """How likely each sentence is drawn for each anchor; rows sum to 1, the diagonal is 0.

    Attributes:
        positives: ``(n, n)``.
        negatives: ``(n, n)``.
    """

    positives: Tensor
    negatives: Tensor


def nearest(similarity: Tensor, count: int) -> Tensor:
    """The ``count`` most similar other sentences of each anchor, as candidates to draw from.

    Args:
        similarity: ``(n, n)``.
        count: between 1 and n - 1.

    Returns:
        ``(n, n)`` boolean, ``count`` true entries a row, none on the diagonal.
    """
    check_square(2, similarity=similarity)
    check_count(1, len(similarity) - 1, count=count)
    others = similarity.masked_fill(self_mask(len(similarity), similarity.device), -math.inf)
    best = others.topk(count, dim=1).indices
    return torch.zeros_like(similarity, dtype=torch.bool).scatter(1, best, True)


@torch.no_grad()
@full_precision
def pair_probabilities(
    surface: Tensor,
    semantic: Tensor,
    *,
    sharpness: float = 2.0,
    power: float = 1.0,
    smallest_propensity: float = 1e-3,
    largest_weight: float | None = None,
    positive_candidates: Tensor | None = None,
    negative_candidates: Tensor | None = None,
) -> PairProbabilities:
    r"""Inverse propensity weights, normalized to probabilities.

    Args:
        surface: ``(n, n)`` similarities a in [0, 1].
        semantic: ``(n, n)`` cosines c of the frozen scorer.
        sharpness: :math:`\lambda \ge 0`, how strongly a naive rule follows the surface; 0 means semantics only.
        power: :math:`\nu \ge 0` of the semantic score; 0 means surface only.
        smallest_propensity: bound on the propensities from below, in (0, 1].
        largest_weight: cap on the weights before they are normalized; None for no cap.
        positive_candidates: ``(n, n)`` boolean, what may be drawn as a positive; None for all others.
        negative_candidates: ``(n, n)`` boolean, the same for negatives.

    Returns:
        Probabilities without gradient.

    Raises:
        ValueError: an anchor without any weight: all its candidates mean exactly the same (or the opposite).
    """
    candidates = {"positive_candidates": positive_candidates, "negative_candidates": negative_candidates}
    masks = {name: (mask, "n n?", bool) for name, mask in candidates.items()}
    n = check_shapes(surface=(surface, "n n"), semantic=(semantic, "n n"), **masks)["n"]
    check_batch(n, 2, name="surface", why="to form a pair")
    check_entries(0, 1, surface=surface)
    check_entries(-1 - ROUNDING, 1 + ROUNDING, semantic=semantic)
    check_in_range(0, 1e3, sharpness=sharpness, power=power)
    check_in_range(1e-30, 1, smallest_propensity=smallest_propensity)
    meaning = ((semantic + 1) / 2).clamp(0, 1)  # m
    propensity_pos = (sharpness * (surface - 1)).exp().clamp_min(smallest_propensity)
    propensity_neg = (-sharpness * surface).exp().clamp_min(smallest_propensity)
    positive, negative = meaning**power / propensity_pos, (1 - meaning) ** power / propensity_neg
    if largest_weight is not None:
        check_positive(largest_weight=largest_weight)
        positive, negative = positive.clamp_max(largest_weight), negative.clamp_max(largest_weight)

    itself, found = self_mask(n, surface.device), []
    for name, weight in (("positive", positive), ("negative", negative)):
        mask = candidates[f"{name}_candidates"]
        weight = weight.masked_fill(itself if mask is None else itself | ~mask, 0.0)
        total = weight.sum(1, keepdim=True)
        if (total <= 0).any():
            row = int((total <= 0).nonzero()[0, 0])
            raise ValueError(
                f"surface, semantic, power, largest_weight, {name}_candidates: row {row} leaves no {name} to draw, "
                "all its weights are 0"
            )
        found.append(weight / total)
    return PairProbabilities(*found)


@full_precision
def effective_choices(probabilities: Tensor) -> Tensor:
    """``(n,)`` how many equally likely choices each row ``(n, m)`` amounts to, 1 / sum of squares."""
    _check_probabilities(probabilities)
    return 1 / probabilities.square().sum(1)


@full_precision
def draw_pairs(probabilities: Tensor, count: int = 1, *, generator: torch.Generator | None = None) -> Tensor:
    """``(B, count)`` column numbers drawn from each row of ``(B, n)`` probabilities, with replacement."""
    _check_probabilities(probabilities)
    check_count(count=count)
    check_generator(generator)
    where = probabilities.device if generator is None else generator.device
    drawn = torch.multinomial(probabilities.to(where), count, replacement=True, generator=generator)
    return drawn.to(probabilities.device)


@full_precision
def debcse_loss(
    anchor: Tensor,
    positive: Tensor,
    negatives: Tensor | None = None,
    temperature: float | Tensor = 0.05,
    *,
    index: tuple[Tensor, Tensor, Tensor | None] | None = None,
) -> Tensor:
    """Contrast of each anchor with all positives and all hard negatives of the batch.

    Args:
        anchor: ``(B, d)``, any scale (normalized here).
        positive: ``(B, d)``, row i belongs to anchor i.
        negatives: ``(B, K, d)`` drawn for the anchors, or None (K = 0).
        temperature: greater than 0.
        index: which sentences anchor ``(B,)``, positive ``(B,)`` and negatives ``(B, K)`` are. Then a column that
            repeats anchor i or its positive is left out of row i. None masks nothing.

    Returns:
        Scalar.

    Source: reconstructed; the form is that of Gao et al., SimCSE (2021), equation 5.
    """
    check_shapes(anchor=(anchor, "B d"), positive=(positive, "B d"), negatives=(negatives, "B K d?"))
    check_temperature(temperature)
    rows, columns = len(anchor), positive
    if negatives is None:
        check_batch(rows, 2, name="anchor", why="to have a negative (or pass negatives)")
    else:
        columns = torch.cat([positive, negatives.flatten(0, 1)])  # (B + BK, d)
    logits = normalize(anchor) @ normalize(columns).mT / temperature  # (B, B + BK)
    own = torch.eye(rows, len(columns), dtype=torch.bool, device=logits.device)
    if index is None:
        return softmax_contrast(logits, own)
    check_type(tuple, index=index)
    if len(index) != 3 or (index[2] is None) != (negatives is None):
        raise ValueError("index: expected three parts, the last one None where there are no negatives, got others")
    anchors = check_labels(index[0], rows, name="index[0]")
    positives = check_labels(index[1], rows, name="index[1]")
    sentence = positives
    if index[2] is not None:
        check_shapes(negatives=(negatives, "B K d?"), **{"index[2]": (index[2], "B K", int)})
        sentence = torch.cat([positives, check_labels(index[2].flatten(), name="index[2]")])
    repeated = (anchors[:, None] == sentence) | (positives[:, None] == sentence)
    return softmax_contrast(logits, own, ~repeated | own)


class DebCSE(nn.Module):
    """The corpus, how its sentences look, and the tables that pairs are drawn from; thrown away after training.

    Call `refresh` with the scorer's embeddings of the corpus before the first step (and again with a better scorer);
    then each step is ``method(encoder, index)`` with ``encoder`` from sentence numbers to embeddings.

    Example:
        >>> corpus = [["a", "cat", "sat"], ["a", "cat", "ran"], ["one", "feline", "sat"], ["a", "dog", "sat"]]
        >>> method = DebCSE(corpus)
        >>> method.refresh(torch.tensor([[1.0, 0.0], [0.8, 0.6], [1.0, 0.1], [0.0, 1.0]]))
        >>> corpus[method.positives[0].argmax()], corpus[method.negatives[0].argmax()]
        (['one', 'feline', 'sat'], ['a', 'dog', 'sat'])
        >>> method(torch.nn.Embedding(4, 8), torch.tensor([0, 1])).shape
        torch.Size([])
    """

    surface: Tensor
    positives: Tensor
    negatives: Tensor

    def __init__(
        self,
        sentences: Sequence[Sequence[Hashable]],
        *,
        count: int = 1,
        candidates: int | None = None,
        temperature: float = 0.05,
        sharpness: float = 2.0,
        power: float = 1.0,
    ) -> None:
        """Compare the surfaces of the corpus once.

        Args:
            sentences: n different lists of tokens, see `first_occurrences`.
            count: K, hard negatives for each anchor.
            candidates: positives come from this many semantic neighbors, negatives from as many surface neighbors;
                None for the whole corpus.
            temperature: of the loss.
            sharpness: see `pair_probabilities`.
            power: see `pair_probabilities`.
        """
        super().__init__()
        check_sentences(sentences)
        check_batch(len(sentences), 2, name="sentences", why="to form a pair")
        check_count(count=count)
        check_temperature(temperature)
        check_in_range(0, 1e3, sharpness=sharpness, power=power)
        if candidates is not None:
            check_count(1, len(sentences) - 1, candidates=candidates)
        if len(first_occurrences(sentences)) < len(sentences):
            raise ValueError("sentences: expected different ones, got a duplicate; keep first_occurrences(sentences)")
        self.count, self.candidates, self.temperature = count, candidates, temperature
        self.sharpness, self.power = sharpness, power
        surface = surface_similarity(sentences)
        for name, table in (("surface", surface), ("positives", 0 * surface), ("negatives", 0 * surface)):
            self.register_buffer(name, table)

    def refresh(self, embeddings: Tensor) -> None:
        """Compute both tables from the scorer's embeddings ``(n, d)`` of the corpus."""
        check_shapes(embeddings=(embeddings, f"{len(self.surface)} d"))
        semantic = cosine_similarity(embeddings.detach(), embeddings.detach()).to(self.surface)
        k = self.candidates
        near, alike = (None if k is None else nearest(x, k) for x in (semantic, self.surface))
        try:
            tables = pair_probabilities(
                self.surface,
                semantic,
                sharpness=self.sharpness,
                power=self.power,
                positive_candidates=near,
                negative_candidates=alike,
            )
        except ValueError as error:
            raise ValueError(f"embeddings: their cosines do not do: {error}") from error
        self.positives.copy_(tables.positives)
        self.negatives.copy_(tables.negatives)

    def loss(
        self, encoder: Callable[[Tensor], Tensor], index: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw a positive and K negatives for the anchors ``index (B,)``, encode all, and compare."""
        check_callable(encoder=encoder)
        index = check_labels(index, name="index", num_classes=len(self.surface))
        check_batch(len(index), 1, name="index", why="(an anchor)")
        check_generator(generator)
        if not self.positives.any():
            raise ValueError("positives: the tables are empty, call refresh with embeddings of the corpus first")
        positive = draw_pairs(self.positives[index], generator=generator)[:, 0]  # (B,)
        negative = draw_pairs(self.negatives[index], self.count, generator=generator)  # (B, K)
        h = encoder(torch.cat([index, positive, negative.flatten()]))  # one pass
        rows = len(index)
        hard = h[2 * rows :].unflatten(0, (rows, self.count))
        return debcse_loss(h[:rows], h[rows : 2 * rows], hard, self.temperature, index=(index, positive, negative))

    def forward(
        self, encoder: Callable[[Tensor], Tensor], index: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """The loss."""
        return self.loss(encoder, index, generator=generator)


def _check_probabilities(probabilities: Tensor) -> None:
    check_shapes(probabilities=(probabilities, "n m"))
    check_entries(0, math.inf, probabilities=probabilities)
    if not (probabilities.sum(1) - 1).abs().max() < 1e-2:
        raise ValueError("probabilities: expected rows that sum to 1, got a row with another sum")
