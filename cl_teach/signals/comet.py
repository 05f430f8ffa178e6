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

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.checks import (
    check_batch,
    check_callable,
    check_count,
    check_entries,
    check_flag,
    check_generator,
    check_labels,
    check_module,
    check_numbers,
    check_shapes,
    check_type,
    finite_result,
)
from ..core.contrast import check_temperature
from ..core.precision import full_precision
from ..core.similarity import normalize, same_label_mask
from ..core.teacher import MomentumTeacher
from ..models.dilated import draw_segments

__all__ = [
    "COMET",
    "LEVELS",
    "comet_loss",
    "identity_loss",
    "identity_similarity",
    "observation_loss",
    "over_pooled_time",
    "sample_loss",
    "trial_batches",
]

LEVELS = ("patient", "trial", "sample", "observation")
FINE = ("sample", "observation")
# The dot products of larger encodings leave the range of float32.
LARGEST = 1e16
Factors = tuple[float, float, float, float]


@full_precision
def sample_loss(r1: Tensor, r2: Tensor) -> Tensor:
    """Contrast the 2B encodings of all windows, at each time stamp separately.

    Args:
        r1: ``(B, T, C)`` first encodings, used as they are.
        r2: ``(B, T, C)`` second encodings of the same windows.

    Returns:
        Scalar; 0 for a single window.

    Source: Wang et al. (2023), released loss.
    """
    check_shapes(r1=(r1, "b t c"), r2=(r2, "b t c"))
    return _blocks(r1.transpose(0, 1), r2.transpose(0, 1), r1=r1, r2=r2)


@full_precision
def observation_loss(r1: Tensor, r2: Tensor) -> Tensor:
    """Contrast the 2T encodings of all time stamps, in each window separately; arguments as in `sample_loss`."""
    check_shapes(r1=(r1, "b t c"), r2=(r2, "b t c"))
    return _blocks(r1, r2, r1=r1, r2=r2)


def _blocks(u1: Tensor, u2: Tensor, **named: Tensor) -> Tensor:
    """The two-view block b of every pair of lists ``(k, n, C)``, mean over the k."""
    v = torch.cat([u1, u2], 1)  # (k, 2n, C)
    logits = finite_result(v @ v.mT, **named)  # (k, 2n, 2n)
    k, n = u1.shape[:2]
    if n == 1:
        return 0 * logits.sum()  # the other view is the only candidate
    logits.diagonal(dim1=1, dim2=2).fill_(-math.inf)  # nothing is a candidate of its own
    return F.cross_entropy(logits.flatten(0, 1), torch.arange(2 * n, device=v.device).roll(n).repeat(k))


@full_precision
def over_pooled_time(loss: Callable[[Tensor, Tensor], Tensor], r1: Tensor, r2: Tensor) -> Tensor:
    """Mean of a loss over time scales: halve time by max-pooling (an odd rest is dropped) while its length exceeds 1.

    Args:
        loss: `sample_loss` or `observation_loss`.
        r1: ``(B, T, C)``.
        r2: ``(B, T, C)``.

    Returns:
        Scalar; 0 if T is 1.
    """
    check_callable(loss=loss)
    check_shapes(r1=(r1, "b t c"), r2=(r2, "b t c"))
    losses = []
    while r1.shape[1] > 1:
        losses.append(loss(r1, r2))
        r1, r2 = (F.max_pool1d(r.transpose(1, 2), 2).transpose(1, 2) for r in (r1, r2))
    return torch.stack(losses).mean() if losses else 0 * (r1.sum() + r2.sum())


@full_precision
def identity_similarity(r1: Tensor, r2: Tensor) -> Tensor:
    """``(B, B')`` cosines of encodings ``(B, T, C)`` and ``(B', T, C)``; every channel first gets length 1 in time."""
    check_shapes(r1=(r1, "b t c"), r2=(r2, "d t c"))
    a, b = (normalize(normalize(r, dim=1).flatten(1)) for r in (r1, r2))  # (B, T C)
    return a @ b.mT


@full_precision
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

    Source: Wang et al. (2023), released loss.

    Example:
        >>> r, ids = torch.ones(4, 8, 2), torch.zeros(4, dtype=torch.int64)
        >>> round(identity_loss(r, r, ids).exp().item(), 3)  # all alike: a fair guess among four
        4.0
        >>> identity_loss(r, r, torch.arange(4)).item()  # nobody occurs twice
        0.0
    """
    check_shapes(r1=(r1, "b t c"), r2=(r2, "b t c"), ids=(ids, "b", int))
    check_temperature(temperature)
    logits = identity_similarity(r1, r2) / temperature
    pairs = same_label_mask(check_labels(ids, name="ids")).triu(1)  # i < j
    if not pairs.any():
        return 0 * logits.sum()
    forth, back = logits.log_softmax(1)[pairs], logits.mT.log_softmax(1)[pairs]
    return -(forth.mean() + back.mean()) / 2


@full_precision
def comet_loss(
    views: Mapping[str, tuple[Tensor, Tensor]],
    patients: Tensor,
    trials: Tensor,
    factors: Factors = (0.25, 0.25, 0.25, 0.25),
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
    """
    weights = _check_factors(factors)
    check_type(Mapping, views=views)
    check_temperature(temperature)
    check_flag(released=released)
    check_shapes(patients=(patients, "b", int), trials=(trials, "b", int))
    patients, trials = check_labels(patients, name="patients"), check_labels(trials, name="trials")
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
            pair = views[level]
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise TypeError(f"views[{level!r}]: expected two tensors, got {type(pair).__name__}")
            named = {f"views[{level!r}][{i}]": r for i, r in enumerate(pair)}
            check_shapes(**{name: (r, "b t c") for name, r in named.items()}, patients=(patients, "b", int))
            check_entries(-LARGEST, LARGEST, open_low=False, **named)
            terms.append((1.0 if released and level not in FINE else weight) * losses[level](*pair))
    return finite_result(torch.stack(terms).sum(), factors=factors, temperature=temperature)


def trial_batches(trials: Tensor, batch_size: int, *, generator: torch.Generator | None = None) -> Iterator[Tensor]:
    """Rows of one pass, cut so that a batch holds several windows of each of its trials; a short rest is dropped.

    Trials are in random order, so are the windows within a trial, and the rows within a batch. The released code draws
    the first two once and the last anew in every epoch; here every pass draws all three.

    Args:
        trials: ``(n,)`` ids.
        batch_size: rows of a batch.
        generator: on the CPU; the global state of torch if None.
    """
    check_shapes(trials=(trials, "n", int))
    trials = check_labels(trials, name="trials").cpu()
    check_count(batch_size=batch_size)
    check_batch(len(trials), batch_size, name="trials", why=f"to fill one batch of batch_size={batch_size}")
    check_generator(generator)
    sizes = trials.unique(return_counts=True)[1]
    rows = trials.argsort(stable=True).split(sizes.tolist())  # of every trial
    shuffled = [rows[k] for k in torch.randperm(len(rows), generator=generator).tolist()]
    order = torch.cat([r[torch.randperm(len(r), generator=generator)] for r in shuffled])
    whole = order[: len(order) - len(order) % batch_size]
    return (batch[torch.randperm(batch_size, generator=generator)] for batch in whole.split(batch_size))


class COMET(nn.Module):
    """An encoder, the loss that encodes a batch twice for every level, and the running average used afterward.

    The average of the weights after every step, all of equal weight (stochastic weight averaging), has no dropout.
    Batches must hold several windows of a trial: `trial_batches`.

    Example:
        >>> from cl_teach.models.dilated import DilatedEncoder
        >>> method, x = COMET(DilatedEncoder(1, 8, 4, depth=2)), torch.randn(6, 16, 1)
        >>> loss = method.loss(x, torch.tensor([0, 0, 0, 0, 1, 1]), torch.tensor([0, 0, 1, 1, 2, 2]))
        >>> method.after_step()
        >>> method(x).shape
        torch.Size([6, 16, 4])
    """

    updates: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        factors: Factors = (0.25, 0.25, 0.25, 0.25),
        *,
        temperature: float = 0.1,
        released: bool = False,
    ) -> None:
        """Copy the encoder.

        Args:
            encoder: windows ``(B, T, F)`` and what is hidden of them ``(B, T)`` to ``(B, T, C)``, such as
                `DilatedEncoder`; its dropout is the only difference between the views of the coarse levels.
            factors: see `comet_loss`.
            temperature: likewise.
            released: likewise.
        """
        super().__init__()
        check_module(encoder=encoder)
        check_temperature(temperature)
        check_flag(released=released)
        self.encoder, self.factors = encoder, tuple(_check_factors(factors))
        self.temperature, self.released = temperature, released
        self.average = MomentumTeacher(encoder).eval()
        self.register_buffer("updates", torch.tensor(0))

    def train(self, mode: bool = True) -> COMET:
        """Set the mode of the encoder; the average stays in evaluation mode."""
        super().train(mode)
        self.average.eval()
        return self

    def loss(self, x: Tensor, patients: Tensor, trials: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Loss of windows ``(B, T, F)`` with their ids ``(B,)``; what is hidden is drawn."""
        check_shapes(x=(x, "b t f"), patients=(patients, "b", int), trials=(trials, "b", int))
        views = {}
        for level, factor in zip(LEVELS, self.factors, strict=True):
            if factor > 0:
                views[level] = tuple(self._encode(x, level in FINE, generator) for _ in range(2))
        settings = {"temperature": self.temperature, "released": self.released}
        return comet_loss(views, patients, trials, self.factors, **settings)  # type: ignore[arg-type]

    def _encode(self, x: Tensor, masked: bool, generator: torch.Generator | None) -> Tensor:
        hidden = draw_segments(len(x), x.shape[1], generator=generator).to(x.device) if masked else None
        encoded = self.encoder(x, hidden)
        check_entries(-LARGEST, LARGEST, open_low=False, **{"x (encoded)": encoded})
        return encoded

    def after_step(self) -> None:
        """Take the current weights into the average."""
        if self.training:
            self.average.momentum = int(self.updates) / (int(self.updates) + 1)  # the first are taken as they are
            self.average.update(self.encoder)
            self.updates.add_(1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, T, C)`` by the average, nothing hidden, no gradient; its maximum over time serves a classifier."""
        check_shapes(x=(x, "b t f"))
        return self.average(x)


def _check_factors(factors: Factors) -> list[float]:
    weights = check_numbers("factors", factors).tolist()
    if len(weights) != len(LEVELS) or min(weights) < 0 or not any(weights):
        raise ValueError(f"factors: expected four numbers of at least 0, one above 0, got {factors}")
    return weights
