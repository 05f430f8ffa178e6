r"""MoRE: Multi-Modal Contrastive Pre-training with Transformers on X-Rays, ECGs, and Diagnostic Report. Samrajya Thapa,
Koushik Howlader, Subhankar Bhattacharjee, Wei Le; 2024; https://arxiv.org/abs/2410.16239.

A chest X-ray x, an ECG e and the written report n of one patient are embedded in one space, with the report as the
anchor. With CLIP's symmetric loss between two modalities,

.. math::
    L = L_{CLIP}(n, x) + L_{CLIP}(n, e), \qquad
    L_{CLIP}(a,b) = \tfrac12\,[\mathrm{NCE}(a\to b)+\mathrm{NCE}(b\to a)] .

What changes and why: X-ray and ECG are never compared with each other. They become comparable through the report, which
speaks about both, so that what the report leaves out is not forced to agree. Around the loss stand three parts that
make it affordable on few data: heads that end in batch normalization, attention that loses random keys (DropKey), and
a text model of which only low-rank corrections are trained (LoRA),

.. math::
    \mathrm{softmax}_j(Z_{ij}\ \text{with}\ Z_{ij}=-\infty\ \text{where}\ M_{ij}=1), \qquad
    W_0 + \tfrac{\alpha}{r}BA,\quad B = 0\ \text{at the start} .

Paper versus code. The released code and the abstract were read, the paper's equations were not at hand. (1) The two
terms are added, not averaged. (2) The temperature is declared a parameter after the optimizer was built, so it stays at
0.02; here it is an argument, and a caller who learns it should learn its logarithm. (3) The report's feature is the
mean over all positions, padding included; here over the words (`masked_mean`). (4) A key is dropped by subtracting
:math:`10^{12}`, which is infinite in half precision; a query that loses all keys then gives NaN, in float32 silently a
uniform average. Here the logit is minus infinity, and a query always keeps at least one key. (5) Accumulating
gradients over four batches does not give four times the negatives. (6) The last layer of a head standardizes every
channel over the batch, which takes away what distinguishes the modalities as such. (7) ViT and RoBERTa are replaced by
a transformer of teaching size, `Tower`; anything that returns ``(n, features)`` can be put in its place. The step at
which the released code draws one of three augmentations of an ECG is `augment_ecg`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.checks import (
    check_batch,
    check_choice,
    check_embeddings,
    check_in_range,
    check_labels,
    check_mask,
    check_positive,
    check_same_shape,
    check_same_width,
)
from ..core.contrast import clip_loss
from ..core.similarity import cosine_similarity

__all__ = [
    "DropKeyAttention",
    "LoRALinear",
    "MoRE",
    "MoRETerms",
    "NormalizedHead",
    "Tower",
    "Triples",
    "augment_ecg",
    "draw_drop_mask",
    "draw_triples",
    "masked_mean",
    "more_loss",
    "zero_shot_scores",
]


class MoRETerms(NamedTuple):
    """Scalars: the sum, and its part between report and X-ray and between report and ECG."""

    loss: Tensor
    xray: Tensor
    ecg: Tensor


def more_loss(report: Tensor, xray: Tensor, ecg: Tensor, temperature: float | Tensor = 0.02) -> MoRETerms:
    """Align both signals with the report, and nothing else.

    Args:
        report: ``(N, d)``, any scale (normalized here).
        xray: ``(N, d)`` of the same patients.
        ecg: ``(N, d)`` of the same patients.
        temperature: greater than 0; a number or a 0-d tensor.

    Returns:
        `MoRETerms`; 0 for a single patient.

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes differ, NaN, temperature not positive.

    Source: Thapa et al. (2024), released training script.
    """
    check_embeddings(report=report, xray=xray, ecg=ecg)
    check_same_shape(report=report, xray=xray, ecg=ecg)
    check_positive(temperature=temperature)
    log_scale = -torch.as_tensor(temperature, dtype=report.dtype, device=report.device).log()
    terms = [clip_loss(report, signal, log_scale) for signal in (xray, ecg)]
    return MoRETerms(terms[0] + terms[1], terms[0], terms[1])


def masked_mean(states: Tensor, valid: Tensor) -> Tensor:
    """Mean ``(n, d)`` of states ``(n, T, d)`` over the positions where ``valid (n, T)`` is true.

    Raises:
        TypeError: wrong dtype.
        ValueError: shapes do not fit, a row without a valid position, NaN.
    """
    check_embeddings(ndim=3, states=states)
    check_mask(valid, tuple(states.shape[:2]), name="valid")
    if not bool(valid.any(1).all()):
        raise ValueError("valid: expected at least one valid position in every row, got a row without one")
    return (states * valid[..., None]).sum(1) / valid.sum(1, keepdim=True)


def draw_drop_mask(
    n: int, heads: int, tokens: int, rate: float = 0.3, *, generator: torch.Generator | None = None
) -> Tensor:
    """Which keys each query loses: independent draws, but no query loses all.

    Args:
        n: rows of the batch.
        heads: number of heads.
        tokens: T, queries and keys.
        rate: chance of losing a key, in [0, 1).
        generator: source of the draws, on its device.

    Returns:
        ``(n, heads, T, T)`` boolean, true where a key is lost. A query that would lose all keeps a random one.

    Raises:
        ValueError: a count below 1, rate outside [0, 1].
    """
    check_positive(n=n, heads=heads, tokens=tokens)
    check_in_range(0, 1, rate=rate)
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

    Raises:
        ValueError: sizes that do not fit; at a call, shapes that do not fit or a query without a key.

    Source: Thapa et al. (2024), released vision tower.
    """

    def __init__(self, dim: int, heads: int = 2) -> None:
        super().__init__()
        check_positive(dim=dim, heads=heads)
        if dim % heads:
            raise ValueError(f"heads: expected a divisor of dim={dim}, got {heads}")
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor, dropped: Tensor | None = None) -> Tensor:
        """Attend; ``dropped (n, heads, T, T)`` is true where query i loses key j, None loses nothing."""
        check_embeddings(ndim=3, tokens=tokens)
        n, time, dim = tokens.shape
        if dropped is not None:
            check_mask(dropped, (n, self.heads, time, time), name="dropped")
            if bool(dropped.all(-1).any()):
                raise ValueError("dropped: expected every query to keep at least one key, got one without")
        # (n, T, 3, heads, dim / heads) to three times (n, heads, T, dim / heads)
        q, k, v = self.qkv(tokens).view(n, time, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        logits = q @ k.mT / math.sqrt(q.shape[-1])  # (n, heads, T, T)
        if dropped is not None:
            logits = logits.masked_fill(dropped, -math.inf)
        return self.out((logits.softmax(-1) @ v).transpose(1, 2).reshape(n, time, dim))


class LoRALinear(nn.Module):
    """A frozen linear layer with a trained correction of low rank; its bias is trained, too.

    Args:
        layer: what is frozen.
        rank: r.
        alpha: the correction is scaled by alpha / rank.
        dropout: on the input of the correction.

    Raises:
        ValueError: a size not positive, dropout outside [0, 1].

    Source: Hu et al., LoRA (2021); rank 16, alpha 8 and the trained biases as in Thapa et al. (2024), released code.
    """

    def __init__(self, layer: nn.Linear, rank: int = 4, alpha: float = 2.0, dropout: float = 0.1) -> None:
        super().__init__()
        check_positive(rank=rank, alpha=alpha)
        check_in_range(0, 1, dropout=dropout)
        self.layer = layer
        self.layer.weight.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(rank, layer.in_features) / layer.in_features**0.5)  # A
        self.up = nn.Parameter(torch.zeros(layer.out_features, rank))  # B
        self.scale, self.dropout = alpha / rank, nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., in)`` to ``(..., out)``."""
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
    """

    def __init__(self, in_dim: int, hidden: int, out_dim: int) -> None:
        check_positive(in_dim=in_dim, hidden=hidden, out_dim=out_dim)
        super().__init__(
            nn.Linear(in_dim, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, out_dim, bias=False),
            nn.BatchNorm1d(out_dim),
        )


class Tower(nn.Module):
    """A transformer block of teaching size: pieces of a signal to one feature vector, the mean of its tokens.

    Args:
        pieces: T, how many pieces a signal is cut into.
        piece_dim: width of one.
        dim: width of the tokens.
        heads: of the attention.
        rate: share of keys that a query loses in training.
        lora: freeze the linear layers that read and mix the tokens, and train low-rank corrections of them.

    Attributes:
        feature_dim: ``dim``.

    Shape:
        ``(n, T * piece_dim)`` to ``(n, dim)``.

    Raises:
        ValueError: a size not positive; at a call, another width.
    """

    def __init__(
        self, pieces: int, piece_dim: int, dim: int = 32, heads: int = 2, *, rate: float = 0.3, lora: bool = False
    ) -> None:
        super().__init__()
        check_positive(pieces=pieces, piece_dim=piece_dim)
        self.pieces, self.rate, self.feature_dim = pieces, rate, dim

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
        check_embeddings(signals=signals)
        if signals.shape[1] % self.pieces:
            raise ValueError(f"signals: expected a multiple of {self.pieces} numbers a row, got {signals.shape[1]}")
        tokens = self.read(signals.view(len(signals), self.pieces, -1)) + self.place  # (n, T, dim)
        dropped = None
        if self.training and self.rate > 0:
            dropped = draw_drop_mask(len(tokens), self.attention.heads, self.pieces, self.rate).to(tokens.device)
        tokens = tokens + self.attention(self.norms[0](tokens), dropped)
        return (tokens + self.mix(self.norms[1](tokens))).mean(1)


class MoRE(nn.Module):
    """Three towers and their heads; ``method(report, xray, ecg).loss`` is minimized."""

    def __init__(
        self,
        towers: dict[str, nn.Module],
        feature_dim: int,
        *,
        hidden: int = 32,
        out_dim: int = 16,
        temperature: float = 0.02,
    ) -> None:
        """Put a head on every tower.

        Args:
            towers: under the names "report", "xray" and "ecg"; each returns ``(n, feature_dim)``.
            feature_dim: width of their features.
            hidden: of the heads.
            out_dim: width of the common space.
            temperature: fixed, as in the release.

        Raises:
            ValueError: other names, a number not positive.
        """
        super().__init__()
        if set(towers) != {"report", "xray", "ecg"}:
            raise ValueError(f"towers: expected the names report, xray and ecg, got {sorted(towers)}")
        check_positive(temperature=temperature)
        self.towers = nn.ModuleDict(towers)
        self.heads = nn.ModuleDict({name: NormalizedHead(feature_dim, hidden, out_dim) for name in towers})
        self.temperature = temperature

    def embed(self, name: str, signals: Tensor) -> Tensor:
        """Embeddings ``(n, out_dim)`` of one modality."""
        check_choice(tuple(self.towers), name=name)
        return self.heads[name](self.towers[name](signals))

    def forward(self, report: Tensor, xray: Tensor, ecg: Tensor) -> MoRETerms:
        """The losses of one batch of patients."""
        check_batch(len(report), 2, name="report", why="to normalize over the batch")
        notes, xrays, ecgs = self.embed("report", report), self.embed("xray", xray), self.embed("ecg", ecg)
        return more_loss(notes, xrays, ecgs, self.temperature)


def augment_ecg(
    signals: Tensor, kinds: Tensor, order: Tensor, speeds: Tensor, *, largest_change: float = 0.25
) -> Tensor:
    """Warp the time of an ECG, permute its segments, or leave it: with given draws.

    Args:
        signals: ``(n, leads, time)``; time a multiple of the number of segments.
        kinds: ``(n,)`` integers: 0 warps, 1 permutes, 2 leaves.
        order: ``(n, S)`` integers, for each a permutation of its S segments (4 in the release).
        speeds: ``(n, S)`` numbers in [0, 1]: below a half a segment is slowed down, above it is hurried.
        largest_change: of a segment's length, as a share, below 1.

    Returns:
        ``(n, leads, time)``.

    Raises:
        TypeError: wrong dtype.
        ValueError: shapes do not fit, a draw out of range.
    """
    check_embeddings(ndim=3, signals=signals)
    check_embeddings(speeds=speeds)
    check_in_range(0, 1, speeds=speeds)
    check_in_range(0, 0.99, largest_change=largest_change)
    n, _, time = signals.shape
    segments = order.shape[1]
    check_labels(kinds, n, name="kinds", num_classes=3)
    check_labels(order.flatten(), n * segments, name="order", num_classes=segments)
    check_same_shape(order=order, speeds=speeds)
    if time % segments:
        raise ValueError(f"signals: expected a length that {segments} segments share evenly, got {time}")
    length = time // segments
    rows = torch.arange(n, device=signals.device)[:, None]
    permuted = signals.unflatten(2, (segments, length)).transpose(1, 2)[rows, order]  # (n, S, leads, length)
    permuted = permuted.transpose(1, 2).flatten(2)
    # Where in the original each new moment lies: a broken line through the stretched segments.
    shares = 1 + largest_change * (2 * speeds - 1)
    knots = F.pad((shares / shares.sum(1, keepdim=True)).cumsum(1), (1, 0)) * (time - 1)  # (n, S + 1)
    new = torch.linspace(0, segments, time, device=signals.device, dtype=signals.dtype)
    left = new.floor().clamp(max=segments - 1).long()
    moment = knots[:, left] + (new - left) * (knots[:, left + 1] - knots[:, left])  # (n, time)
    before = moment.floor().clamp(0, time - 2).long()
    part = (moment - before)[:, None]
    at = before[:, None].expand(signals.shape)
    warped = signals.gather(2, at) * (1 - part) + signals.gather(2, at + 1) * part
    kind = kinds[:, None, None]
    return torch.where(kind == 0, warped, torch.where(kind == 1, permuted, signals))


def zero_shot_scores(signals: Tensor, prompts: Tensor, classes: Tensor) -> Tensor:
    """How well each signal fits each class: its nearest prompt, standardized over the signals.

    Args:
        signals: ``(n, d)`` embeddings, at least two.
        prompts: ``(p, d)`` embeddings of the classes' descriptions.
        classes: ``(p,)`` integers, the class of each prompt; every class from 0 on has one.

    Returns:
        ``(n, C)``: cosine with the best prompt of a class, minus its mean over the signals, over its deviation.

    Raises:
        TypeError: wrong dtype.
        ValueError: shapes do not fit, a single signal, a class without a prompt, NaN.

    Source: Thapa et al. (2024), released zero-shot script.
    """
    check_embeddings(signals=signals, prompts=prompts)
    check_same_width(signals=signals, prompts=prompts)
    check_batch(len(signals), 2, name="signals", why="to have a deviation")
    check_labels(classes, len(prompts), name="classes")
    count = int(classes.max()) + 1
    if len(classes.unique()) < count:
        raise ValueError(f"classes: expected a prompt for each of {count} classes, got {len(classes.unique())}")
    cosines = cosine_similarity(signals, prompts)  # (n, p)
    best = torch.stack([cosines[:, classes == c].amax(1) for c in range(count)], dim=1)
    return (best - best.mean(0)) / best.std(0).clamp_min(1e-8)


class Triples(NamedTuple):
    """Patients: three signals ``(n, 30)`` each, and the ``(n, 10)`` factors behind them."""

    report: Tensor
    xray: Tensor
    ecg: Tensor
    factors: Tensor


def draw_triples(n: int, *, noise: float = 0.1, world: int = 0, seed: int = 0) -> Triples:
    r"""Patients of ten hidden factors: the report tells of all, the X-ray not of the last three, the ECG not of the
    first three; each signal is :math:`\tanh(zW/3)` plus noise.

    Args:
        n: number of patients.
        noise: deviation of the noise.
        world: seed of the three fixed maps.
        seed: of the patients.

    Raises:
        ValueError: no patient, negative noise.
    """
    check_positive(n=n)
    check_in_range(0, math.inf, noise=noise)
    maps = torch.randn(3, 10, 30, generator=torch.Generator().manual_seed(world))
    maps[1, 7:] = 0
    maps[2, :3] = 0
    generator = torch.Generator().manual_seed(seed)
    factors = torch.randn(n, 10, generator=generator)
    report, xray, ecg = torch.tanh(factors @ maps / 3) + noise * torch.randn(3, n, 30, generator=generator)
    return Triples(report, xray, ecg, factors)
