r"""AMCL: several heads, and a temperature for every pair.

Wang, Koniusz, Gedeon, Zheng, *Adaptive Multi-head Contrastive Learning* (ECCV 2024; arXiv 2310.05615).

Read each head's similarity as a Gaussian likelihood whose variance is the temperature of the pair. Its negative
logarithm gives :math:`-s/\tau` plus a regularizer :math:`\Omega(\tau) = \tfrac{d'}2\log\tau + \tfrac1\tau`. Per anchor,
summed over the heads, with the k most similar negatives :math:`T_i` (k = 1 is the printed loss, "max"),

.. math::
    \ell_i = \sum_{c=1}^C \Big(-\frac{s_i^{c+}}{\tau_i^{c+}} + \beta\,\Omega(\tau_i^{c+})
             + \frac1k\sum_{n\in T_i}
               \big(\tfrac{s_{in}^{c-}}{\tau_{in}^{c-}} - \beta\,\Omega(\tau_{in}^{c-})\big)\Big).

What changes and why: strong augmentations make some positives unlike and some negatives alike; an uncertain pair gets
a larger temperature and is pulled or pushed less, and several heads need not agree on what "alike" means. The
temperature comes from a small network phi that all heads share, :math:`\tau = lo + (hi-lo)\,\sigma(-\phi(z_i)^\top
\phi(z_j))`: mind the minus, a pair that phi finds alike is cold.

Paper versus code. The paper's text was out of reach; formulas are those quoted by the authors' release. (1) Its
comments print eq. 2.1 with the single hardest negative; it trains with the k = 100 most similar ones. (2) There the
similarities of the set are averaged but the regularizers added up, without d'/2: ``form="released"``. ``"topk"``
averages both with the full regularizer and so equals eq. 2.1 at k = 1. (3) The loss is unbounded below without bounds
on the temperature, and with the release's beta of 1e-4 nearly every positive pair wants the lower bound, 1e-5 there.
The defaults here are beta 1, a lower bound of 0.05 and ``"lse"``, our own smooth parent form that puts the logarithm of
a sum of exponentials over all negatives in place of the last term. (4) MoCo: the release averages the directions of
query and key; keys have no gradient, so that halves the push of the queue. Only ``"released"`` does it here. (5) Barlow
Twins: phi sees raw channels, deviations are unbiased but the correlation is divided by N, and the regularizer keeps d'
although the vectors compared have N entries; as the release.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ..core.checks import (
    check_batch,
    check_choice,
    check_count,
    check_entries,
    check_in_range,
    check_module,
    check_positive,
    check_same_shape,
    check_shapes,
    check_type,
)
from ..core.contrast import REDUCTIONS, reduce
from ..core.precision import full_precision
from ..core.similarity import normalize, other_view_mask, self_mask
from ..models.apply import apply_network

__all__ = [
    "AMCL",
    "PairTemperature",
    "amcl",
    "amcl_barlow_twins",
    "amcl_moco",
    "amcl_simsiam",
    "optimal_positive_temperature",
    "pair_temperature",
    "regularizer",
]

FORMS = ("lse", "topk", "max", "released")
COLDEST_PAIR = 1e-12  # the square of its inverse is still a number of float32


@full_precision
def regularizer(temperature: Tensor, dim: int) -> Tensor:
    r""":math:`\Omega(\tau) = \tfrac{d'}2\log\tau + \tfrac1\tau`, what keeps a temperature from running away.

    Args:
        temperature: any shape, greater than 0.
        dim: d', width of the embeddings.

    Returns:
        Same shape; smallest at :math:`\tau = 2/d'`.
    """
    check_entries(COLDEST_PAIR, math.inf, temperature=temperature)
    check_count(dim=dim)
    return dim / 2 * temperature.log() + 1 / temperature


@full_precision
def optimal_positive_temperature(similarity: Tensor, dim: int, beta: float = 1.0) -> Tensor:
    r"""The temperature at rest of a positive pair, :math:`\tau^* = 2(\beta - s)/(\beta d')`: unlike pairs get a large
    one.

    Args:
        similarity: any shape, cosines.
        dim: d', width of the embeddings.
        beta: weight of the regularizer, greater than 0.

    Returns:
        Same shape; NaN where s >= beta, because there is no minimum and the temperature runs to its lower bound.

    Derived here from the positive term of the loss.
    """
    check_entries(-math.inf, math.inf, similarity=similarity)
    check_count(dim=dim)
    check_positive(beta=beta)
    rest = 2 * (beta - similarity) / (beta * dim)
    return torch.where(similarity < beta, rest, torch.nan)


@full_precision
def amcl(
    heads: Tensor,
    temperatures: Tensor,
    *,
    beta: float = 1.0,
    form: str = "lse",
    topk: int = 100,
    reduction: str = "mean",
) -> Tensor:
    """SimCLR with several heads and a temperature for every pair and head.

    Args:
        heads: ``(C, 2N, d)`` outputs of the heads, rows i and i + N are the two views of a sample; any scale.
        temperatures: ``(C, 2N, 2N)``, greater than 0; the diagonal is not used.
        beta: weight of the regularizer, at least 0.
        form: ``"lse"`` (every negative gets gradient), ``"topk"`` (the most similar ones), ``"max"`` (the printed loss,
            the most similar one) or ``"released"`` (see *Paper versus code*).
        topk: number of negatives in ``"topk"`` and ``"released"``; all, where there are fewer.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over the 2N anchors, summed over heads.

    Returns:
        Scalar, or ``(2N,)`` with ``reduction="none"``.

    Source: the comments of the authors' release, equations 2.1 (``"max"``) and 5 (``"released"``).

    Example:
        >>> heads, warm = torch.randn(3, 8, 5), torch.full((3, 8, 8), 0.5)
        >>> all_six, smooth = (amcl(heads, warm, form=form, topk=6) for form in ("topk", "lse"))
        >>> bool(smooth - all_six >= 3 * math.log(6) - 1e-4)  # log k a head, by Jensen's inequality
        True
    """
    check_shapes(heads=(heads, "C 2N d"), temperatures=(temperatures, "C 2N 2N"))
    check_entries(COLDEST_PAIR, math.inf, temperatures=temperatures)
    _check_settings(beta, form, topk)
    check_choice(REDUCTIONS, reduction=reduction)
    _, rows, dim = heads.shape
    if rows % 2:
        raise ValueError(f"heads: expected two views of every sample, an even number of rows, got {rows}")
    check_batch(rows // 2, 2, name="heads (samples)", why="to have a negative")
    z = normalize(heads)
    similarity = z @ z.mT  # (C, 2N, 2N)
    attraction = _scores(_other_views(similarity), _other_views(temperatures), dim, beta)  # (C, 2N)
    no_negative = other_view_mask(rows // 2, z.device) | self_mask(rows, z.device)
    repulsion = _repulsion(similarity, temperatures, dim, beta, form, min(topk, rows - 2), no_negative)  # (C, 2N)
    return reduce((repulsion - attraction).sum(0), reduction)


@full_precision
def amcl_moco(
    query: Tensor,
    key: Tensor,
    queue: Tensor,
    positive_temperatures: Tensor,
    negative_temperatures: Tensor,
    key_temperatures: Tensor | None = None,
    *,
    beta: float = 1.0,
    form: str = "lse",
    topk: int = 100,
    reduction: str = "mean",
) -> Tensor:
    """MoCo with several heads, each with its queue. Keys and queue get no gradient.

    Args:
        query: ``(C, n, d)`` of the student, any scale.
        key: ``(C, n, d)`` of the teacher, row i belongs to query i.
        queue: ``(C, K, d)`` earlier keys.
        positive_temperatures: ``(C, n)`` of each query with its key.
        negative_temperatures: ``(C, n, K)`` of each query with the queue.
        key_temperatures: ``(C, n, K)`` of each key with the queue; only ``form="released"`` takes it.
        beta: weight of the regularizer.
        form: see `amcl`.
        topk: number of negatives in ``"topk"`` and ``"released"``.
        reduction: over the n queries.

    Returns:
        Scalar, or ``(n,)`` with ``reduction="none"``.
    """
    sizes = check_shapes(
        query=(query, "C n d"),
        key=(key, "C n d"),
        queue=(queue, "C K d"),
        positive_temperatures=(positive_temperatures, "C n"),
        negative_temperatures=(negative_temperatures, "C n K"),
        key_temperatures=(key_temperatures, "C n K?"),
    )
    check_entries(
        COLDEST_PAIR, math.inf, positive_temperatures=positive_temperatures, negative_temperatures=negative_temperatures
    )
    _check_settings(beta, form, topk)
    check_choice(REDUCTIONS, reduction=reduction)
    if (key_temperatures is None) == (form == "released"):
        raise ValueError(f'key_temperatures: expected with form="released" and only with it, got form={form!r}')
    q, k, memory = normalize(query), normalize(key.detach()), normalize(queue.detach())
    attraction = _scores((q * k).sum(-1), positive_temperatures, sizes["d"], beta)  # (C, n)
    loss = _repulsion(q @ memory.mT, negative_temperatures, sizes["d"], beta, form, topk) - attraction
    if key_temperatures is not None:
        check_entries(COLDEST_PAIR, math.inf, key_temperatures=key_temperatures)
        other = _repulsion(k @ memory.mT, key_temperatures, sizes["d"], beta, form, topk) - attraction
        loss = (loss + other) / 2
    return reduce(loss.sum(0), reduction)


@full_precision
def amcl_simsiam(
    p1: Tensor,
    z2: Tensor,
    p2: Tensor,
    z1: Tensor,
    temperatures1: Tensor,
    temperatures2: Tensor,
    *,
    beta: float = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """SimSiam with several heads: predictions meet the other view's targets, which get no gradient.

    Args:
        p1: ``(C, n, d)`` predictions of the first views, any scale.
        z2: ``(C, n, d)`` targets of the second views.
        p2: ``(C, n, d)`` predictions of the second views.
        z1: ``(C, n, d)`` targets of the first views.
        temperatures1: ``(C, n)`` of the pairs p1, z2.
        temperatures2: ``(C, n)`` of the pairs p2, z1.
        beta: weight of the regularizer, which is not halved although the similarities are (eq. 2.2).
        reduction: over the n samples.

    Returns:
        Scalar, or ``(n,)`` with ``reduction="none"``.
    """
    check_shapes(
        p1=(p1, "C n d"),
        z2=(z2, "C n d"),
        p2=(p2, "C n d"),
        z1=(z1, "C n d"),
        temperatures1=(temperatures1, "C n"),
        temperatures2=(temperatures2, "C n"),
    )
    check_entries(COLDEST_PAIR, math.inf, temperatures1=temperatures1, temperatures2=temperatures2)
    check_in_range(0, math.inf, beta=beta)
    check_choice(REDUCTIONS, reduction=reduction)
    similarity1 = (normalize(p1) * normalize(z2.detach())).sum(-1)  # (C, n)
    similarity2 = (normalize(p2) * normalize(z1.detach())).sum(-1)
    dim = p1.shape[-1]
    scores = _scores(similarity1 / 2, temperatures1, dim, beta) + _scores(similarity2 / 2, temperatures2, dim, beta)
    return reduce(-scores.sum(0), reduction)


@full_precision
def amcl_barlow_twins(
    z1: Tensor, z2: Tensor, temperatures: Tensor, *, beta: float = 1.0, off_diagonal: float = 5e-3
) -> Tensor:
    r"""Barlow Twins with several heads and a temperature for every pair of channels (eq. 2.3).

    .. math::
        \sum_c\Big(\sum_l \big(1 - \tfrac{C_{ll}}{\tau_{ll}}\big)^2
        + \lambda\sum_{l\ne m}\tfrac{C_{lm}^2}{\tau_{lm}}
        + \beta\sum_l\Omega(\tau_{ll}) - \beta\sum_{l\ne m}\Omega(\tau_{lm})\Big)

    Args:
        z1: ``(C, n, d)`` first views, any scale, at least two rows. A constant channel has correlation 0 with all.
        z2: ``(C, n, d)`` second views.
        temperatures: ``(C, d, d)`` of channel l of the first and m of the second views.
        beta: weight of the regularizer.
        off_diagonal: :math:`\lambda`, at least 0.

    Returns:
        Scalar.
    """
    sizes = check_shapes(z1=(z1, "C n d"), z2=(z2, "C n d"), temperatures=(temperatures, "C d d"))
    check_batch(sizes["n"], 2, name="z1", why="to have a correlation")
    check_entries(COLDEST_PAIR, math.inf, temperatures=temperatures)
    check_in_range(0, math.inf, beta=beta, off_diagonal=off_diagonal)
    correlation = _standardize(z1).mT @ _standardize(z2) / sizes["n"]  # (C, d, d)
    omega = regularizer(temperatures, sizes["d"])
    own = self_mask(sizes["d"], z1.device)
    alike = (1 - correlation[:, own] / temperatures[:, own]).square() + beta * omega[:, own]
    unlike = off_diagonal * correlation[:, ~own].square() / temperatures[:, ~own] - beta * omega[:, ~own]
    return alike.sum() + unlike.sum()


@full_precision
def pair_temperature(phi1: Tensor, phi2: Tensor, *, low: float = 0.05, high: float = 2.0) -> Tensor:
    r"""Temperatures of pairs from what the shared network says of both sides, row by row.

    .. math:: \tau = lo + (hi - lo)\,\sigma\big(-\phi_1^\top\phi_2\big)

    Args:
        phi1: ``(..., k)``.
        phi2: same shape.
        low: lower bound, greater than 0.
        high: upper bound, above ``low``.

    Returns:
        ``(...)``, strictly between the bounds up to round-off. A pair of equal vectors is never above the middle.

    Source: the comments of the authors' release, equation 3.
    """
    check_shapes(phi1=(phi1, "... k"), phi2=(phi2, "... k"))
    check_same_shape(phi1=phi1, phi2=phi2)
    _check_bounds(low, high)
    return low + (high - low) * torch.sigmoid(-(phi1 * phi2).sum(-1))


@full_precision
def _all_temperatures(phi1: Tensor, phi2: Tensor, *, low: float = 0.05, high: float = 2.0) -> Tensor:
    """`pair_temperature` of every row of ``(C, m, k)`` with every row of ``(C, n, k)``: ``(C, m, n)``."""
    check_shapes(phi1=(phi1, "C m k"), phi2=(phi2, "C n k"))
    _check_bounds(low, high)
    return low + (high - low) * torch.sigmoid(-(phi1 @ phi2.mT))


def _scores(similarity: Tensor, temperatures: Tensor, dim: int, beta: float) -> Tensor:
    """Logarithm of the likelihood of pairs."""
    return similarity / temperatures - beta * regularizer(temperatures, dim)


def _other_views(table: Tensor) -> Tensor:
    """What each row of ``(C, 2N, 2N)`` says of the other view of its sample, ``(C, 2N)``."""
    n = table.shape[-1] // 2
    return torch.cat([table.diagonal(n, 1, 2), table.diagonal(-n, 1, 2)], 1)


def _repulsion(
    similarity: Tensor,
    temperatures: Tensor,
    dim: int,
    beta: float,
    form: str,
    topk: int,
    no_negative: Tensor | None = None,
) -> Tensor:
    """What anchors pay for their negatives: ``(C, n)`` from ``(C, n, m)``."""
    no_negative = torch.zeros((), dtype=torch.bool, device=similarity.device) if no_negative is None else no_negative
    if form == "lse":
        return _scores(similarity, temperatures, dim, beta).masked_fill(no_negative, -math.inf).logsumexp(-1)
    count = 1 if form == "max" else min(topk, similarity.shape[-1])
    # By similarity, not by scaled similarity.
    hardest = similarity.detach().masked_fill(no_negative, -math.inf).topk(count).indices
    s, tau = similarity.gather(-1, hardest), temperatures.gather(-1, hardest)
    if form == "released":
        return (s / tau).mean(-1) - beta * (tau.log() + 1 / tau).sum(-1)
    return _scores(s, tau, dim, beta).mean(-1)


def _standardize(z: Tensor) -> Tensor:
    """Channels of mean 0 and (unbiased) deviation 1 over the batch; constant ones become 0."""
    variance = z.var(-2, keepdim=True)
    return (z - z.mean(-2, keepdim=True)) / (torch.where(variance > 0, variance, 1.0).sqrt() + 1e-9)


def _check_settings(beta: float, form: str, topk: int) -> None:
    check_in_range(0, math.inf, beta=beta)
    check_choice(FORMS, form=form)
    check_count(topk=topk)


def _check_bounds(low: float, high: float) -> None:
    check_positive(low=low, high=high)
    if low >= high:
        raise ValueError(f"low: expected a number below high={high:g}, got {low:g}")


class PairTemperature(nn.Module):
    """One two-layer perceptron phi for all heads that turns pairs of vectors into temperatures."""

    def __init__(self, dim: int, *, hidden: int = 128, low: float = 0.05, high: float = 2.0) -> None:
        """Make the network.

        Args:
            dim: width of the vectors and of phi.
            hidden: width of the hidden layer.
            low: smallest temperature; the release has 1e-5, see *Paper versus code*.
            high: largest temperature.
        """
        super().__init__()
        check_count(dim=dim, hidden=hidden)
        _check_bounds(low, high)
        self.phi = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, dim))
        self.low, self.high = low, high

    def forward(self, heads: Tensor, others: Tensor | None = None) -> Tensor:
        """Temperatures ``(C, m, k)`` of all pairs of ``(C, m, dim)`` and ``(C, k, dim)``, by default the same."""
        width = self.phi[0].in_features
        check_shapes(heads=(heads, f"C m {width}"), others=(others, f"C k {width}?"))
        first = self._phi(heads)
        second = first if others is None else self._phi(others)
        return _all_temperatures(first, second, low=self.low, high=self.high)

    def of_pairs(self, heads: Tensor, others: Tensor) -> Tensor:
        """Temperatures ``(C, n)`` of row i with row i of ``(C, n, dim)``."""
        width = self.phi[0].in_features
        check_shapes(heads=(heads, f"C n {width}"), others=(others, f"C n {width}"))
        return pair_temperature(self._phi(heads), self._phi(others), low=self.low, high=self.high)

    def _phi(self, x: Tensor) -> Tensor:
        return self.phi(x.to(next(self.parameters()).dtype))  # embeddings may come in half precision


class AMCL(nn.Module):
    """Heads and temperature network on top of an encoder, as SimCLR uses them; both are dropped downstream."""

    def __init__(
        self,
        heads: Iterable[nn.Module],
        dim: int,
        *,
        beta: float = 1.0,
        form: str = "lse",
        topk: int = 100,
        low: float = 0.05,
        high: float = 2.0,
    ) -> None:
        """Collect the parts.

        Args:
            heads: C projection heads, features to ``(n, dim)``.
            dim: width of their outputs.
            beta: weight of the regularizer.
            form: see `amcl`.
            topk: see `amcl`.
            low: smallest temperature.
            high: largest temperature.
        """
        super().__init__()
        check_type(Iterable, heads=heads)
        heads = list(heads)
        check_module(**{f"heads[{i}]": head for i, head in enumerate(heads)})
        self.heads = nn.ModuleList(heads)
        check_batch(len(self.heads), 1, name="heads", why="to compare anything")
        self.temperature: nn.Module = PairTemperature(dim, low=low, high=high)
        _check_settings(beta, form, topk)
        self.beta, self.form, self.topk = beta, form, topk

    def loss(self, features1: Tensor, features2: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """The loss of the encoder's features ``(N, f)`` of two views; nothing is drawn."""
        check_shapes(features1=(features1, "N f"), features2=(features2, "N f"))
        features = {"features1, features2": torch.cat([features1, features2])}  # (2N, f)
        z = torch.stack([apply_network(head, "n d", **features) for head in self.heads])  # (C, 2N, dim)
        return amcl(z, self.temperature(normalize(z)), beta=self.beta, form=self.form, topk=self.topk)

    def forward(self, features1: Tensor, features2: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """The loss."""
        return self.loss(features1, features2, generator=generator)
