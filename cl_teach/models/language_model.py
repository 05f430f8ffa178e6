"""A causal language model that trains in seconds: embedding, one recurrent layer, normalization, bias-free output."""

from __future__ import annotations

from torch import Tensor, nn

from ..core.checks import check_count, check_entries, check_shapes

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
    """

    def __init__(self, vocabulary: int, width: int = 32) -> None:
        super().__init__()
        check_count(vocabulary=vocabulary, width=width)
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
        return self.read(tokens)[:2]

    def read(self, tokens: Tensor, memory: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Go on reading where ``memory (n, width)`` stopped (None: at the start).

        Returns:
            States, logits, and the memory after the last token.
        """
        width = self.embedding.embedding_dim
        check_shapes(tokens=(tokens, "n T", int), memory=(memory, f"n {width}?"))
        check_entries(0, self.vocabulary - 1, tokens=tokens)
        start = (
            None if memory is None else memory[None].to(self.embedding.weight).contiguous()
        )  # (1, n, width), one layer
        raw, last = self.recurrence(self.embedding(tokens.long()), start)
        states = self.norm(raw)  # (n, T, width)
        return states, self.output(states), last[0]
