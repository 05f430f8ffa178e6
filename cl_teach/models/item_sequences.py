"""What a user met, in order: random changes of it, and an encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..core.checks import check_count, check_generator, check_in_range, check_labels, check_shapes
from ..core.similarity import self_mask

__all__ = ["SequenceEncoder", "augment_sequences"]

HEADS = 2
# A shuffled span is this share of a sequence.
SHUFFLED = 0.8


def check_sequences(sequences: Tensor, *, name: str = "sequences") -> Tensor:
    """Check ``(B, T)`` item ids, 0 for padding on the left, an item in each row; return them as int64."""
    check_shapes(**{name: (sequences, "B T", int)})
    sequences = check_labels(sequences.flatten(), name=name).view_as(sequences)
    if not (sequences > 0).any(1).all():
        row = int((~(sequences > 0).any(1)).nonzero()[0])
        raise ValueError(f"{name}: expected an item in every row, got none in row {row}")
    return sequences


def augment_sequences(sequences: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """One of three operations a sequence, drawn evenly: crop to a half, mask a half, shuffle a span of four fifths.

    Args:
        sequences: ``(B, T)`` item ids, 0 is padding on the left.
        generator: on the CPU.

    Returns:
        ``(B, T)``; cropped sequences are padded on the left, masked items become 0.
    """
    sequences = check_sequences(sequences)
    check_generator(generator)
    ids = sequences.cpu()
    b, t = ids.shape
    length = (ids > 0).sum(1, keepdim=True)  # (B, 1), at least 1
    place = torch.arange(t)[None, :] - (t - length)  # (B, T), counts from 0 at the first item
    start, noise, choice = (torch.rand(b, k, generator=generator) for k in (1, t, 1))

    span = (length / 2).long().clamp_min(1)  # crop: keep `span` items from a random first one, moved to the right end
    first = (start * (length - span + 1)).long()
    source = torch.arange(t)[None, :] - (t - span) + (t - length) + first
    cropped = torch.where(torch.arange(t) >= t - span, ids.gather(1, source.clamp(0, t - 1)), 0)

    rank = noise.masked_fill(place < 0, 2.0).argsort(1).argsort(1)  # mask: the items of lowest noise, never all
    masked = torch.where(rank < length // 2, 0, ids)

    span = (SHUFFLED * length).long()  # shuffle: sort a span by noise, leave every other place where it is
    first = (start * (length - span + 1)).long()
    inside = (place >= first) & (place < first + span)
    key = torch.where(inside, (t - length + first) + noise, torch.arange(t).float())
    shuffled = ids.gather(1, key.argsort(dim=1, stable=True))

    kind = (choice * 3).long()
    return torch.where(kind == 0, cropped, torch.where(kind == 1, masked, shuffled)).to(sequences.device)


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
