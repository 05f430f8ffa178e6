"""A transformer of teaching size for signals, and the parts that make it affordable on few data: attention that loses
random keys, low-rank corrections of frozen layers, a head that standardizes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..core.checks import (
    check_count,
    check_flag,
    check_generator,
    check_in_range,
    check_positive,
    check_shapes,
    check_type,
    finite_result,
)

__all__ = ["DropKeyAttention", "LoRALinear", "NormalizedHead", "SignalTower", "draw_drop_mask"]


def draw_drop_mask(
    n: int, heads: int, tokens: int, rate: float = 0.3, *, generator: torch.Generator | None = None
) -> Tensor:
    """Which keys each query loses: independent draws, but no query loses all.

    Args:
        n: rows of the batch.
        heads: number of heads.
        tokens: T, queries and keys.
        rate: chance of losing a key, in [0, 1].
        generator: of the draws, on its device.

    Returns:
        ``(n, heads, T, T)`` boolean, true where a key is lost. A query that would lose all keeps a random one.
    """
    check_count(n=n, heads=heads, tokens=tokens)
    check_in_range(0, 1, rate=rate)
    check_generator(generator)
    where = "cpu" if generator is None else generator.device
    drawn = torch.rand(n, heads, tokens, tokens, generator=generator, device=where)
    highest = drawn == drawn.amax(-1, keepdim=True)
    return (drawn < rate) & ~highest  # the highest draw survives at any rate


class DropKeyAttention(nn.Module):
    """Self-attention in which keys are dropped before the softmax, so that each row still sums to 1.

    Args:
        dim: width of the tokens.
        heads: number of heads, a divisor of ``dim``.

    Shape:
        ``(n, T, dim)`` to ``(n, T, dim)``.

    Source: Thapa et al. (2024), released vision tower.
    """

    def __init__(self, dim: int, heads: int = 2) -> None:
        super().__init__()
        check_count(dim=dim, heads=heads)
        if dim % heads:
            raise ValueError(f"heads: expected a divisor of dim={dim}, got {heads}")
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, dropped: Tensor | None = None) -> Tensor:
        """Attend; ``dropped (n, heads, T, T)`` is true where query i loses key j, None loses nothing."""
        width = self.out.in_features
        check_shapes(tokens=(tokens, f"n T {width}"))
        n, time, dim = tokens.shape
        tokens = tokens.to(self.out.weight.dtype)
        check_shapes(tokens=(tokens, "n T d"), dropped=(dropped, f"n {self.heads} T T?", bool))
        if dropped is not None and bool(dropped.all(-1).any()):
            raise ValueError("dropped: expected every query to keep at least one key, got one without")
        # (n, T, 3, heads, dim / heads) to three times (n, heads, T, dim / heads)
        q, k, v = self.qkv(tokens).view(n, time, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        logits = q @ k.mT / math.sqrt(q.shape[-1])  # (n, heads, T, T)
        if dropped is not None:
            logits = logits.masked_fill(dropped, -math.inf)
        weights = logits.float().softmax(-1).to(v) if logits.dtype.itemsize < 4 else logits.softmax(-1)
        return finite_result(self.out((weights @ v).transpose(1, 2).reshape(n, time, dim)), tokens=tokens)


class LoRALinear(nn.Module):
    """A frozen linear layer with a trained correction of low rank; its bias is trained, too.

    Args:
        layer: what is frozen.
        rank: r.
        alpha: the correction is scaled by alpha / rank.
        dropout: on the input of the correction.

    Shape:
        ``(..., in)`` to ``(..., out)``.

    Source: Hu et al., LoRA (2021); rank 16, alpha 8 and the trained biases as in Thapa et al. (2024), released code.
    """

    def __init__(self, layer: nn.Linear, rank: int = 4, alpha: float = 2.0, dropout: float = 0.1) -> None:
        super().__init__()
        check_type(nn.Linear, layer=layer)
        check_count(rank=rank)
        check_positive(alpha=alpha)
        check_in_range(0, 1, dropout=dropout)
        self.layer = layer
        self.layer.weight.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(rank, layer.in_features) / layer.in_features**0.5)  # A
        self.up = nn.Parameter(torch.zeros(layer.out_features, rank))  # B
        self.scale, self.dropout = alpha / rank, nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """The layer and its correction."""
        check_shapes(x=(x, f"... {self.layer.in_features}"))
        x = x.to(self.layer.weight.dtype)
        return self.layer(x) + self.scale * (self.dropout(x) @ self.down.mT @ self.up.mT)

    def merged(self) -> nn.Linear:
        """One plain layer that computes the same without dropout."""
        plain = nn.Linear(self.layer.in_features, self.layer.out_features, bias=self.layer.bias is not None)
        with torch.no_grad():
            plain.weight.copy_(self.layer.weight + self.scale * self.up @ self.down)
            if self.layer.bias is not None:
                plain.bias.copy_(self.layer.bias)
        return plain.to(self.layer.weight)


class NormalizedHead(nn.Sequential):
    """Linear, BatchNorm, ReLU, Linear, BatchNorm, no biases before a normalization; refuses a batch of one in training.

    Args:
        in_dim: width of the features.
        hidden: width between (128 in the release).
        out_dim: width of the embeddings.

    Shape:
        ``(n, in_dim)`` to ``(n, out_dim)``.
    """

    def __init__(self, in_dim: int, hidden: int, out_dim: int) -> None:
        check_count(in_dim=in_dim, hidden=hidden, out_dim=out_dim)
        super().__init__(
            nn.Linear(in_dim, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, out_dim, bias=False),
            nn.BatchNorm1d(out_dim),
        )


class SignalTower(nn.Module):
    """A transformer block: pieces of a signal to one feature vector, the mean of its tokens.

    Args:
        pieces: T, how many pieces a signal is cut into.
        piece_dim: numbers in one.
        dim: width of the tokens.
        heads: of the attention.
        rate: share of keys that a query loses in training.
        lora: freeze the linear layers that read and mix the tokens, and train low-rank corrections of them.

    Attributes:
        feature_dim: ``dim``.

    Shape:
        ``(n, T * piece_dim)``, or leads and time ``(n, leads, T * length)`` with ``leads * length = piece_dim``, to
        ``(n, dim)``.
    """

    def __init__(
        self, pieces: int, piece_dim: int, dim: int = 32, heads: int = 2, *, rate: float = 0.3, lora: bool = False
    ) -> None:
        super().__init__()
        check_count(pieces=pieces, piece_dim=piece_dim, dim=dim, heads=heads)
        check_in_range(0, 1, rate=rate)
        check_flag(lora=lora)
        self.pieces, self.piece_dim, self.rate, self.feature_dim = pieces, piece_dim, rate, dim

        def linear(inputs: int, outputs: int) -> nn.Module:
            layer = nn.Linear(inputs, outputs)
            return LoRALinear(layer) if lora else layer

        self.read = linear(piece_dim, dim)
        self.mix = nn.Sequential(linear(dim, 2 * dim), nn.GELU(), linear(2 * dim, dim))
        self.place = nn.Parameter(0.02 * torch.randn(pieces, dim))
        self.attention = DropKeyAttention(dim, heads)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))

    def forward(self, signals: Tensor) -> Tensor:
        """Features of signals; keys are dropped in training only."""
        check_shapes(signals=(signals, "..."))
        n = len(signals) if signals.ndim in (2, 3) else 0
        if n * self.pieces * self.piece_dim != signals.numel() or n == 0 or signals.shape[-1] % self.pieces:
            wanted = f"(n, {self.pieces * self.piece_dim}) or as many numbers in (n, leads, time)"
            raise ValueError(f"signals: expected shape {wanted}, got {tuple(signals.shape)}")
        pieces = signals.to(self.place.dtype).unflatten(-1, (self.pieces, -1))  # (n, [leads,] T, length)
        pieces = pieces if signals.ndim == 2 else pieces.transpose(1, 2).flatten(2)
        tokens = self.read(pieces) + self.place  # (n, T, dim)
        dropped = None
        if self.training and self.rate > 0:
            dropped = draw_drop_mask(n, self.attention.heads, self.pieces, self.rate).to(tokens.device)
        tokens = tokens + self.attention(self.norms[0](tokens), dropped)
        return (tokens + self.mix(self.norms[1](tokens))).mean(1)
