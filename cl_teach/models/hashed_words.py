"""Texts by counting their words, and the encoder that begins there: the mean of its words' vectors.

Words are whole numbers, 0 is padding everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import svds
from torch import Tensor, nn

from ..core.checks import check_batch, check_count, check_entries, check_in_range, check_shapes, check_type
from ..core.similarity import normalize
from .encoders import MLP

__all__ = ["HashedWords", "latent_vectors", "word_rarity", "word_scores"]

# One block of word counts has at most this many entries: 64 MiB in float32.
BLOCK_ENTRIES = 2**24


def word_rarity(tokens: Tensor, words: int) -> Tensor:
    """How rare each word is among texts: the logarithm of the inverse share of texts that hold it (idf).

    Args:
        tokens: ``(n, T)`` words.
        words: number of words, padding included.

    Returns:
        ``(words,)`` float32 from 0 (in every text) to log(n) (in one, or in none); 0 for padding.

    Example:
        >>> word_rarity(torch.tensor([[1, 2, 0], [1, 1, 3]]), 4).exp().tolist()
        [1.0, 1.0, 2.0, 2.0]
    """
    _check_words(words, tokens=tokens)
    held = torch.zeros(words, device=tokens.device)
    for rows in tokens.long().split(max(1, BLOCK_ENTRIES // words)):
        held += (_counts(rows, words) > 0).float().sum(0)
    rarity = (len(tokens) / held.clamp(min=1)).log()
    rarity[0] = 0
    return rarity


def word_scores(queries: Tensor, items: Tensor, words: int, weights: Tensor | None = None) -> Tensor:
    """Search without training: cosines of word counts, each word times its weight.

    Args:
        queries: ``(q, T)`` words.
        items: ``(n, S)`` words.
        words: number of words, padding included.
        weights: ``(words,)`` at least 0, such as `word_rarity`; 1 if None.

    Returns:
        ``(q, n)`` float32 in [0, 1]; 0 for a text of no words.

    Example:
        >>> word_scores(torch.tensor([[1, 2]]), torch.tensor([[2, 0], [3, 3]]), 4)
        tensor([[0.7071, 0.0000]])
    """
    _check_words(words, queries=queries, items=items)
    if weights is not None:
        check_shapes(weights=(weights, f"{words}"))
        check_entries(0, 1e6, weights=weights)
    factor = torch.ones(words, device=queries.device) if weights is None else weights.float()
    asked = normalize(_counts(queries.long(), words) * factor)
    blocks = items.long().split(max(1, BLOCK_ENTRIES // words))
    return torch.cat([asked @ normalize(_counts(rows, words) * factor).mT for rows in blocks], dim=1)


def latent_vectors(tokens: Tensor, words: int, dim: int, power: float = 0.5) -> Tensor:
    """Vectors of words from the texts they stand in (latent semantic analysis): pretraining without a network.

    Words that occur in the same texts get similar vectors. Their coordinates are of very unequal size, and the first is
    that of all texts: frequent words point the same way.

    Args:
        tokens: ``(n, T)`` words.
        words: number of words, padding included.
        dim: of a vector; less than n and than ``words``.
        power: of the singular values that the coordinates are multiplied by, in [0, 1].

    Returns:
        ``(words, dim)`` float32, of mean length sqrt(dim) over the words that occur; 0 for those that do not.

    Source: Deerwester et al., Indexing by Latent Semantic Analysis (1990).
    """
    _check_words(words, tokens=tokens)
    check_batch(len(tokens), 2, name="tokens", why="to have a direction in which they differ")
    check_count(dim=dim)
    if dim >= min(len(tokens), words):
        raise ValueError(
            f"dim, tokens: expected fewer dimensions than texts and words, got {dim} for {len(tokens)} texts"
        )
    check_in_range(0, 1, power=power)
    row, place = tokens.cpu().long().nonzero(as_tuple=True)
    word = tokens.cpu().long()[row, place].numpy()
    counts = coo_matrix((np.ones(len(word)), (row.numpy(), word)), shape=(len(tokens), words)).tocsr()
    if counts.nnz == 0:
        raise ValueError("tokens: expected a word, got padding alone")
    counts.data = np.log1p(counts.data)
    _, values, vectors = svds(counts, k=dim, v0=np.ones(min(counts.shape)))
    order = np.argsort(-values)
    found = torch.from_numpy(vectors[order].T * values[order].clip(0) ** power)
    found = found * found.gather(0, found.abs().argmax(0)[None]).sign()  # else the sign would depend on the processor
    occurs = torch.zeros(words, dtype=torch.bool)
    occurs[torch.from_numpy(word)] = True
    length = found[occurs].norm(dim=1).mean().clamp(min=1e-12)
    return torch.where(occurs[:, None], found * dim**0.5 / length, 0.0).float().to(tokens.device)


class HashedWords(nn.Module):
    """Mean of the vectors of a text's words, dropout, and layers after it if wanted.

    Untrained, and without layers, it counts words: random vectors of many dimensions are nearly orthogonal, so that the
    cosine of two texts is nearly that of their word counts.
    """

    def __init__(
        self, words: int, dim: int, layers: Sequence[int] = (), *, dropout: float = 0.0, vectors: Tensor | None = None
    ) -> None:
        """Draw every word's vector from N(0, 1) in each coordinate, or begin with given ones.

        Args:
            words: number of words, padding included.
            dim: of a word's vector.
            layers: widths of the layers after the mean, the last one that of the output; none: the mean itself.
            dropout: probability that a coordinate of the mean is 0, in training.
            vectors: ``(words, dim)`` to begin with, such as `latent_vectors`.
        """
        super().__init__()
        check_count(2, words=words)
        check_type((list, tuple), layers=layers)
        check_count(dim=dim, **{f"layers[{i}]": width for i, width in enumerate(layers)})
        check_in_range(0, 0.99, dropout=dropout)
        self.embedding = nn.EmbeddingBag(words, dim, mode="mean", padding_idx=0)
        if vectors is not None:
            check_shapes(vectors=(vectors, f"{words} {dim}"))
            with torch.no_grad():
                self.embedding.weight.copy_(vectors)
        self.dropout = nn.Dropout(dropout)
        self.layers = MLP([dim, *layers], norm="none") if layers else nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        """Words ``(n, T)``, 0 where a text has ended, to vectors ``(n, d)``; a text of no words is the layers' of 0."""
        check_shapes(tokens=(tokens, "n T", int))
        check_entries(0, self.embedding.num_embeddings - 1, tokens=tokens)
        result: Tensor = self.layers(self.dropout(self.embedding(tokens.long())))
        return result


def _counts(tokens: Tensor, words: int) -> Tensor:
    """``(n, words)`` float32 counts, column 0 at 0."""
    table = torch.zeros(len(tokens), words, device=tokens.device)
    table.scatter_add_(1, tokens, (tokens > 0).float())
    return table


def _check_words(words: int, **tokens: Tensor) -> None:
    check_count(2, words=words)
    check_shapes(**{name: (x, f"{name} T{i}", int) for i, (name, x) in enumerate(tokens.items())})
    check_entries(0, words - 1, **tokens)  # type: ignore[arg-type]  # none of them is called like a flag
