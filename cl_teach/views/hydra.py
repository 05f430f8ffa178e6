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
has three forms, and `Hydra` takes each. ``"cosine"`` gates first and normalizes then; it is what the abstract
describes. In ``"product"`` the length is fixed before the gate, so a small gate also flattens the logits. In
``"two_view"`` the product's keys come from a second view, and the mean is first over the positives of an anchor; the
code learns the scale of this form (and offers a further cosine term, which is left out). (2) Without any positive in
the batch the code divides 0 by 0; the loss is 0 here. (3) The code subtracts the mean of a row before the exponential,
which overflows at low temperatures; here it is a log-sum-exp. (4) Samples of the anchor's class are ignored, the anchor
too, except where the partner class is the same: then the anchor is its own positive. (5) The gate's batch normalization
sees the pairs of the batch; a gate during training depends on the other pairs. (6) A penalty that drives gates to 0 or
1 is not in the code and not here. (7) The code trains a linear classifier on detached features beside the loss; it only
monitors.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.checks import (
    check_choice,
    check_count,
    check_entries,
    check_flag,
    check_generator,
    check_labels,
    check_module,
    check_same_length,
    check_shapes,
)
from ..core.contrast import check_scale, check_temperature
from ..core.precision import full_precision
from ..core.similarity import normalize
from ..models.apply import apply_network
from ..models.class_pair_gate import ClassPairGate

__all__ = [
    "Hydra",
    "HydraTerms",
    "draw_partners",
    "gated_cosine",
    "gated_product",
    "pair_masks",
    "partner_contrast",
]

KINDS = ("arbitrary", "identical", "distinct")
FORMS = ("cosine", "product", "two_view")
SHORTEST = 1e-24  # squared length of a gated vector that has no direction any more
COUNT_EPS = 1e-6  # the code adds it to the number of an anchor's positives


def draw_partners(
    labels: Tensor, num_classes: int, kind: str = "arbitrary", *, generator: torch.Generator | None = None
) -> Tensor:
    """Draw a partner class for every anchor.

    Args:
        labels: ``(N,)`` integer classes.
        num_classes: number of classes.
        kind: ``"arbitrary"`` shuffles the labels of the batch, ``"identical"`` keeps the class, ``"distinct"`` draws
            one of the other classes (the batch may hold no sample of it).
        generator: source of randomness.

    Returns:
        ``(N,)`` integer classes.
    """
    check_shapes(labels=(labels, "n", int))
    check_count(num_classes=num_classes)
    labels = check_labels(labels, num_classes=num_classes)
    check_choice(KINDS, kind=kind)
    check_generator(generator)
    where = labels.device if generator is None else generator.device
    if kind == "identical":
        return labels.clone()
    if kind == "arbitrary":
        return labels[torch.randperm(len(labels), generator=generator, device=where).to(labels.device)]
    if num_classes < 2:
        raise ValueError(f"num_classes: distinct partners need at least 2, got {num_classes}")
    shift = torch.randint(1, num_classes, labels.shape, generator=generator, device=where).to(labels.device)
    return (labels + shift) % num_classes


def pair_masks(labels: Tensor, partners: Tensor) -> tuple[Tensor, Tensor]:
    """Who is a positive and who a negative of each anchor; the anchor's own class is otherwise left out.

    Args:
        labels: ``(N,)`` integer classes.
        partners: ``(N,)`` partner class of each anchor; a class that the batch does not hold is allowed.

    Returns:
        Positives and negatives, both ``(N, N)`` boolean.
    """
    check_shapes(labels=(labels, "n", int), partners=(partners, "n", int))
    labels, partners = check_labels(labels), check_labels(partners, name="partners")
    positives = partners[:, None] == labels[None, :]  # (N, N)
    return positives, ~positives & (labels[:, None] != labels[None, :])


@full_precision
def gated_cosine(z: Tensor, gate: Tensor) -> Tensor:
    r"""Cosines in the subspace of each anchor: gate, then normalize.

    With :math:`w_i = g_i^2` the product is :math:`(w_i\odot z_i)\cdot z_j` and the squared length of a gated key is
    :math:`w_i\cdot z_j^2`: two matrix products, no ``(N, N, k)`` tensor.

    Args:
        z: ``(N, k)`` embeddings, any scale; each is anchor and key.
        gate: ``(N, k)`` gates of the anchors, at least 0.

    Returns:
        ``(N, N)`` similarities; row i uses gate i. Where a gated vector is zero the similarity is 0.

    Example:
        >>> z = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
        >>> gated_cosine(z, torch.tensor([[0.0, 0.0, 1.0]]).repeat(2, 1)).round(decimals=3).tolist()
        [[1.0, 1.0], [1.0, 1.0]]
    """
    check_shapes(z=(z, "n k"), gate=(gate, "n k"))
    check_entries(0, math.inf, gate=gate)
    z = normalize(z)  # changes no cosine; keeps the squares in range
    w = normalize(gate).square()
    lengths = w @ z.square().mT  # (N, N) squared length of key j in subspace i
    scale = torch.where(lengths > SHORTEST, lengths, torch.ones_like(lengths)).rsqrt()
    return (w * z) @ z.mT * scale * scale.diagonal()[:, None]


@full_precision
def gated_product(z: Tensor, gate: Tensor, keys: Tensor | None = None) -> Tensor:
    """The later form of the code: normalize, then gate both sides, without normalizing again.

    Args:
        z: ``(N, k)`` anchors, any scale.
        gate: ``(N, k)`` gates of the anchors, in [0, 1].
        keys: ``(N, k)`` embeddings of a second view, or None: then the anchors.

    Returns:
        ``(N, N)`` similarities.
    """
    check_shapes(z=(z, "n k"), gate=(gate, "n k"), keys=(keys, "n k?"))
    check_entries(0, 1, gate=gate)
    return (normalize(z) * gate.square()) @ normalize(z if keys is None else keys).mT


@full_precision
def partner_contrast(
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

    Source: Wu et al. (2024), the objective as in the released code.
    """
    check_shapes(similarity=(similarity, "n n"), labels=(labels, "n", int), partners=(partners, "n", int))
    check_temperature(temperature)
    check_choice(("pair", "anchor"), average=average)
    positives, negatives = pair_masks(labels, partners)
    logits = similarity / temperature
    others = logits.masked_fill(~negatives, -math.inf).logsumexp(1, keepdim=True)  # (N, 1)
    # log(e^s + e^others) - s; without negatives others is minus infinity and the term is 0
    terms = F.softplus(others - logits, threshold=40).masked_fill(~positives, 0.0)  # (N, N)
    if average == "pair":
        return terms.sum() / positives.sum().clamp_min(1)
    return (terms.sum(1) / (positives.sum(1) + COUNT_EPS)).mean()


class HydraTerms(NamedTuple):
    """What is minimized, and its parts: the contrast, and the cross-entropy of the monitoring classifier; scalars."""

    loss: Tensor
    contrast: Tensor
    classifier: Tensor


class Hydra(nn.Module):
    """The whole method: backbone, projector, gates and a monitoring classifier, trained with one optimizer.

    Only ``backbone`` is kept afterwards. Several augmented views of an image enter as ordinary samples of its class.

    Example:
        >>> hydra, labels = Hydra(nn.Linear(8, 16), 16, 3), torch.tensor([0, 1, 2, 0, 1, 2])
        >>> hydra.loss(torch.rand(6, 8), labels)._fields
        ('loss', 'contrast', 'classifier')
        >>> hydra(torch.rand(6, 8), labels, labels.roll(1)).shape  # embeddings in the subspace of two classes
        torch.Size([6, 32])
    """

    def __init__(
        self,
        backbone: nn.Module,
        feature_dim: int,
        num_classes: int,
        *,
        width: int = 32,
        hidden: int = 64,
        embedding_dim: int = 64,
        gate_hidden: int = 128,
        fuse: bool = True,
        temperature: float = 0.1,
        kind: str = "arbitrary",
        form: str = "cosine",
        learned_scale: bool = False,
        gating: bool = True,
    ) -> None:
        """Put projector, gates and classifier on a backbone.

        Args:
            backbone: maps a batch to ``(N, feature_dim)`` features.
            feature_dim: width of the features.
            num_classes: number of classes.
            width: dimensions of the embeddings and of the gates (256 in the code).
            hidden: hidden width of the projector (2048 in the code).
            embedding_dim: of a class in the table of the gates (512 in the code).
            gate_hidden: hidden width of the gates (1024 in the code).
            fuse: see `ClassPairGate`.
            temperature: of the contrast; where the scale is learned, it starts at one over it.
            kind: of the partner classes, see `draw_partners`.
            form: ``"cosine"``, ``"product"`` or ``"two_view"``, see the top of this file.
            learned_scale: whether the scale is trained, as in the code's ``"two_view"``.
            gating: False leaves all gates open, to compare with.
        """
        super().__init__()
        check_module(backbone=backbone)
        check_count(feature_dim=feature_dim, width=width, hidden=hidden, gate_hidden=gate_hidden)
        check_count(2, num_classes=num_classes)
        check_temperature(temperature)
        check_choice(KINDS, kind=kind)
        check_choice(FORMS, form=form)
        check_flag(learned_scale=learned_scale, gating=gating)
        self.backbone, self.feature_dim, self.num_classes = backbone, feature_dim, num_classes
        self.kind, self.form, self.width = kind, form, width
        self.projector = nn.Sequential(
            nn.Linear(feature_dim, hidden), nn.ReLU(), nn.Linear(hidden, width), nn.LayerNorm(width)
        )
        gate = ClassPairGate(num_classes, width, embedding_dim=embedding_dim, hidden=gate_hidden, fuse=fuse)
        self.gate = gate if gating else None
        self.probe = nn.Linear(feature_dim, num_classes)
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)), requires_grad=learned_scale)

    def forward(self, x: Tensor, labels: Tensor, partners: Tensor) -> Tensor:
        """Embeddings ``(N, width)`` of a batch x as they are compared: each in the subspace of its two classes."""
        gate = self._open(x, labels, partners)
        return gate * self._embed(x, "x")

    def loss(
        self, x: Tensor, labels: Tensor, second: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> HydraTerms:
        """Partner classes are drawn and the samples compared.

        Args:
            x: a batch that the backbone takes, N samples.
            labels: ``(N,)`` integer classes.
            second: another view of the same samples, for ``"two_view"`` only.
            generator: of the partner classes.
        """
        check_same_length(x=x, labels=labels)
        partners = draw_partners(labels, self.num_classes, self.kind, generator=generator)
        return self.compare(x, labels, partners, second)

    def compare(self, x: Tensor, labels: Tensor, partners: Tensor, second: Tensor | None = None) -> HydraTerms:
        """The losses for given partner classes, ``(N,)``; otherwise as `loss`."""
        if (second is not None) != (self.form == "two_view"):
            wanted = "a second view of the samples" if self.form == "two_view" else "None"
            raise ValueError(f"second: form={self.form!r} takes {wanted}, got {type(second).__name__}")
        gate = self._open(x, labels, partners)
        if second is not None:
            check_shapes(second=(second, "... k"))
            check_same_length(x=x, second=second)
        features = self._features(x, "x")
        z = self.projector(features)  # (N, k)
        if self.form == "cosine":
            similarity = gated_cosine(z, gate)
        else:
            similarity = gated_product(z, gate, None if second is None else self._embed(second, "second"))
        check_scale(self.log_scale)
        temperature = (-self.log_scale).exp()
        average = "anchor" if self.form == "two_view" else "pair"
        contrast = partner_contrast(similarity, labels, partners, temperature, average=average)
        classifier = F.cross_entropy(self.probe(features.detach()).float(), check_labels(labels))
        return HydraTerms(contrast + classifier, contrast, classifier)

    def _features(self, x: Tensor, name: str) -> Tensor:
        features = apply_network(self.backbone, "n d", **{name: x})
        if features.shape[1] != self.feature_dim:
            raise ValueError(
                f"{name}: the backbone was to give feature_dim={self.feature_dim} features, "
                f"it gives {features.shape[1]}"
            )
        return features

    def _embed(self, x: Tensor, name: str) -> Tensor:
        return self.projector(self._features(x, name))

    def _open(self, x: Tensor, labels: Tensor, partners: Tensor) -> Tensor:
        """The gates ``(N, k)``."""
        check_shapes(x=(x, "... k"), labels=(labels, "n", int), partners=(partners, "n", int))
        check_same_length(x=x, labels=labels)
        labels = check_labels(labels, num_classes=self.num_classes)
        partners = check_labels(partners, name="partners", num_classes=self.num_classes)
        if self.gate is None:
            return torch.ones(len(x), self.width, device=x.device)
        return self.gate(labels, partners)
