"""A causal language model that trains in seconds: embedding, one recurrent layer, normalization, bias-free output."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..core.checks import check_positive

__all__ = ["LanguageModel"]


class LanguageModel(nn.Module):
    """Next-token logits from the tokens so far.

    The output layer has no bias, so that logits are inner products of a hidden state with rows of ``unembedding``.

    Args:
        vocabulary: number of tokens.
        width: of embeddings and hidden states.

    Shape:
        ``(n, T)`` integer tokens to states ``(n, T, width)`` and logits ``(n, T, vocabulary)``; position t has read
        the tokens up to and with t and predicts token t + 1.

    Raises:
        TypeError: at a call, tokens not of dtype int64.
        ValueError: a size not positive; at a call, tokens of another shape or out of range.
    """

    def __init__(self, vocabulary: int, width: int = 32) -> None:
        super().__init__()
        check_positive(vocabulary=vocabulary, width=width)
        self.vocabulary = vocabulary
        self.embedding = nn.Embedding(vocabulary, width)
        self.recurrence = nn.GRU(width, width, batch_first=True)
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, vocabulary, bias=False)

    @property
    def unembedding(self) -> Tensor:
        """``(vocabulary, width)`` weights of the output layer."""
        return self.output.weight

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states ``(n, T, width)`` and logits ``(n, T, vocabulary)``."""
        if tokens.dtype != torch.int64:
            raise TypeError(f"tokens: expected dtype torch.int64, got {tokens.dtype}")
        if tokens.ndim != 2 or tokens.numel() == 0:
            raise ValueError(f"tokens: expected shape (n, T), not empty, got {tuple(tokens.shape)}")
        if int(tokens.min()) < 0 or int(tokens.max()) >= self.vocabulary:
            raise ValueError(f"tokens: expected values in [0, {self.vocabulary}), got one outside")
        states = self.norm(self.recurrence(self.embedding(tokens))[0])  # (n, T, width)
        return states, self.output(states)
