r"""Meta-optimized Contrastive Learning for Sequential Recommendation. Xiuyuan Qin, Huanhuan Yuan, Pengpeng Zhao, Junhua
Fang, Fuzhen Zhuang, Guanfeng Liu, Yanchi Liu, Victor S. Sheng; SIGIR 2023; https://arxiv.org/abs/2304.07763.

Two random augmentations of a user's item sequence are encoded to :math:`h^1, h^2`; two small learned networks, the
augmenters, turn them into :math:`z^a = \mathrm{norm}(w_a(h^a))`. With the inner-product NT-Xent :math:`L_{con}`,

.. math::
    L_{cl1} = L_{con}(h^1,h^2;\tau), \quad L_{cl2} = L_{con}(z^1,z^2) + L_{con}(h^1,z^2) + L_{con}(h^2,z^1), \quad
    R = \overline{[\sigma^+ - o_{min}]_+} + \overline{[o_{max} - \sigma^-]_+},

where :math:`\sigma^+, \sigma^-` are positive and negative scores, :math:`o_{min}` and :math:`o_{max}` the smaller and
the larger of the smallest positive and the largest negative score.

.. math:: \text{encoder:}\ L_{rec} + \lambda L_{cl1} + \beta L_{cl2} + \gamma R, \qquad
          \text{augmenters:}\ L_{cl2} + \gamma R .

What changes and why: which hand-made augmentation helps differs from data set to data set, and many pairs say little.
Learned augmenters give four views a user without a larger batch. They are trained in turns with the encoder, each for
the other's last state, and R pulls easy positives down and negatives up, so that they do not become trivially alike.

Paper versus code. (1) R takes minimum and maximum over the batch in the paper and row by row in the code, which made
the published numbers; ``scope`` has both, rows by default. (2) The paper has R of :math:`(z^1,z^2)` only; the code adds
those of :math:`(h^1,z^2)` and :math:`(h^2,z^1)`, times 0.1, inside the factor :math:`\beta`. `mclrec_terms` gives all
three, and `MCLRec` follows the code. (3) R's scores are divided by the temperature, those of :math:`L_{cl2}` never. (4)
The paper sums the two directions of :math:`L_{con}`, the code averages all 2B rows; here the mean. (5) "Meta" means
turns: the code steps encoder, augmenters, encoder, each by plain gradients, no gradient passes through another step.
(6) h is not normalized, so its norm acts as a temperature. (7) The code divides z by its norm without an epsilon; here
a zero output stays zero. (8) Here one encoder layer of width 32 and ids of short sequences, pads on the left; masks and
shuffled spans are drawn per sequence.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.checks import (
    check_batch,
    check_choice,
    check_count,
    check_flag,
    check_in_range,
    check_labels,
    check_positive,
    check_shapes,
    check_type,
    finite_result,
)
from ..core.contrast import REDUCTIONS, check_temperature, reduce
from ..core.frozen import evaluating
from ..core.precision import full_precision
from ..core.similarity import normalize, other_view_mask, self_mask
from ..models.item_sequences import SequenceEncoder, augment_sequences, check_sequences

__all__ = [
    "Augmenter",
    "MCLRec",
    "MCLRecTerms",
    "inner_product_nt_xent",
    "margin_regularizer",
    "mclrec_terms",
]

SCOPES = ("row", "batch")
LARGEST = 1e15


class MCLRecTerms(NamedTuple):
    """The contrastive terms, scalars.

    Attributes:
        plain: of the two encoded views, at the temperature.
        learned: the three terms with learned views, at temperature 1.
        margins: regularizer of (h1, z2), (h2, z1) and (z1, z2).
    """

    plain: Tensor
    learned: Tensor
    margins: tuple[Tensor, Tensor, Tensor]

    def augmenter_loss(self, weight: float = 0.1) -> Tensor:
        """What the augmenters minimize: the learned terms and ``weight`` times the sum of the margins."""
        check_in_range(0, LARGEST, weight=weight)
        return self.learned + weight * torch.stack(self.margins).sum()


@full_precision
def inner_product_nt_xent(x: Tensor, y: Tensor, temperature: float = 1.0, *, reduction: str = "mean") -> Tensor:
    """NT-Xent of two views with inner products; nothing is normalized.

    Args:
        x: ``(B, d)`` first views.
        y: ``(B, d)`` second views.
        temperature: greater than 0.
        reduction: over the 2B rows.

    Returns:
        Scalar, or ``(2B,)`` with ``reduction="none"``.
    """
    scores = _scores(x, y, temperature)
    check_choice(REDUCTIONS, reduction=reduction)
    positives = scores.diagonal(len(x)).repeat(2)  # (2B,)
    others = scores.masked_fill(self_mask(len(scores), x.device), -math.inf)
    return reduce(others.logsumexp(1) - positives, reduction)


@full_precision
def margin_regularizer(x: Tensor, y: Tensor, temperature: float = 1.0, *, scope: str = "row") -> Tensor:
    """How far positives lie above, and negatives below, the margin between both.

    Args:
        x: ``(B, d)`` first views, as they are.
        y: ``(B, d)`` second views.
        temperature: divides the scores; greater than 0.
        scope: the margin of each ``"row"`` (released code) or of the whole ``"batch"`` (paper).

    Returns:
        Scalar, at least 0.

    Example:
        >>> x = 3 * torch.eye(4)  # positives 9, all negatives 0: a margin of 9, seen from both sides
        >>> margin_regularizer(x, x).item()
        18.0
    """
    check_choice(SCOPES, scope=scope)
    scores, b = _scores(x, y, temperature), len(x)
    no_negative = other_view_mask(b, x.device) | self_mask(2 * b, x.device)
    positives = scores.diagonal(b).repeat(2)[:, None]  # (2B, 1)
    largest = scores.masked_fill(no_negative, -math.inf).amax(1, keepdim=True)  # (2B, 1), of the negatives
    smallest = positives  # a row has one positive
    if scope == "batch":
        smallest, largest = positives.amin(), largest.amax()
    low, high = torch.minimum(smallest, largest), torch.maximum(smallest, largest)
    above = (high - scores).relu().masked_fill(no_negative, 0.0).sum() / (2 * b * (2 * b - 2))
    return finite_result((positives - low).relu().mean() + above, x=x, y=y)


@full_precision
def mclrec_terms(
    h1: Tensor, h2: Tensor, z1: Tensor, z2: Tensor, temperature: float = 1.0, *, scope: str = "row"
) -> MCLRecTerms:
    """All contrastive terms of two encoded and two learned views.

    Args:
        h1: ``(B, d)`` encoded first views, not normalized.
        h2: ``(B, d)`` encoded second views.
        z1: ``(B, d)`` unit learned views of ``h1``.
        z2: ``(B, d)`` of ``h2``.
        temperature: of the plain term and of the margins.
        scope: as in `margin_regularizer`.
    """
    named = {"h1": h1, "h2": h2, "z1": z1, "z2": z2}
    check_shapes(**{name: (x, "B d") for name, x in named.items()})
    check_batch(len(h1), 2, name="h1", why="to have a negative")
    for name, x in named.items():
        finite_result(x.square().sum(1), **{name: x})  # no inner product is larger than the largest square
    check_temperature(temperature)
    plain = inner_product_nt_xent(h1, h2, temperature)
    pairs = ((h1, z2), (h2, z1), (z1, z2))
    learned = torch.stack([inner_product_nt_xent(x, y) for x, y in pairs]).sum()
    first, second, third = (margin_regularizer(x, y, temperature, scope=scope) for x, y in pairs)
    return MCLRecTerms(plain, learned, (first, second, third))


class Augmenter(nn.Module):
    """A learned view: three linear layers with GELU between them, ``(B, d)`` to unit rows ``(B, d)``."""

    def __init__(self, dim: int, hidden: Sequence[int] = (32, 16)) -> None:
        """Make the layers d, ``hidden[0]``, ``hidden[1]``, d."""
        super().__init__()
        _check_hidden(hidden)
        check_count(dim=dim)
        self.first = nn.Linear(dim, hidden[0])
        self.second = nn.Linear(hidden[0], hidden[1])
        self.third = nn.Linear(hidden[1], dim)

    def forward(self, h: Tensor) -> Tensor:
        """Unit rows."""
        check_shapes(h=(h, f"B {self.first.in_features}"))
        return normalize(self.third(F.gelu(self.second(F.gelu(self.first(h.to(self.first.weight)))))))


class MCLRec(nn.Module):
    """Encoder and augmenters trained in turns, each with an optimizer of its own; a call encodes sequences.

    The loop is its own, because two optimizers take turns: ``step((sequences, targets))``. ``loss`` trains both at
    once (the paper's joint ablation, MCLRec-J). State: encoder, augmenters and both optimizers.
    """

    def __init__(
        self,
        encoder: SequenceEncoder,
        hidden: Sequence[int] = (32, 16),
        *,
        temperature: float = 1.0,
        plain_weight: float = 0.04,
        learned_weight: float = 0.4,
        margin_weight: float = 0.1,
        scope: str = "row",
        learning_rate: float = 1e-3,
    ) -> None:
        r"""Make the augmenters and both optimizers.

        Args:
            encoder: of item sequences.
            hidden: inner widths of the augmenters.
            temperature: of the plain contrast and of the margins.
            plain_weight: :math:`\lambda`.
            learned_weight: :math:`\beta`.
            margin_weight: of the regularizer, inside :math:`\beta` as in the code.
            scope: of the regularizer's margin, see `margin_regularizer`.
            learning_rate: of both Adam optimizers.
        """
        super().__init__()
        check_type(SequenceEncoder, encoder=encoder)
        check_positive(learning_rate=learning_rate)
        check_temperature(temperature)
        check_choice(SCOPES, scope=scope)
        weights = {"plain_weight": plain_weight, "learned_weight": learned_weight, "margin_weight": margin_weight}
        check_in_range(0, math.inf, **weights)
        self.temperature, self.scope, self.plain_weight = temperature, scope, plain_weight
        self.learned_weight, self.margin_weight = learned_weight, margin_weight
        self.encoder = encoder
        self.augmenters = nn.ModuleList(Augmenter(encoder.items.embedding_dim, hidden) for _ in range(2))
        self.encoder_optimizer = torch.optim.Adam(self.encoder.parameters(), lr=learning_rate)
        self.augmenter_optimizer = torch.optim.Adam(self.augmenters.parameters(), lr=learning_rate)

    def get_extra_state(self) -> dict[str, Any]:
        """What both optimizers remember."""
        pair = {"encoder": self.encoder_optimizer, "augmenters": self.augmenter_optimizer}
        return {name: copy.deepcopy(optimizer.state_dict()) for name, optimizer in pair.items()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on with what they remembered."""
        self.encoder_optimizer.load_state_dict(copy.deepcopy(state["encoder"]))
        self.augmenter_optimizer.load_state_dict(copy.deepcopy(state["augmenters"]))

    def forward(self, sequences: Tensor) -> Tensor:
        """Encoded users ``(B, d)``, not normalized."""
        return self.encoder(sequences)

    def terms(self, views: Sequence[Tensor]) -> MCLRecTerms:
        """Contrastive terms of two augmented ``(B, T)`` copies of a batch."""
        check_type((list, tuple), views=views)
        if len(views) != 2:
            raise ValueError(f"views: expected two augmented copies, got {len(views)}")
        check_shapes(**{f"views[{i}]": (view, "B T", int) for i, view in enumerate(views)})
        first, second = (self._known(view, f"views[{i}]") for i, view in enumerate(views))
        return self._contrast(self.encoder(first), self.encoder(second))

    def _contrast(self, h1: Tensor, h2: Tensor) -> MCLRecTerms:
        return mclrec_terms(h1, h2, self.augmenters[0](h1), self.augmenters[1](h2), self.temperature, scope=self.scope)

    def encoder_loss(self, sequences: Tensor, targets: Tensor, views: Sequence[Tensor]) -> Tensor:
        """Next item among all items, plus both contrasts; targets are items from 1 on."""
        check_shapes(sequences=(sequences, "B T", int), targets=(targets, "B", int))
        targets = self._items(targets, "targets")
        terms = self.terms(views)
        recommendation = F.cross_entropy(self._logits(sequences).to(terms.plain), targets - 1)
        learned = terms.augmenter_loss(self.margin_weight)
        return recommendation + self.plain_weight * terms.plain + self.learned_weight * learned

    def loss(self, sequences: Tensor, targets: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """The encoder's loss with two fresh augmentations; its gradient trains encoder and augmenters at once."""
        check_shapes(sequences=(sequences, "B T", int), targets=(targets, "B", int))
        sequences = self._known(sequences, "sequences")
        views = [augment_sequences(sequences, generator=generator) for _ in range(2)]
        return self.encoder_loss(sequences, targets, views)

    def step(
        self, batch: tuple[Tensor, Tensor], *, joint: bool = False, generator: torch.Generator | None = None
    ) -> Tensor:
        """Encoder, augmenters, encoder again; or all at once on the encoder's loss.

        The loop is the method's own, because two optimizers take turns: each part descends a loss of its own, with the
        other as it is after its last turn.

        Args:
            batch: sequences ``(B, T)`` and targets ``(B,)``.
            joint: all at once.
            generator: of the augmentations, on the CPU.

        Returns:
            The encoder's loss before the step, detached.
        """
        check_type((list, tuple), batch=batch)
        if len(batch) != 2:
            raise ValueError(f"batch: expected sequences and targets, got {len(batch)} parts")
        check_flag(joint=joint)
        check_shapes(**{"batch[0]": (batch[0], "B T", int), "batch[1]": (batch[1], "B", int)})
        sequences, targets = self._known(batch[0], "batch[0]"), self._items(batch[1], "batch[1]")
        views = [augment_sequences(sequences, generator=generator) for _ in range(2)]
        loss = self.encoder_loss(sequences, targets, views)
        if joint:
            self._update(loss, self.encoder_optimizer, self.augmenter_optimizer)
            return loss.detach()
        self._update(loss, self.encoder_optimizer)
        with torch.no_grad():  # the encoder stands still
            encoded = [self.encoder(view) for view in views]
        self._update(self._contrast(*encoded).augmenter_loss(self.margin_weight), self.augmenter_optimizer)
        self._update(self.encoder_loss(sequences, targets, views), self.encoder_optimizer)
        return loss.detach()

    @torch.no_grad()
    def scores(self, sequences: Tensor) -> Tensor:
        """``(B, items)`` scores of items 1, 2, ..., without dropout."""
        with evaluating(self):
            return self._logits(sequences)

    def _known(self, sequences: Tensor, name: str) -> Tensor:
        """At least two sequences of items that the encoder has a row for."""
        sequences = check_sequences(sequences, name=name)
        check_batch(len(sequences), 2, name=name, why="to have a negative")
        check_labels(sequences.flatten(), name=name, num_classes=self.encoder.items.num_embeddings)
        return sequences

    def _items(self, targets: Tensor, name: str) -> Tensor:
        """Items from 1 on."""
        targets = check_labels(targets, name=name, num_classes=self.encoder.items.num_embeddings)
        if int(targets.min()) < 1:
            raise ValueError(f"{name}: expected items from 1 on, got 0, the padding")
        return targets

    def _logits(self, sequences: Tensor) -> Tensor:
        return self.encoder(sequences) @ self.encoder.items.weight[1:].mT

    def _update(self, loss: Tensor, *optimizers: torch.optim.Optimizer) -> None:
        self.zero_grad()  # of all parts: what the other stage left behind must not count
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()


def _check_hidden(hidden: Sequence[int]) -> None:
    check_type((list, tuple), hidden=hidden)
    if len(hidden) != 2:
        raise ValueError(f"hidden: expected two widths, got {len(hidden)}")
    check_count(**{f"hidden[{i}]": width for i, width in enumerate(hidden)})


def _scores(x: Tensor, y: Tensor, temperature: float) -> Tensor:
    """``(2B, 2B)`` inner products of both stacked views."""
    check_shapes(x=(x, "B d"), y=(y, "B d"))
    check_temperature(temperature)
    check_batch(len(x), 2, name="x", why="to have a negative")
    v = torch.cat([x, y])
    return finite_result(v @ v.mT / temperature, x=x, y=y, temperature=temperature)
