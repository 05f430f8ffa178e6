r"""Rethinking Positive Pairs in Contrastive Learning (first called Hydra, later SimLAP). Jiantao Wu, Sara Atito,
Zhenhua Feng, Shentong Mo, Josef Kittler, Muhammad Awais; 2024; https://arxiv.org/abs/2410.18200.

Any two samples may form a positive pair, also of unrelated classes. Anchor i has the class :math:`y_i` and a partner
class :math:`y'_i`. A gate opens the dimensions in which the two classes are to agree, and similarity is measured there:

.. math::
    g_i = \sigma\Big(\mathrm{MLP}\big(\tfrac12(E_{y_i}+E_{y'_i})\big)\Big) \in (0,1)^k, \qquad
    s_{ij} = \frac1\tau\cos(g_i\odot z_i,\; g_i\odot z_j).

Positives are all samples of the partner class, negatives are all samples of neither class:

.. math::
    L = \frac{1}{\sum_{ij}P_{ij}}\sum_{ij}P_{ij}\Big[-s_{ij}+\log\big(e^{s_{ij}}+\sum_k N_{ik}e^{s_{ik}}\big)\Big],
    \qquad P_{ij}=[y_j=y'_i],\quad N_{ij}=[y_j\ne y_i]\,[y_j\ne y'_i].

What changes and why: in the full space, pulling two arbitrary classes together pulls all classes together, and nothing
can be learned. In a subspace of its own each pair of classes can agree and still differ from the rest. The encoder and
the gates are trained together. Labels are required.

Paper versus code. The formulas follow the authors' released code, the text of the paper was not at hand. (1) The code
has three forms. ``gated_cosine`` gates first and normalizes then; it is what the abstract describes. In
``gated_product`` the length is fixed before the gate, so a small gate also flattens the logits. With two views the keys
come from the second one and ``average="anchor"`` first averages over the positives of an anchor. (2) Without any
positive in the batch the code divides 0 by 0; the loss is 0 here. (3) The code subtracts the mean of a row before the
exponential, which overflows at low temperatures; here it is a log-sum-exp. (4) Samples of the anchor's class are
ignored, the anchor too, except where the partner class is the same: then the anchor is its own positive. (5) The gate's
batch normalization sees the pairs of the batch; a gate during training depends on the other pairs. (6) A penalty that
drives gates to 0 or 1 is not in the code and not here. (7) The code trains a linear classifier on detached features
beside the loss; it only monitors.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.checks import (
    check_batch,
    check_choice,
    check_embeddings,
    check_in_range,
    check_labels,
    check_positive,
    check_same_shape,
    check_square,
)
from ..core.similarity import normalize

__all__ = ["ClassPairGate", "Hydra", "draw_partners", "gated_cosine", "gated_product", "pair_contrast", "pair_masks"]


def draw_partners(
    labels: Tensor, num_classes: int, kind: str = "arbitrary", *, generator: torch.Generator | None = None
) -> Tensor:
    """Draw a partner class for every anchor.

    Args:
        labels: ``(N,)`` integer classes.
        num_classes: number of classes.
        kind: ``"arbitrary"`` shuffles the labels of the batch, ``"identical"`` keeps the class, ``"distinct"`` draws
            one of the other classes (the batch may hold no sample of it).
        generator: source of randomness, on the device of ``labels``.

    Returns:
        ``(N,)`` integer classes.

    Raises:
        TypeError: ``labels`` not integer.
        ValueError: a label out of range, an unknown kind, or ``"distinct"`` with a single class.
    """
    check_labels(labels, len(labels), num_classes=num_classes)
    check_choice(("arbitrary", "identical", "distinct"), kind=kind)
    if kind == "identical":
        return labels.clone()
    if kind == "arbitrary":
        return labels[torch.randperm(len(labels), generator=generator, device=labels.device)]
    if num_classes < 2:
        raise ValueError(f"num_classes: distinct partners need at least 2, got {num_classes}")
    shift = torch.randint(1, num_classes, labels.shape, generator=generator, device=labels.device)
    return (labels + shift) % num_classes


def pair_masks(labels: Tensor, partners: Tensor) -> tuple[Tensor, Tensor]:
    """Who is a positive and who a negative of each anchor; the anchor's own class is otherwise left out.

    Args:
        labels: ``(N,)`` integer classes.
        partners: ``(N,)`` partner class of each anchor; a class that the batch does not hold is allowed.

    Returns:
        Positives and negatives, both ``(N, N)`` boolean.

    Raises:
        TypeError: not integer tensors.
        ValueError: shapes differ or a label is negative.
    """
    check_labels(labels, len(labels))
    check_labels(partners, len(labels), name="partners")
    positives = partners[:, None] == labels[None, :]  # (N, N)
    return positives, ~positives & (labels[:, None] != labels[None, :])


def gated_cosine(z: Tensor, gate: Tensor) -> Tensor:
    r"""Cosines in the subspace of each anchor: gate, then normalize.

    With :math:`w_i = g_i^2` the product is :math:`(w_i\odot z_i)\cdot z_j` and the squared length of a gated key is
    :math:`w_i\cdot z_j^2`: two matrix products, no ``(N, N, k)`` tensor.

    Args:
        z: ``(N, k)`` embeddings, any scale; each is anchor and key.
        gate: ``(N, k)`` gates of the anchors, at least 0.

    Returns:
        ``(N, N)`` similarities; row i uses gate i. Where a gated vector is zero the similarity is 0.

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes differ, NaN.
    """
    check_embeddings(z=z, gate=gate)
    check_same_shape(z=z, gate=gate)
    z = normalize(z)  # changes no cosine; keeps the squares in range
    w = normalize(gate).square()
    lengths = w @ z.square().mT  # (N, N) squared length of key j in subspace i
    scale = torch.where(lengths > 1e-24, lengths, torch.ones_like(lengths)).rsqrt()
    return (w * z) @ z.mT * scale * scale.diagonal()[:, None]


def gated_product(z: Tensor, gate: Tensor, keys: Tensor | None = None) -> Tensor:
    """The later form of the code: normalize, then gate both sides, without normalizing again.

    Args:
        z: ``(N, k)`` anchors, any scale.
        gate: ``(N, k)`` gates of the anchors.
        keys: ``(N, k)`` embeddings of a second view, or None: then the anchors.

    Returns:
        ``(N, N)`` similarities.

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes differ, NaN.
    """
    keys = z if keys is None else keys
    check_embeddings(z=z, gate=gate, keys=keys)
    check_same_shape(z=z, gate=gate, keys=keys)
    return (normalize(z) * gate.square()) @ normalize(keys).mT


def pair_contrast(
    similarity: Tensor, labels: Tensor, partners: Tensor, temperature: float | Tensor = 0.1, *, average: str = "pair"
) -> Tensor:
    """Each positive alone against all negatives of its anchor.

    Args:
        similarity: ``(N, N)``, anchors in rows.
        labels: ``(N,)`` integer classes, of anchors and of keys.
        partners: ``(N,)`` partner class of each anchor.
        temperature: greater than 0.
        average: ``"pair"`` over all positive pairs of the batch, or ``"anchor"``: over the positives of an anchor, then
            over all N anchors, where one without positives counts as 0 (its count gets 1e-6 added, as in the code).

    Returns:
        Scalar; 0 without any positive.

    Raises:
        TypeError: wrong dtype.
        ValueError: shapes do not fit, NaN, temperature not positive.

    Source: Wu et al. (2024), the objective as in the released code.
    """
    check_square(similarity=similarity)
    check_labels(labels, len(similarity))
    check_positive(temperature=temperature)
    check_choice(("pair", "anchor"), average=average)
    positives, negatives = pair_masks(labels, partners)
    logits = similarity / temperature
    others = logits.masked_fill(~negatives, -torch.inf).logsumexp(1, keepdim=True)  # (N, 1)
    # log(e^s + e^others) - s; without negatives others is minus infinity and the term is 0
    terms = F.softplus(others - logits, threshold=40).masked_fill(~positives, 0.0)  # (N, N)
    if average == "pair":
        return terms.sum() / positives.sum().clamp_min(1)
    return (terms.sum(1) / (positives.sum(1) + 1e-6)).mean()


class ClassPairGate(nn.Module):
    """From two classes to the gate of their subspace, symmetric in the classes.

    Batch normalization uses the pairs of the batch in training mode and running statistics in evaluation mode.
    """

    def __init__(
        self, num_classes: int, width: int, *, embedding_dim: int = 64, hidden: int = 128, fuse: bool = True
    ) -> None:
        """Make the table of class embeddings and the small network.

        Args:
            num_classes: number of classes.
            width: number of dimensions to gate.
            embedding_dim: size of a class embedding (512 in the code).
            hidden: width of the hidden layer (1024 in the code).
            fuse: whether to average the two embeddings; otherwise the gates of the two classes are multiplied.

        Raises:
            ValueError: a size not positive.
        """
        super().__init__()
        check_positive(num_classes=num_classes, width=width, embedding_dim=embedding_dim, hidden=hidden)
        self.fuse = fuse
        self.embedding = nn.Embedding(num_classes, embedding_dim)
        self.first = nn.Linear(embedding_dim, hidden)
        self.second = nn.Linear(hidden, width)
        self.norms = nn.ModuleList([nn.BatchNorm1d(embedding_dim), nn.BatchNorm1d(hidden)])

    def forward(self, labels: Tensor, partners: Tensor) -> Tensor:
        """Gates of class pairs.

        Args:
            labels: ``(N,)`` integer classes.
            partners: ``(N,)`` integer classes.

        Returns:
            ``(N, width)`` in (0, 1).

        Raises:
            TypeError: not integer tensors.
            ValueError: shapes differ, a class out of range, or a single pair in training mode.
        """
        classes = self.embedding.num_embeddings
        check_labels(labels, len(labels), num_classes=classes)
        check_labels(partners, len(labels), name="partners", num_classes=classes)
        if self.training:
            check_batch(len(labels), 2, name="labels", why="for the batch statistics of the gate")
        a, b = self.embedding(labels), self.embedding(partners)  # (N, e)
        return self._gate((a + b) / 2) if self.fuse else self._gate(a) * self._gate(b)

    def _gate(self, e: Tensor) -> Tensor:
        h = self.first(self.norms[0](e.relu()))  # (N, h)
        return self.second(self.norms[1](h.relu())).sigmoid()


class Hydra(nn.Module):
    """The whole method: backbone, projector, gates and a monitoring classifier, trained with one optimizer.

    A step is ``loss = hydra(images, labels, draw_partners(labels, classes))``. Only ``backbone`` is kept afterwards.
    Several augmented views of an image enter as ordinary samples of its class.
    """

    def __init__(
        self,
        backbone: nn.Module,
        feature_dim: int,
        num_classes: int,
        *,
        width: int = 32,
        hidden: int = 64,
        temperature: float = 0.1,
        gating: bool = True,
    ) -> None:
        """Put projector, gates and classifier on a backbone.

        Args:
            backbone: maps a batch to ``(N, feature_dim)`` features.
            feature_dim: width of the features.
            num_classes: number of classes.
            width: dimensions of the embeddings and of the gates (256 in the code).
            hidden: hidden width of the projector (2048 in the code).
            temperature: of the contrast.
            gating: False leaves all gates open, to compare with.

        Raises:
            ValueError: a size or the temperature not positive.
        """
        super().__init__()
        check_positive(feature_dim=feature_dim, width=width, hidden=hidden, temperature=temperature)
        check_in_range(2, float("inf"), num_classes=num_classes)
        self.backbone, self.temperature = backbone, temperature
        self.projector = nn.Sequential(
            nn.Linear(feature_dim, hidden), nn.ReLU(), nn.Linear(hidden, width), nn.LayerNorm(width)
        )
        self.gate = ClassPairGate(num_classes, width) if gating else None
        self.probe = nn.Linear(feature_dim, num_classes)

    def contrast(self, x: Tensor, labels: Tensor, partners: Tensor) -> tuple[Tensor, Tensor]:
        """The contrastive loss (scalar) and the ``(N, feature_dim)`` features behind it."""
        features = self.backbone(x)
        z = self.projector(features)  # (N, k)
        gate = torch.ones_like(z) if self.gate is None else self.gate(labels, partners)
        return pair_contrast(gated_cosine(z, gate), labels, partners, self.temperature), features

    def forward(self, x: Tensor, labels: Tensor, partners: Tensor) -> Tensor:
        """Contrastive loss plus the cross-entropy of the classifier on detached features.

        Args:
            x: a batch that the backbone takes, N samples.
            labels: ``(N,)`` integer classes.
            partners: ``(N,)`` partner classes, see `draw_partners`.

        Returns:
            Scalar.

        Raises:
            TypeError: wrong dtype.
            ValueError: shapes do not fit, a class out of range.
        """
        loss, features = self.contrast(x, labels, partners)
        return loss + F.cross_entropy(self.probe(features.detach()), labels)
