r"""WhitenedCSE: Whitening-based Contrastive Learning of Sentence Embeddings. Wenjie Zhuo, Yifan Sun, Xiaohan Wang,
Linchao Zhu, Yi Yang; ACL 2023; https://arxiv.org/abs/2305.17746. (SimCSE, its base: Gao et al. 2021,
https://arxiv.org/abs/2104.08821.)

Each of V encodings of a sentence (dropout differs) gets its own random order of the channels, which is cut into G
groups. Each group :math:`X_g` of k = D/G channels is whitened over the batch, then the order is undone:

.. math::
    \Sigma_g = \tfrac1B \bar X_g^\top \bar X_g, \qquad Y_g = \bar X_g\,\Sigma_g^{-1/2}, \qquad z = \tanh(Py + b),

.. math::
    L = \sum_{v=2}^{V} \frac1B\sum_i -\log
        \frac{e^{\cos(z_i^1, z_i^v)/\tau}}{\sum_j e^{\cos(z_i^1, z_j^v)/\tau}} .

What changes and why: negatives spread the sentences, whitening spreads the channels, and here both act, one after the
other. Another shuffle is another distortion of the same sentence, so that one sentence yields several different
positives. Whitening and head shape the training only; the plain encoder output is what is kept.

Paper versus code. (1) The release interleaves the views and then cuts the batch into contiguous thirds, so that the
positives of a sentence share a shuffle and statistics are mixed over views; here each view has its own shuffle and
its own statistics, as the abstract says. (2) The release treats :math:`\Sigma_g^{-1/2}` as a constant
(``detach=True``, default here too); ``detach=False`` differentiates through it. (3) There is no epsilon in the
release; `ridge` is 0 by default, and a group without full rank is an error that says so. (4) The derivative of an
eigendecomposition divides by differences of eigenvalues, and a whitened space makes them equal; `inverse_square_root`
has its own backward pass that divides by sums instead. (5) The released training loop always uses three views; here
the number is free. (6) Only y is white: the head mixes the channels again. (7) Whitening removes what all sentences
share before the loss sees it, so no gradient reaches a common offset of the encoder output (derived here). Where that
offset is large, plain contrast without a head spreads the encoder output more; a head with a bias hides it as well.

Sources: the abstract and the released code. The body of the paper was not available.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..core.checks import (
    check_batch,
    check_callable,
    check_count,
    check_flag,
    check_generator,
    check_in_range,
    check_shapes,
    check_type,
)
from ..core.contrast import check_temperature, info_nce
from ..core.precision import full_precision
from ..models.apply import apply_network

__all__ = [
    "WhitenedCSE",
    "draw_shuffles",
    "dropout_views",
    "group_whiten",
    "inverse_square_root",
    "one_to_many_contrast",
]

# A covariance of larger entries leaves the range of float32.
LARGEST = 1e15


def dropout_views(encoder: Callable[[Tensor], Tensor], inputs: Tensor, views: int = 3) -> list[Tensor]:
    """Encode the same inputs several times; in training mode dropout makes the results differ.

    Args:
        encoder: inputs ``(B, ...)`` to features ``(B, D)``.
        inputs: ``(B, ...)``.
        views: V, at least 2.

    Returns:
        V tensors ``(B, D)``.
    """
    check_callable(encoder=encoder)
    check_count(2, views=views)
    return [apply_network(encoder, "B D", inputs=inputs) for _ in range(views)]


def draw_shuffles(views: int, dim: int, *, generator: torch.Generator | None = None) -> Tensor:
    """One random order of the channels for each view.

    Args:
        views: V.
        dim: number of channels D.
        generator: of the draws.

    Returns:
        ``(V, D)`` integers on the CPU; position p of the shuffled vector holds channel ``shuffles[v, p]``.
    """
    check_count(views=views, dim=dim)
    check_generator(generator)
    where = "cpu" if generator is None else generator.device
    return torch.stack([torch.randperm(dim, generator=generator, device=where).cpu() for _ in range(views)])


class _InverseSquareRoot(torch.autograd.Function):
    r"""In the eigenbasis, with :math:`s = \sqrt\lambda`: dW_ij = -dS_ij / (s_i s_j (s_i + s_j)). No differences."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(matrix)  # (G, k), (G, k, k)
        root = values.sqrt()
        ctx.save_for_backward(root, vectors)
        return (vectors / root[..., None, :]) @ vectors.mT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        root, vectors = ctx.saved_tensors
        row, column = root[..., :, None], root[..., None, :]
        with torch.autocast(vectors.device.type, enabled=False):  # wherever backward is called
            inner = vectors.mT @ grads[0].to(vectors) @ vectors / (row * column * (row + column))
            return -vectors @ inner @ vectors.mT


@full_precision
def inverse_square_root(matrix: Tensor) -> Tensor:
    r"""Symmetric :math:`\Sigma^{-1/2}` of positive definite matrices; its derivative exists for equal eigenvalues too.

    Args:
        matrix: ``(G, k, k)`` symmetric.

    Returns:
        ``(G, k, k)``, at least float32.

    Raises:
        ValueError: an eigenvalue that is not above rounding error.
    """
    check_shapes(matrix=(matrix, "G k k"))
    if not torch.compiler.is_compiling():
        _check_symmetric(matrix.detach())
        values = torch.linalg.eigvalsh(matrix.detach())  # ascending
        floor = matrix.shape[-1] * torch.finfo(matrix.dtype).eps * values[:, -1]
        if not (values[:, 0] > floor).all():
            group = int((~(values[:, 0] > floor)).nonzero()[0])
            raise ValueError(
                f"matrix: expected full rank, group {group} has smallest eigenvalue {values[group, 0].item():.3g}; "
                "pass ridge > 0 or more different rows"
            )
    result: Tensor = _InverseSquareRoot.apply(matrix)
    return result


@full_precision
def group_whiten(
    features: Tensor, groups: int, shuffle: Tensor | None = None, *, ridge: float = 0.0, detach: bool = True
) -> Tensor:
    """Whiten groups of channels over the batch; the channels keep their places.

    Args:
        features: ``(B, D)`` encoder output.
        groups: G, a divisor of D; 1 whitens all channels together, D standardizes each.
        shuffle: ``(D,)`` a permutation from `draw_shuffles`; consecutive blocks of it are the groups. None keeps the
            order of the channels.
        ridge: added to the diagonal of each covariance, at least 0.
        detach: whether the whitening matrices are constants for the gradient.

    Returns:
        ``(B, D)``; with ``ridge=0`` every group has mean 0 and (biased) covariance I.

    Raises:
        ValueError: a group without full rank (B > k rows are needed when ``ridge=0``).

    Source: Zhuo et al. (2023), released whitening module.

    Example:
        >>> x = torch.randn(100, 6, generator=torch.Generator().manual_seed(0)) * torch.arange(1.0, 7.0)
        >>> y = group_whiten(x, groups=2)
        >>> covariance = y.mT @ y / 100
        >>> torch.allclose(covariance[:3, :3], torch.eye(3), atol=1e-4), bool(covariance[:3, 3:].abs().max() > 0.01)
        (True, True)
    """
    check_shapes(features=(features, "B D"))
    check_count(groups=groups)
    check_in_range(0, 1e30, ridge=ridge)
    check_flag(detach=detach)
    rows, dim = features.shape
    _check_divisor(groups, dim, "features, groups")
    width = dim // groups
    if ridge == 0:
        check_batch(rows, width + 1, name="features", why=f"to whiten groups of {width} channels (or pass ridge > 0)")
    order = _check_permutation("shuffle", shuffle, dim).to(features.device)
    if not torch.compiler.is_compiling() and features.detach().abs().max() > LARGEST:
        raise ValueError(f"features: expected entries up to {LARGEST:g}, got {features.detach().abs().max():.3g}")

    x = features[:, order].unflatten(1, (groups, width)).transpose(0, 1)  # (G, B, k)
    x = x - x.mean(1, keepdim=True)
    covariance = x.mT @ x / rows  # (G, k, k), biased
    if ridge > 0:
        covariance = covariance + ridge * torch.eye(width, dtype=x.dtype, device=x.device)
    try:
        whitener = inverse_square_root(covariance.detach() if detach else covariance)
    except ValueError as error:
        raise ValueError(f"features, groups, ridge: a covariance cannot be inverted: {error}") from error
    y = (x @ whitener).transpose(0, 1).flatten(1)  # (B, D), still shuffled
    return y[:, order.argsort()]


def one_to_many_contrast(embeddings: Sequence[Tensor], temperature: float | Tensor = 0.05) -> Tensor:
    """The first view against each other view: the negatives of a term come from the positive's view only.

    Args:
        embeddings: V tensors ``(B, d)``, any scale (normalized here).
        temperature: greater than 0.

    Returns:
        ``(V - 1,)`` InfoNCE terms; the loss is their sum.
    """
    _check_views("embeddings", embeddings)
    check_temperature(temperature)
    check_batch(len(embeddings[0]), 2, name="embeddings[0]", why="to have a negative")
    anchor, *positives = embeddings
    return torch.stack([info_nce(anchor, positive, temperature=temperature) for positive in positives])


class WhitenedCSE(nn.Module):
    """Shuffled group whitening, the head and the loss; thrown away after training.

    One step, with an encoder that has dropout::

        method = WhitenedCSE(dim=64, groups=8)
        loss = method(dropout_views(encoder, inputs, views=3))

    Source: Zhuo et al. (2023).
    """

    def __init__(
        self, dim: int, groups: int, *, temperature: float = 0.05, ridge: float = 0.0, detach: bool = True
    ) -> None:
        """Make the head.

        Args:
            dim: D, width of the encoder output.
            groups: G; the paper's models have 128 groups of 6 channels.
            temperature: greater than 0.
            ridge: see `group_whiten`; a small one is safer in float32.
            detach: see `group_whiten`.
        """
        super().__init__()
        check_count(dim=dim, groups=groups)
        check_temperature(temperature)
        check_in_range(0, 1e30, ridge=ridge)
        check_flag(detach=detach)
        _check_divisor(groups, dim)
        self.groups, self.temperature, self.ridge, self.detach = groups, temperature, ridge, detach
        self.head = nn.Linear(dim, dim)

    def terms(self, views: Sequence[Tensor], shuffles: Tensor) -> Tensor:
        """The ``(V - 1,)`` terms of the loss for given orders of the channels ``(V, D)``."""
        _check_views("views", views, self.head.in_features)
        check_shapes(shuffles=(shuffles, f"{len(views)} {self.head.in_features}", int))
        for v, order in enumerate(shuffles):
            _check_permutation(f"shuffles[{v}]", order, self.head.in_features)
        embeddings = []
        for v, (h, order) in enumerate(zip(views, shuffles, strict=True)):
            try:
                y = group_whiten(h, self.groups, order, ridge=self.ridge, detach=self.detach)
            except ValueError as error:
                raise ValueError(f"views[{v}]: {error}") from error
            embeddings.append(torch.tanh(self.head(y.to(self.head.weight))))
        return one_to_many_contrast(embeddings, self.temperature)

    def loss(self, views: Sequence[Tensor], *, generator: torch.Generator | None = None) -> Tensor:
        """Loss of V encodings ``(B, D)`` of the same sentences, with fresh shuffles.

        Args:
            views: V tensors ``(B, D)`` from `dropout_views`.
            generator: of the shuffles.

        Returns:
            Scalar.
        """
        _check_views("views", views, self.head.in_features)
        return self.terms(views, draw_shuffles(len(views), self.head.in_features, generator=generator)).sum()

    def forward(self, views: Sequence[Tensor], *, generator: torch.Generator | None = None) -> Tensor:
        """The loss."""
        return self.loss(views, generator=generator)


def _check_views(name: str, views: Sequence[Tensor], width: int | str = "d") -> None:
    check_type((list, tuple), **{name: views})
    check_batch(len(views), 2, name=name, why="(an anchor and a positive)")
    check_shapes(**{f"{name}[{v}]": (view, f"B {width}") for v, view in enumerate(views)})


def _check_divisor(groups: int, dim: int, name: str = "groups") -> None:
    if dim % groups:
        raise ValueError(f"{name}: expected a divisor of the {dim} channels, got {groups}")


def _check_permutation(name: str, order: Tensor | None, dim: int) -> Tensor:
    if order is None:
        return torch.arange(dim)
    check_shapes(**{name: (order, f"{dim}", int)})
    if not torch.compiler.is_compiling() and not torch.equal(order.long().sort().values.cpu(), torch.arange(dim)):
        raise ValueError(f"{name}: expected a permutation of {dim} channels, got {order.tolist()[:8]}")
    return order.long()


def _check_symmetric(matrix: Tensor) -> None:
    scale = matrix.abs().amax((1, 2), keepdim=True)
    if scale.max() > LARGEST**2 or ((matrix - matrix.mT).abs() > 1e-3 * scale).any():
        raise ValueError("matrix: expected symmetric matrices of entries up to 1e30, got another one")
