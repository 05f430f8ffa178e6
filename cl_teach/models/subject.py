"""Toy stand-ins for subject-driven image generation: a reader of one reference picture and a denoiser that it steers.

Only the way that they are connected is that of the large models: two sets of queries over frozen features, pseudo words
that read visual tokens, and in every layer of the denoiser one cross-attention to words and one to the picture.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..core.checks import check_count, check_entries, check_shapes, check_type, finite_result
from ..core.precision import full_precision
from .apply import apply_network, weight_dtype

__all__ = ["Denoiser", "QueryTransformer", "SubjectReader", "SubjectTokens", "add_noise"]


class SubjectTokens(NamedTuple):
    """What `SubjectReader` reads from B pictures.

    Attributes:
        visual_summary: ``(B, d)``.
        textual_summary: ``(B, d)``.
        visual: ``(B, m, d)`` for the added visual cross-attention.
        layers: ``(L, B, d)`` one pseudo word per layer.
    """

    visual_summary: Tensor
    textual_summary: Tensor
    visual: Tensor
    layers: Tensor


class QueryTransformer(nn.Module):
    """Learned queries that attend to tokens, one attention layer and a residual MLP; query 0 is the summary."""

    def __init__(self, queries: int, dim: int) -> None:
        """Make ``queries`` queries beside the summary, each of width ``dim``."""
        super().__init__()
        check_count(queries=queries, dim=dim)
        self.queries = nn.Parameter(torch.randn(1 + queries, dim))
        self.attention = nn.MultiheadAttention(dim, 1, batch_first=True)
        self.mlp = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """``(B, p, d)`` tokens to ``(B, 1 + queries, d)``."""
        check_shapes(tokens=(tokens, f"b p {self.queries.shape[1]}"))
        return apply_network(self._read, "b q d", tokens=tokens.to(self.queries.dtype))

    def _read(self, tokens: Tensor) -> Tensor:
        read, _ = self.attention(self.queries.expand(len(tokens), -1, -1), tokens, tokens, need_weights=False)
        return read + self.mlp(read)


class SubjectReader(nn.Module):
    """Visual and textual queries over frozen features, then a fusion in which pseudo words read visual tokens."""

    def __init__(self, dim: int, layers: int = 2, visual_tokens: int = 4) -> None:
        """Write for ``layers`` cross-attention layers; features have width ``dim``."""
        super().__init__()
        check_count(dim=dim, layers=layers, visual_tokens=visual_tokens)
        self.dim = dim
        self.visual, self.textual = QueryTransformer(visual_tokens, dim), QueryTransformer(layers, dim)
        self.fusion = nn.MultiheadAttention(dim, 1, batch_first=True)

    def forward(self, features: Tensor) -> SubjectTokens:
        """Read ``(B, p, d)`` frozen features."""
        check_shapes(features=(features, f"b p {self.dim}"))
        visual = apply_network(self.visual, "b q d", features=features)
        textual = apply_network(self.textual, "b q d", features=features)
        words = textual[:, 1:]
        words = words + self.fusion(words, visual[:, 1:], visual[:, 1:], need_weights=False)[0]
        return SubjectTokens(visual[:, 0], textual[:, 0], visual[:, 1:], words.transpose(0, 1))


class Denoiser(nn.Module):
    """A toy noise predictor with two cross-attentions per layer.

    Body and text attention play the pretrained model and stay frozen. Visual attention and gate (how much each place
    takes from the picture at a noise level) are trained.
    """

    def __init__(self, dim: int, layers: int = 2) -> None:
        """Predict noise on ``(B, p, dim)`` patches."""
        super().__init__()
        check_count(dim=dim, layers=layers)
        self.dim = dim
        self.body = nn.ModuleList(nn.Linear(dim + 1, dim) for _ in range(layers))
        self.text = nn.ModuleList(nn.MultiheadAttention(dim, 1, batch_first=True) for _ in range(layers))
        self.picture = nn.ModuleList(nn.MultiheadAttention(dim, 1, batch_first=True) for _ in range(layers))
        self.gate = nn.ModuleList(nn.Linear(dim + 1, 1) for _ in range(layers))
        self.body.requires_grad_(False)
        self.text.requires_grad_(False)

    def forward(self, noisy: Tensor, time: Tensor, caption: Tensor, tokens: SubjectTokens) -> Tensor:
        """Noise ``(B, p, d)`` at times ``(B,)``, given caption tokens ``(B, w, d)`` and the subject's tokens."""
        check_type(SubjectTokens, tokens=tokens)
        d = self.dim
        check_shapes(
            noisy=(noisy, f"b p {d}"),
            time=(time, "b"),
            caption=(caption, f"b w {d}"),
            **{
                "tokens.visual": (tokens.visual, f"b m {d}"),
                "tokens.layers": (tokens.layers, f"{len(self.body)} b {d}"),
            },
        )
        dtype = weight_dtype(self)
        x, time, caption, visual = (t.to(dtype) for t in (noisy, time, caption, tokens.visual))
        clock = time[:, None, None].expand(-1, noisy.shape[1], 1)
        blocks = zip(self.body, self.text, self.picture, self.gate, tokens.layers.to(dtype), strict=True)
        for body, text, picture, gate, word in blocks:
            x = x + body(torch.cat([x, clock], 2))
            words = torch.cat([caption, word[:, None]], 1)  # the pseudo word joins the caption
            where = gate(torch.cat([x, clock], 2)).sigmoid()  # (B, p, 1)
            seen = picture(x, visual, visual, need_weights=False)[0]
            x = x + text(x, words, words, need_weights=False)[0] + where * seen
        read = {"caption": caption, "tokens.visual": visual, "tokens.layers": tokens.layers}
        return finite_result(x, noisy=noisy, time=time, **read)


@full_precision
def add_noise(clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """Mix ``(B, p, d)`` pictures and noise at times ``(B,)`` in [0, 1]: cos(pi t / 2) x + sin(pi t / 2) noise."""
    check_shapes(clean=(clean, "b p d"), noise=(noise, "b p d"), time=(time, "b"))
    check_entries(0, 1, time=time)
    angle = time[:, None, None] * (math.pi / 2)
    return angle.cos() * clean + angle.sin() * noise
