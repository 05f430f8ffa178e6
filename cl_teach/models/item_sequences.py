"""An encoder of what a user met, in order."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..core.checks import check_count, check_in_range, check_labels, check_shapes
from ..core.similarity import self_mask

__all__ = ["SequenceEncoder"]

HEADS = 2


def check_sequences(sequences: Tensor, *, name: str = "sequences") -> Tensor:
    """Check ``(B, T)`` item ids, 0 for padding on the left, an item in each row; return them as int64."""
    check_shapes(**{name: (sequences, "B T", int)})
    sequences = check_labels(sequences.flatten(), name=name).view_as(sequences)
    if not (sequences > 0).any(1).all():
        row = int((~(sequences > 0).any(1)).nonzero()[0])
        raise ValueError(f"{name}: expected an item in every row, got none in row {row}")
    return sequences


class SequenceEncoder(nn.Module):
    """A small causal Transformer over item ids; the last position stands for the user. ``(B, T)`` to ``(B, d)``.

    Args:
        items: number of items, ids 1 to ``items``; 0 is padding.
        dim: d, a multiple of 2 (the heads).
        length: longest sequence.
        layers: of the Transformer.
        dropout: in its layers.
    """

    def __init__(self, items: int, dim: int = 32, length: int = 12, *, layers: int = 1, dropout: float = 0.1) -> None:
        super().__init__()
        check_count(items=items, dim=dim, length=length, layers=layers)
        check_in_range(0, 1, dropout=dropout)
        if dim % HEADS:
            raise ValueError(f"dim: expected a multiple of {HEADS}, the heads, got {dim}")
        self.items = nn.Embedding(items + 1, dim, padding_idx=0)
        self.places = nn.Parameter(0.02 * torch.randn(length, dim))
        block = nn.TransformerEncoderLayer(dim, HEADS, 4 * dim, dropout, "gelu", batch_first=True)
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        nn.init.normal_(self.items.weight[1:], std=0.02)

    def forward(self, sequences: Tensor) -> Tensor:
        """Encode sequences ``(B, T)`` of at most ``length`` items, not normalized."""
        sequences, longest = check_sequences(sequences), len(self.places)
        if sequences.shape[1] > longest:
            raise ValueError(f"sequences: expected at most {longest} items, got {sequences.shape[1]}")
        if int(sequences.max()) >= self.items.num_embeddings:
            known = self.items.num_embeddings
            raise ValueError(f"sequences: expected ids below {known}, got {int(sequences.max())}")
        t = sequences.shape[1]
        later = torch.ones(t, t, dtype=torch.bool, device=sequences.device).triu(1)
        hidden = sequences.eq(0)[:, None, :] | later  # padding and masked items are not looked at
        hidden = hidden & ~self_mask(t, sequences.device)  # except by themselves: no row may be empty
        states = self.items(sequences) + self.places[-t:]
        return self.blocks(states, mask=hidden.repeat_interleave(HEADS, 0))[:, -1]
