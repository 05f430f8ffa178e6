r"""One softmax contrast, and the losses that are it with other masks.

Take a table of scaled similarities :math:`s_{ij}/\tau` (the *logits*), one row an anchor. Row by row, name the
positives :math:`P(i)` and the candidates :math:`A(i) \supseteq P(i)`. Then

.. math::
    \ell_i = -\frac{1}{|P(i)|}\sum_{p\in P(i)}
             \log\frac{e^{s_{ip}/\tau}}{\sum_{a\in A(i)} e^{s_{ia}/\tau}}

asks: among these candidates, how surprising is it that the positives are the right ones? InfoNCE, NT-Xent, SupCon and
CLIP differ only in who is an anchor and what the two masks say:

=============  ==========================  ===========================  ==================================
loss           anchors                     positives                    candidates
=============  ==========================  ===========================  ==================================
``info_nce``   queries                     the query's own key          its key and the negatives
``nt_xent``    both views of all samples   the other view               everything but the anchor itself
``sup_con``    all embeddings              same label, not itself       everything but the anchor itself
``clip_loss``  images, then captions       the own caption (or image)   all captions (or images)
=============  ==========================  ===========================  ==================================
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .against_queue import against_queue, is_queue
from .checks import (
    check_batch,
    check_choice,
    check_entries,
    check_flag,
    check_in_range,
    check_labels,
    check_number,
    check_shapes,
    check_sizes,
    finite_result,
)
from .pairwise import siglip_table, siglip_tiles
from .precision import full_precision
from .similarity import normalize, other_view_mask, same_label_mask, self_mask
from .tiles import tiled_contrast, use_tiles

__all__ = [
    "check_scale",
    "check_temperature",
    "clip_loss",
    "info_nce",
    "nt_xent",
    "one_positive_contrast",
    "reduce",
    "siglip_loss",
    "softmax_contrast",
    "sup_con",
    "weighted_contrast",
]

REDUCTIONS = ("mean", "sum", "none")
# One over it, times a cosine, is still a number of float32 with room to be added up.
COLDEST = 1e-30


@full_precision
def softmax_contrast(
    logits: Tensor,
    positives: Tensor,
    candidates: Tensor | None = None,
    *,
    variant: str = "out",
    reduction: str = "mean",
) -> Tensor:
    r"""Cross-entropy of the positives among the candidates, row by row.

    Args:
        logits: ``(n, m)`` floating, similarity divided by temperature.
        positives: ``(n, m)`` boolean, at least one true entry a row.
        candidates: ``(n, m)`` boolean, the terms of the denominator; contains the positives. None means all.
        variant: with several positives, where their mean stands: ``"out"`` averages the log-probabilities,
            ``"in"`` takes the logarithm of the average probability. By Jensen's inequality ``in <= out``.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over the n anchors.

    Returns:
        Scalar, or ``(n,)`` with ``reduction="none"``.

    Source:
        Khosla et al., Supervised Contrastive Learning (2020), equations 2 (out) and 3 (in).

    Example:
        >>> logits = torch.zeros(2, 3)  # nothing is known about three candidates: a fair guess costs log 3
        >>> round(softmax_contrast(logits, torch.eye(2, 3, dtype=torch.bool)).exp().item(), 3)
        3.0
    """
    check_shapes(logits=(logits, "n m"), positives=(positives, "n m", bool), candidates=(candidates, "n m?", bool))
    check_choice(("out", "in"), variant=variant)
    check_choice(REDUCTIONS, reduction=reduction)
    _check_positives(positives, candidates)

    if candidates is not None:
        logits = logits.masked_fill(~candidates, -math.inf)  # leaves the softmax exactly, at any temperature
    log_p = F.log_softmax(logits, dim=1)  # (n, m)
    count = positives.sum(1).to(log_p.dtype)  # (n,)
    if variant == "out":
        loss = -log_p.masked_fill(~positives, 0.0).sum(1) / count
    else:
        loss = count.log() - log_p.masked_fill(~positives, -math.inf).logsumexp(1)
    return _reduced(loss, reduction)


@full_precision
def weighted_contrast(
    logits: Tensor,
    positives: Tensor,
    candidates: Tensor | None = None,
    *,
    variant: str = "out",
    reduction: str = "mean",
) -> Tensor:
    r"""The softmax contrast with degrees instead of masks: how much of a positive, how often a candidate.

    .. math::
        \ell_i = -\sum_j \bar P_{ij} \log\frac{e^{s_{ij}}}{\sum_a C_{ia}\,e^{s_{ia}}},
        \qquad \bar P_{ij} = \frac{P_{ij}}{\sum_k P_{ik}}

    Weights of 0 and 1 give `softmax_contrast`. A candidate of weight 2 counts as two equal candidates. Unlike there, a
    positive need not be a candidate (the decoupled losses leave it out), so the loss can be negative.

    Args:
        logits: ``(n, m)`` floating, similarity divided by temperature.
        positives: ``(n, m)`` weights P of at least 0, floating or boolean; no row of zeros. Only their ratios matter.
        candidates: ``(n, m)`` weights C of at least 0, floating or boolean; no row of zeros. None means all 1.
        variant: ``"out"`` as above, ``"in"`` for minus the logarithm of the weighted mean of the probabilities.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over the n anchors.

    Returns:
        Scalar, or ``(n,)`` with ``reduction="none"``. Weights may carry a gradient where they are positive.

    Example:
        >>> logits, own = torch.zeros(2, 3), torch.eye(2, 3)
        >>> round(weighted_contrast(logits, own, torch.tensor([[1.0, 2.0, 5.0]]).repeat(2, 1)).exp().item(), 3)
        8.0
    """
    check_shapes(logits=(logits, "n m"))
    if _is_mask(positives):
        positives = positives.to(logits.dtype)
    if candidates is not None and _is_mask(candidates):
        candidates = candidates.to(logits.dtype)
    check_shapes(logits=(logits, "n m"), positives=(positives, "n m"), candidates=(candidates, "n m?"))
    weights = {"positives": positives} | ({} if candidates is None else {"candidates": candidates})
    check_entries(0, math.inf, open_low=False, **weights)
    check_choice(("out", "in"), variant=variant)
    check_choice(REDUCTIONS, reduction=reduction)
    for name, weight in weights.items():
        if not torch.compiler.is_compiling() and not (empty := weight.sum(1) > 0).all():
            raise ValueError(f"{name}: every row needs a weight above 0, row {int((~empty).nonzero()[0])} has none")

    log_z = (logits if candidates is None else logits + _log(candidates)).logsumexp(1)  # (n,)
    share = positives / positives.sum(1, keepdim=True)  # (n, m)
    if variant == "out":
        own = (share * logits).sum(1)
    else:
        own = (logits + _log(share)).logsumexp(1)
    return _reduced(log_z - own, reduction)


def _is_mask(x: Tensor | None) -> bool:
    return isinstance(x, Tensor) and x.dtype == torch.bool


def _log(weights: Tensor) -> Tensor:
    """Logarithm, minus infinity at 0 with a gradient of 0 there: what is no candidate stays none."""
    none = weights == 0
    return weights.masked_fill(none, 1.0).log().masked_fill(none, -math.inf)


def info_nce(
    query: Tensor,
    positive: Tensor,
    negatives: Tensor | None = None,
    temperature: float | Tensor = 0.1,
    *,
    in_batch: bool = False,
    reduction: str = "mean",
) -> Tensor:
    r"""InfoNCE: find the query's own key among the candidates.

    .. math::
        \ell_i = -\log\frac{e^{q_i\cdot k_i/\tau}}{e^{q_i\cdot k_i/\tau} + \sum_j e^{q_i\cdot n_{j}/\tau}}

    Args:
        query: ``(n, d)`` anchors, any scale (they are normalized here).
        positive: ``(n, d)``, row i belongs to query i.
        negatives: ``(k, d)`` shared by all queries (a queue), ``(n, k, d)`` own to each query, or None: then the
            positives of the other rows serve as negatives.
        temperature: :math:`\tau > 0`, one number, or one for each query ``(n, 1)``.
        in_batch: whether the positives of the other rows are negatives beside ``negatives`` too, as usual with hard
            negatives of sentences.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        Scalar, or ``(n,)`` with ``reduction="none"``.


    Source:
        van den Oord et al., Representation Learning with Contrastive Predictive Coding (2018), equation 4;
        with a queue: He et al., Momentum Contrast (2020), equation 1.
    """
    sets = "n k d?" if isinstance(negatives, Tensor) and negatives.ndim == 3 else "k d?"
    shapes = {"query": (query, "n d"), "positive": (positive, "n d"), "negatives": (negatives, sets)}
    check_sizes(**shapes)
    check_temperature(temperature, len(query))
    check_flag(in_batch=in_batch)
    check_choice(REDUCTIONS, reduction=reduction)
    if negatives is None:
        check_batch(len(query), 2, name="query", why="to have a negative (or pass negatives)")
    if negatives is None and use_tiles(temperature):  # the same numbers without the table
        names = ("query", "positive")
        return tiled_contrast(query, positive, 1 / temperature, names, columns=False, positive=0, reduction=reduction)
    check_shapes(**shapes)
    if negatives is not None and not in_batch and is_queue(positive, negatives, temperature):
        return _reduced(_queue_losses(query, positive, negatives, temperature), reduction)
    return _info_nce_table(query, positive, negatives, temperature, in_batch, reduction)


@full_precision
def _queue_losses(query: Tensor, positive: Tensor, negatives: Tensor, temperature: float | Tensor) -> Tensor:
    return against_queue(query, positive, negatives, 1 / float(temperature))


@full_precision
def _info_nce_table(
    query: Tensor,
    positive: Tensor,
    negatives: Tensor | None,
    temperature: float | Tensor,
    in_batch: bool,
    reduction: str,
) -> Tensor:
    q, k = normalize(query) / temperature, normalize(positive)
    if negatives is None or in_batch:
        logits, own = q @ k.mT, torch.arange(len(q), device=q.device)  # (n, n), the positive on the diagonal
    else:
        logits, own = (q * k).sum(1, keepdim=True), torch.zeros_like(q[:, 0], dtype=torch.long)  # (n, 1)
    if negatives is not None:
        others = normalize(negatives)
        others = (others @ q[..., None]).squeeze(-1) if others.ndim == 3 else q @ others.mT
        logits = torch.cat([logits, others], 1)  # (n, 1 + k) or (n, n + k)
    return F.cross_entropy(logits, own, reduction=reduction)


@full_precision
def one_positive_contrast(positive: Tensor, negatives: Tensor, *, reduction: str = "mean") -> Tensor:
    """The softmax contrast where each anchor has one positive and its own list of negatives, given as logits.

    Args:
        positive: ``(n,)`` logits of the positives.
        negatives: ``(n, k)`` logits of the negatives.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over the anchors.

    Returns:
        Scalar, or ``(n,)`` with ``reduction="none"``.

    """
    check_shapes(positive=(positive, "n"), negatives=(negatives, "n k"))
    check_choice(REDUCTIONS, reduction=reduction)
    logits = torch.cat([positive[:, None], negatives], 1)  # (n, 1 + k)
    first = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
    return F.cross_entropy(logits, first, reduction=reduction)


def nt_xent(z1: Tensor, z2: Tensor, temperature: float | Tensor = 0.5, *, reduction: str = "mean") -> Tensor:
    r"""NT-Xent, the loss of SimCLR: each of the 2N embeddings looks for its other view among the 2N - 1 others.

    A collapsed batch (all embeddings equal) has the value :math:`\log(2N-1)` at every temperature: a fair guess among
    2N - 1 candidates.

    Args:
        z1: ``(N, d)`` first views, any scale (normalized here).
        z2: ``(N, d)`` second views; row i belongs to row i of ``z1``.
        temperature: :math:`\tau > 0`, one number, or one for each anchor ``(2N, 1)``. SimCLR uses 0.5 on CIFAR-10
            and 0.1 on ImageNet.
        reduction: over the 2N anchors, first views first.

    Returns:
        Scalar, or ``(2N,)`` with ``reduction="none"``.


    Source:
        Chen et al., A Simple Framework for Contrastive Learning of Visual Representations (2020), equation 1.
    """
    check_sizes(z1=(z1, "n d"), z2=(z2, "n d"))
    check_temperature(temperature, 2 * len(z1))
    check_choice(REDUCTIONS, reduction=reduction)
    check_batch(len(z1), 2, name="z1", why="to have a negative")
    if use_tiles(temperature):  # the same numbers without the table
        names, n = ("z1", "z2"), len(z1)
        return tiled_contrast(z1, z2, 1 / temperature, names, stacked=True, positive=n, skip=(0,), reduction=reduction)
    return _nt_xent_table(z1, z2, temperature, reduction)


@full_precision
def _nt_xent_table(z1: Tensor, z2: Tensor, temperature: float | Tensor, reduction: str) -> Tensor:
    check_shapes(z1=(z1, "n d"), z2=(z2, "n d"))
    n, z = len(z1), normalize(torch.cat([z1, z2]))  # (2N, d)
    logits = z @ z.mT / temperature  # (2N, 2N)
    return softmax_contrast(
        logits, other_view_mask(n, z.device), candidates=~self_mask(2 * n, z.device), reduction=reduction
    )


def sup_con(
    z: Tensor,
    labels: Tensor,
    temperature: float | Tensor = 0.1,
    *,
    variant: str = "out",
    singletons: str = "refuse",
    reduction: str = "mean",
) -> Tensor:
    r"""SupCon: every other embedding with the anchor's label is a positive.

    With two views stack both, ``sup_con(torch.cat([z1, z2]), torch.cat([labels, labels]))``; then every anchor has at
    least its other view. With all labels distinct this *is* NT-Xent.

    Args:
        z: ``(m, d)`` embeddings, any scale (normalized here).
        labels: ``(m,)`` integer labels.
        temperature: :math:`\tau > 0`, one number, or one for each anchor ``(m, 1)``.
        variant: ``"out"`` (mean outside the logarithm, the authors' choice) or ``"in"``.
        singletons: what becomes of an embedding whose label occurs once, which has no positive: ``"refuse"``, or
            ``"skip"``: it is no anchor, but stays a candidate of the others.
        reduction: over the m anchors, or those that are left.

    Returns:
        Scalar, or ``(m,)`` with ``reduction="none"``; skipped anchors have no entry.


    Source:
        Khosla et al., Supervised Contrastive Learning (2020), equations 2 and 3. Their released code multiplies the
        result by temperature / base temperature (0.07 by default); here that factor is 1.
    """
    check_sizes(z=(z, "m d"), labels=(labels, "m", int))
    labels = check_labels(labels, len(z))
    check_temperature(temperature, len(z))
    check_choice(("out", "in"), variant=variant)
    check_choice(REDUCTIONS, reduction=reduction)
    check_choice(("refuse", "skip"), singletons=singletons)
    known = singletons == "skip" or not torch.compiler.is_compiling()
    values, group, sizes = labels.unique(return_inverse=True, return_counts=True) if known else (labels,) * 3
    anchors = _anchors(values, group, sizes, singletons) if known else slice(None)
    if not known or not use_tiles(temperature):
        return _sup_con_table(z, labels, temperature, anchors, variant, reduction)
    if variant == "in":
        return _reduced(_tiled_in_variant(z, group, sizes, 1 / temperature, anchors), reduction)
    if isinstance(anchors, slice):
        return tiled_contrast(
            z, None, 1 / temperature, ("z", "z"), skip=(0,), classes=(group, sizes), reduction=reduction
        )
    rows = tiled_contrast(z, None, 1 / temperature, ("z", "z"), skip=(0,), classes=(group, sizes))
    return _reduced(rows[anchors], reduction)


@full_precision
def _sup_con_table(
    z: Tensor,
    labels: Tensor,
    temperature: float | Tensor,
    anchors: slice | Tensor,
    variant: str,
    reduction: str,
) -> Tensor:
    check_shapes(z=(z, "m d"))
    z = normalize(z)
    itself = self_mask(len(z), z.device)
    positives = same_label_mask(labels) & ~itself
    logits = z @ z.mT / temperature  # (m, m)
    return softmax_contrast(
        logits[anchors], positives[anchors], candidates=~itself[anchors], variant=variant, reduction=reduction
    )


@full_precision
def _tiled_in_variant(
    z: Tensor, group: Tensor, sizes: Tensor, scale: float | Tensor, anchors: slice | Tensor
) -> Tensor:
    """SupCon with the mean inside the logarithm, without the table: from the log-sums of all and of each class."""
    check_shapes(z=(z, "m d"))
    z = normalize(z)
    log_sums = tiled_contrast(z, scale=scale, skip=(0,), unit=True)[anchors]
    own, group = z[anchors], group[anchors]
    count = (sizes[group] - 1).to(z.dtype)
    return log_sums + count.log() - tiled_contrast(own, scale=scale, skip=(0,), labels=group, unit=True)


def _anchors(values: Tensor, group: Tensor, sizes: Tensor, singletons: str) -> slice | Tensor:
    """The rows that have a positive: all, or a mask ``(m,)``."""
    if sizes.min() >= 2:
        return slice(None)
    if singletons == "refuse":
        alone = int(values[sizes.argmin()])
        raise ValueError(f"labels: every label must occur at least twice, {alone} occurs once; pass two views of each")
    if sizes.max() < 2:
        raise ValueError(f"labels: some label must occur at least twice, all {len(group)} are different")
    return sizes[group] > 1


def clip_loss(image: Tensor, text: Tensor, log_scale: float | Tensor) -> Tensor:
    r"""CLIP: image i finds caption i among all captions, caption i finds image i among all images; the mean of both.

    The temperature is learned through its logarithm, :math:`s = e^{t} = 1/\tau`.

    Args:
        image: ``(N, d)`` image embeddings, any scale (normalized here).
        text: ``(N, d)`` caption embeddings, row i belongs to image i.
        log_scale: :math:`t`, a number or a 0-d tensor (a parameter). CLIP starts it at log(1/0.07) and keeps it below
            log(100) by clamping after each optimizer step, which is not part of the loss.

    Returns:
        Scalar. A single pair gives 0: there is nothing to confuse it with.


    Source:
        Radford et al., Learning Transferable Visual Models From Natural Language Supervision (2021), figure 3.
    """
    check_sizes(image=(image, "n d"), text=(text, "n d"))
    check_scale(log_scale)
    scale = log_scale.exp() if isinstance(log_scale, Tensor) else math.exp(log_scale)
    if use_tiles(scale):
        return tiled_contrast(image, text, scale, ("image", "text"), positive=0, reduction="mean")
    return _clip_table(image, text, scale)


@full_precision
def _clip_table(image: Tensor, text: Tensor, scale: float | Tensor) -> Tensor:
    check_shapes(image=(image, "n d"), text=(text, "n d"))
    logits = scale * (normalize(image) @ normalize(text).mT)  # (N, N)
    own = self_mask(len(image), image.device)
    return (softmax_contrast(logits, own) + softmax_contrast(logits.mT, own)) / 2


@full_precision
def siglip_loss(image: Tensor, text: Tensor, log_scale: float | Tensor, bias: float | Tensor) -> Tensor:
    r"""SigLIP: every pair is a yes-or-no question of its own, so nothing has to be summed over the batch.

    .. math::
        \mathcal L = -\frac1N \sum_{i,j} \log\sigma\bigl(y_{ij}\,(e^{t}\,s_{ij} + b)\bigr),
        \qquad y_{ij} = +1 \text{ if } i = j, \text{ else } -1

    Args:
        image: ``(N, d)`` image embeddings, any scale (normalized here).
        text: ``(N, d)`` caption embeddings, row i belongs to image i.
        log_scale: t, learned; SigLIP starts it at log(10).
        bias: b, learned; SigLIP starts it at -10, because nearly all pairs are a no.

    Returns:
        Scalar. Unlike `clip_loss` it is defined, and not 0, for a single pair.

    Source:
        Zhai et al., Sigmoid Loss for Language Image Pre-Training (2023), section 3.2.

    Example:
        >>> a = torch.eye(3)  # all pairs right: cosine 1 for the own caption, 0 for the others
        >>> round(siglip_loss(a, a, math.log(20.0), -10.0).item(), 4)
        0.0001
    """
    check_shapes(image=(image, "n d"), text=(text, "n d"))
    check_scale(log_scale)
    check_in_range(-math.inf, math.inf, bias=bias)
    scale, shift = (torch.as_tensor(x, dtype=image.dtype, device=image.device) for x in (log_scale, bias))
    loss = (siglip_tiles if use_tiles(scale) else siglip_table)(image, text, scale, shift)
    return finite_result(loss, log_scale=log_scale, bias=bias)


def reduce(loss: Tensor, reduction: str) -> Tensor:
    """Mean, sum or nothing over the anchors, as in ``torch.nn.functional``."""
    check_choice(REDUCTIONS, reduction=reduction)
    check_shapes(loss=(loss, "..."))
    return _reduced(loss, reduction)


def _reduced(loss: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return loss
    return loss.mean() if reduction == "mean" else loss.sum()


def check_temperature(temperature: float | Tensor, anchors: int | None = None, *, name: str = "temperature") -> None:
    """Check a temperature, a number or a 0-d tensor: above 0, and not so low that logits overflow.

    Args:
        temperature: to check.
        anchors: where every anchor may have a temperature of its own, a column ``(anchors, 1)``, their number.
        name: of the argument.

    Raises:
        ValueError: below 1e-30, where similarities divided by it leave the range of float32.
    """
    if anchors is not None and isinstance(temperature, Tensor) and temperature.ndim > 0:
        check_shapes(**{name: (temperature, f"{anchors} 1")})
        check_entries(COLDEST, math.inf, open_low=False, **{name: temperature})
        return
    number = check_number(name, temperature)
    if number is not None and not COLDEST <= number < math.inf:
        raise ValueError(f"{name}: expected a finite number greater than 0 (at least {COLDEST:g}), got {number:g}")


def check_scale(log_scale: float | Tensor, *, name: str = "log_scale") -> None:
    """Check the logarithm of an inverse temperature: a finite number that has not run away.

    Raises:
        ValueError: above 69 = log(1e30), where similarities times its exponential leave the range of float32. A learned
            scale is to be clamped after each step; CLIP's limit is log(100) = 4.6.
    """
    number = check_number(name, log_scale)
    if number is not None and not abs(number) <= -math.log(COLDEST):
        raise ValueError(f"{name}: expected a finite number of at most 69 (clamp it after each step), got {number:g}")


def _check_positives(positives: Tensor, candidates: Tensor | None) -> None:
    if torch.compiler.is_compiling():
        return
    if not positives.any(1).all():
        row = int((~positives.any(1)).nonzero()[0])
        raise ValueError(f"positives: every row needs at least one true entry, row {row} has none")
    if candidates is not None and (positives & ~candidates).any():
        row, column = (positives & ~candidates).nonzero()[0].tolist()
        raise ValueError(f"positives, candidates: every positive must be a candidate, entry ({row}, {column}) is none")
