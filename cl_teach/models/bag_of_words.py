"""Sentences without their order: counts, overlap, vectors of words from their neighbors, and an encoder with dropout.

Word 0 is a gap everywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..core.checks import check_count, check_entries, check_in_range, check_shapes
from .pooling import masked_mean

__all__ = ["BagOfWords", "context_vectors", "word_counts", "word_overlap"]


def word_counts(tokens: Tensor, words: int) -> Tensor:
    """How often each word stands in each sentence.

    Args:
        tokens: ``(n, L)`` words, 0 is a gap.
        words: number of words, the gap included.

    Returns:
        ``(n, words)`` float32; column 0 is 0.
    """
    check_count(2, words=words)
    check_shapes(tokens=(tokens, "n L", int))
    check_entries(0, words - 1, tokens=tokens)
    counts = torch.zeros(len(tokens), words, device=tokens.device)
    counts.scatter_add_(1, tokens.long(), (tokens != 0).float())
    return counts


def word_overlap(first: Tensor, second: Tensor) -> Tensor:
    """Words that two sentences share, as a share of the words that either has (Jaccard); no training.

    Args:
        first: ``(n, L)`` words, 0 is a gap.
        second: ``(n, K)``, compared row by row.

    Returns:
        ``(n,)`` float32 in [0, 1]; 0 where both are empty.
    """
    check_shapes(first=(first, "n L", int), second=(second, "n K", int))
    check_entries(0, 2**24, first=first, second=second)
    words = 2 + int(torch.maximum(first.max(), second.max()))
    a, b = word_counts(first, words) > 0, word_counts(second, words) > 0
    return (a & b).sum(1) / (a | b).sum(1).clamp_min(1)


def context_vectors(tokens: Tensor, words: int, dim: int = 32) -> Tensor:
    """Vectors of words from the company they keep: the leading singular vectors of their mutual information.

    Words that stand beside the same words get similar vectors. This is pretraining without a network.

    Args:
        tokens: ``(n, L)`` sentences, 0 is a gap.
        words: number of words, the gap included.
        dim: of a vector, at most ``words``.

    Returns:
        ``(words, dim)`` float32; 0 for the gap and for words that never occur beside another.
    """
    counts = word_counts(tokens, words)
    check_count(1, words, dim=dim)
    present = (counts > 0).double()
    together = (present.mT @ present).fill_diagonal_(0)  # sentences that hold both words
    alone = together.sum(1)
    lift = together * together.sum() / (alone[:, None] * alone).clamp_min(1)  # 1 if they met by chance
    u, s, _ = torch.linalg.svd(lift.clamp_min(1).log())  # positive mutual information
    u = u * u.gather(0, u.abs().argmax(0)[None]).sign()  # else the sign would depend on the processor
    return (u[:, :dim] * s[:dim].sqrt()).float()


class BagOfWords(nn.Module):
    """The mean of the vectors of the words, with dropout on their entries: read twice, a sentence looks different.

    Args:
        words: number of words, the gap included.
        dim: of a vector.
        dropout: share of the entries that is dropped in training, below 1.
        vectors: ``(words, dim)`` to start from, e.g. from `context_vectors`; None for random ones.

    Shape:
        ``(n, L)`` words, at least one in each sentence, to ``(n, dim)``.
    """

    def __init__(self, words: int, dim: int = 32, *, dropout: float = 0.1, vectors: Tensor | None = None) -> None:
        super().__init__()
        check_count(2, words=words)
        check_count(dim=dim)
        check_in_range(0, 1, dropout=dropout)
        check_shapes(vectors=(vectors, f"{words} {dim}?"))
        self.words = nn.Embedding(words, dim, padding_idx=0)
        if vectors is not None:
            with torch.no_grad():
                self.words.weight.copy_(vectors)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Embeddings ``(n, dim)``."""
        check_shapes(tokens=(tokens, "n L", int))
        check_entries(0, self.words.num_embeddings - 1, tokens=tokens)
        if not (tokens != 0).any(1).all():
            raise ValueError("tokens: expected at least one word in each sentence, got one of gaps alone")
        return masked_mean(self.dropout(self.words(tokens.long())), tokens != 0)
