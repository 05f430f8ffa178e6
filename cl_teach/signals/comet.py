r"""Contrast Everything: A Hierarchical Contrastive Framework for Medical Time-Series (COMET). Yihe Wang, Yu Han,
Haishuai Wang, Xiang Zhang; NeurIPS 2023; https://arxiv.org/abs/2310.14017.

A recording has four nested levels: patient, trial, window (*sample*) and time stamp (*observation*). One encoder keeps
the time axis, :math:`r \in \mathbb R^{B\times T\times C}`, and every level has a loss on two encodings r, r' of its
own. The two fine levels contrast a thing with itself: of lists u, u' of n vectors, stacked to v,

.. math::
    b(u,u') = \frac1{2n}\sum_k\Big[\ln\sum_{a\ne k}e^{v_k\cdot v_a} - v_k\cdot v_{\bar k}\Big],

where the list runs over the time stamps of a window (observation) or over the windows at one time stamp (sample), and
is averaged over ever coarser max-pooled time. The two coarse levels contrast *different* windows with the same id
(trial or patient): with :math:`E_{ij} = e^{\hat r_i\cdot\hat r'_j/\tau}` and :math:`U = \{i<j: e_i = e_j\}`,

.. math::
    L_{id} = -\frac1{2|U|}\sum_{(i,j)\in U}\Big[\ln\frac{E_{ij}}{\sum_kE_{ik}} + \ln\frac{E_{ji}}{\sum_kE_{ki}}\Big],
    \qquad L = \lambda_P L_{id}^{patient} + \lambda_T L_{id}^{trial} + \lambda_S L_S + \lambda_O L_O .

What changes and why: who was recorded and when is a label that costs nothing. The coarse levels ask the encoder for
what stays the same within a person, which augmentation of one window cannot teach.

Paper versus code. The paper's body was not accessible to us; the released code was the source. (1) There the weights
of the patient and trial levels only switch: they enter with 1, so the published settings act as (1, 1,
:math:`\lambda_S, \lambda_O`). Here the sum is weighted; ``released=True`` gives theirs. (2) With i < j the earlier
window is always the anchor, so the order of a batch matters a little. (3) :math:`\hat r` is normalized along *time* in
every channel before it is flattened. (4) The fine levels use raw dot products, no normalization, no temperature. (5)
Pooling stops before length one, so the fully pooled vector is never contrasted. (6) A batch without a repeated id
gives 0 with gradient 0, not the bare number 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from ..core.checks import (
    check_embeddings,
    check_in_range,
    check_labels,
    check_mask,
    check_positive,
    check_same_length,
    check_same_shape,
)
from ..core.similarity import normalize, same_label_mask, self_mask

__all__ = [
    "COMET",
    "LEVELS",
    "DilatedEncoder",
    "comet_loss",
    "draw_segments",
    "identity_loss",
    "identity_similarity",
    "observation_loss",
    "over_pooled_time",
    "sample_loss",
    "trial_batches",
]

LEVELS = ("patient", "trial", "sample", "observation")


def sample_loss(r1: Tensor, r2: Tensor) -> Tensor:
    """Contrast the 2B encodings of all windows, at each time stamp separately.

    Args:
        r1: ``(B, T, C)`` first encodings, used as they are.
        r2: ``(B, T, C)`` second encodings of the same windows.

    Returns:
        Scalar; 0 for a single window.

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes differ, NaN.

    Source: Wang et al. (2023), released loss.
    """
    check_embeddings(ndim=3, r1=r1, r2=r2)
    check_same_shape(r1=r1, r2=r2)
    v = torch.cat([r1, r2]).transpose(0, 1)  # (T, 2B, C)
    n, itself = len(r1), self_mask(2 * len(r1), r1.device)
    logits = (v @ v.mT).masked_fill(itself, -math.inf)  # (T, 2B, 2B)
    return -logits.log_softmax(-1)[:, itself.roll(n, dims=1)].mean()


def observation_loss(r1: Tensor, r2: Tensor) -> Tensor:
    """Contrast the 2T encodings of all time stamps, in each window separately; arguments as in `sample_loss`."""
    check_embeddings(ndim=3, r1=r1, r2=r2)
    return sample_loss(r1.transpose(0, 1), r2.transpose(0, 1))


def over_pooled_time(loss: Callable[[Tensor, Tensor], Tensor], r1: Tensor, r2: Tensor) -> Tensor:
    """Mean of a loss over time scales: halve time by max-pooling (an odd rest is dropped) while its length exceeds 1.

    Args:
        loss: `sample_loss` or `observation_loss`.
        r1: ``(B, T, C)``.
        r2: ``(B, T, C)``.

    Returns:
        Scalar; 0 if T is 1.
    """
    check_embeddings(ndim=3, r1=r1, r2=r2)
    losses = []
    while r1.shape[1] > 1:
        losses.append(loss(r1, r2))
        r1, r2 = (F.max_pool1d(r.transpose(1, 2), 2).transpose(1, 2) for r in (r1, r2))
    return torch.stack(losses).mean() if losses else 0 * (r1.sum() + r2.sum())


def identity_similarity(r1: Tensor, r2: Tensor) -> Tensor:
    """``(B, B')`` cosines of encodings ``(B, T, C)`` and ``(B', T, C)``; every channel first gets length 1 in time."""
    check_embeddings(ndim=3, r1=r1, r2=r2)
    a, b = (normalize(normalize(r, dim=1).flatten(1)) for r in (r1, r2))  # (B, T C)
    return a @ b.mT


def identity_loss(r1: Tensor, r2: Tensor, ids: Tensor, temperature: float = 0.1) -> Tensor:
    """Contrast of different windows with the same id, for the trial level and the patient level.

    A window's own second encoding is no positive, but it stays in the denominator, as all other positives do.

    Args:
        r1: ``(B, T, C)`` first encodings.
        r2: ``(B, T, C)`` second encodings.
        ids: ``(B,)`` integers, unique over the whole data set.
        temperature: greater than 0.

    Returns:
        Scalar, mean over pairs; 0 if no id occurs twice.

    Raises:
        TypeError: wrong dtype.
        ValueError: shapes do not fit, NaN, temperature not positive.

    Source: Wang et al. (2023), released loss.
    """
    check_embeddings(ndim=3, r1=r1, r2=r2)
    check_same_shape(r1=r1, r2=r2)
    check_labels(ids, len(r1), name="ids")
    check_positive(temperature=temperature)
    logits = identity_similarity(r1, r2) / temperature
    pairs = same_label_mask(ids).triu(1)  # i < j
    if not pairs.any():
        return 0 * logits.sum()
    forth, back = logits.log_softmax(1)[pairs], logits.mT.log_softmax(1)[pairs]
    return -(forth.mean() + back.mean()) / 2


def comet_loss(
    views: Mapping[str, tuple[Tensor, Tensor]],
    patients: Tensor,
    trials: Tensor,
    factors: tuple[float, float, float, float] = (0.25, 0.25, 0.25, 0.25),
    *,
    temperature: float = 0.1,
    released: bool = False,
) -> Tensor:
    r"""All levels together.

    Args:
        views: for each level of `LEVELS` with a factor above 0, its two encodings ``(B, T, C)``.
        patients: ``(B,)`` ids.
        trials: ``(B,)`` ids.
        factors: :math:`\lambda_P, \lambda_T, \lambda_S, \lambda_O`, at least 0.
        temperature: of the patient and trial levels.
        released: patient and trial factors above 0 count as 1, as in the released code.

    Returns:
        Scalar.

    Raises:
        TypeError: wrong dtype.
        ValueError: a missing level, shapes that do not fit, a negative factor, all factors 0.
    """
    check_in_range(0, math.inf, factors=torch.tensor(factors))
    if len(factors) != len(LEVELS) or not any(factors):
        raise ValueError(f"factors: expected four numbers, one above 0, got {factors}")
    weights = [float(f > 0) if released and i < 2 else f for i, f in enumerate(factors)]
    losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "patient": lambda r1, r2: identity_loss(r1, r2, patients, temperature),
        "trial": lambda r1, r2: identity_loss(r1, r2, trials, temperature),
        "sample": lambda r1, r2: over_pooled_time(sample_loss, r1, r2),
        "observation": lambda r1, r2: over_pooled_time(observation_loss, r1, r2),
    }
    terms = []
    for level, weight in zip(LEVELS, weights, strict=True):
        if weight > 0:
            if level not in views:
                raise ValueError(f"views: expected two encodings for level {level!r}, got only {sorted(views)}")
            terms.append(weight * losses[level](*views[level]))
    return torch.stack(terms).sum()


def draw_segments(
    n: int, length: int, *, segments: int = 5, share: float = 0.1, generator: torch.Generator | None = None
) -> Tensor:
    """Which time stamps are hidden: segments of ``share * length`` at random places, which may overlap.

    Args:
        n: windows.
        length: time stamps T.
        segments: per window.
        share: of a window that one segment covers, in [0, 1].
        generator: on the CPU; the global state of torch if None.

    Returns:
        ``(n, T)`` boolean, true where hidden.
    """
    check_positive(n=n, length=length, segments=segments)
    check_in_range(0, 1, share=share)
    width = int(share * length)
    start = torch.randint(length - width + 1, (n, segments, 1), generator=generator)
    t = torch.arange(length)
    return ((t >= start) & (t < start + width)).any(1)


def trial_batches(trials: Tensor, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Rows of one pass, cut so that a batch holds several windows of each of its trials; a short rest is dropped.

    Trials are in random order, so are the windows within a trial, and the rows within a batch. The released code draws
    the first two once and the last anew in every epoch; here every pass draws all three.

    Args:
        trials: ``(n,)`` ids.
        batch_size: rows of a batch.
        generator: on the CPU.
    """
    check_labels(trials, len(trials), name="trials")
    check_in_range(1, len(trials), batch_size=batch_size)
    names = trials.unique().cpu()
    shuffled = names[torch.randperm(len(names), generator=generator)]
    rows = [(trials.cpu() == name).nonzero()[:, 0] for name in shuffled]
    order = torch.cat([r[torch.randperm(len(r), generator=generator)] for r in rows])
    for batch in order[: len(order) - len(order) % batch_size].split(batch_size):
        yield batch[torch.randperm(batch_size, generator=generator)]


class DilatedEncoder(nn.Module):
    """Residual blocks of dilated convolutions that keep the time axis: ``(B, T, F)`` to ``(B, T, dim)``."""

    def __init__(
        self, in_channels: int = 1, hidden: int = 64, dim: int = 320, depth: int = 10, dropout: float = 0.1
    ) -> None:
        """Set the sizes; the defaults are the paper's.

        Args:
            in_channels: F.
            hidden: channels of the blocks.
            dim: channels C of the encoding.
            depth: number of blocks before the last; block i looks 2 ** i steps far.
            dropout: its two draws are the only difference between the views of the coarse levels.
        """
        super().__init__()
        check_positive(in_channels=in_channels, hidden=hidden, dim=dim, depth=depth)
        self.project = nn.Linear(in_channels, hidden)
        self.blocks = nn.ModuleList(_block(hidden, hidden, 2**i) for i in range(depth))
        self.last, self.skip = _block(hidden, dim, 2**depth), nn.Conv1d(hidden, dim, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Encode ``(B, T, F)``; where ``hidden`` ``(B, T)`` is true, the *projected* input is zero."""
        check_embeddings(ndim=3, x=x)
        h = self.project(x)  # (B, T, hidden)
        if hidden is not None:
            check_mask(hidden, tuple(x.shape[:2]), name="hidden")
            h = h.masked_fill(hidden[..., None], 0.0)  # after the projection: a zero that no input can produce
        h = h.mT
        for block in self.blocks:
            h = h + block(h)
        return self.dropout((self.skip(h) + self.last(h)).mT)


class COMET(nn.Module):
    """An encoder, the step that encodes a batch twice for every level, and the running average used afterwards.

    Give the optimizer the parameters of ``encoder`` only; the average moves by `update`.
    """

    def __init__(self, encoder: DilatedEncoder, factors: tuple[float, float, float, float] = (0.25,) * 4) -> None:
        """Start the equal-weight average of the weights (stochastic weight averaging) at the encoder's."""
        super().__init__()
        self.encoder, self.factors = encoder, factors
        self.average: Any = AveragedModel(encoder)

    def step(self, x: Tensor, patients: Tensor, trials: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Loss of a batch ``(B, T, F)`` with its ids; call `update` after the optimizer step."""
        check_embeddings(ndim=3, x=x)
        check_same_length(x=x, patients=patients, trials=trials)
        views = {}
        for level, factor in zip(LEVELS, self.factors, strict=True):
            if factor > 0:
                fine = level in ("sample", "observation")
                views[level] = (self._encode(x, fine, generator), self._encode(x, fine, generator))
        return comet_loss(views, patients, trials, self.factors)

    def _encode(self, x: Tensor, masked: bool, generator: torch.Generator | None) -> Tensor:
        hidden = draw_segments(len(x), x.shape[1], generator=generator).to(x.device) if masked else None
        return self.encoder(x, hidden)

    def update(self) -> None:
        """Take the current weights into the average."""
        self.average.update_parameters(self.encoder)

    @torch.no_grad()
    def encode(self, x: Tensor) -> Tensor:
        """``(B, T, C)`` by the average, without masks and dropout; its maximum over time serves a classifier."""
        return self.average.eval()(x)


def _block(in_channels: int, out_channels: int, dilation: int) -> nn.Sequential:
    def conv(a: int, b: int) -> nn.Conv1d:
        return nn.Conv1d(a, b, 3, padding=dilation, dilation=dilation)

    return nn.Sequential(nn.GELU(), conv(in_channels, out_channels), nn.GELU(), conv(out_channels, out_channels))
