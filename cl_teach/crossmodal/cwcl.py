r"""CWCL: Cross-Modal Transfer with Continuously Weighted Contrastive Loss. Rakshith Sharma Srinivasa, Jaejin Cho,
Chouchang Yang, Yashas Malur Saidutta, Ching-Hua Lee, Yilin Shen, Hongxia Jin; NeurIPS 2023;
https://arxiv.org/abs/2309.14580.

One tower is frozen and good (unit embeddings q), the other is trained (unit embeddings p), with scale :math:`s =
1/\tau`:

.. math::
    w_{ij} &= \tfrac12\langle q_i,q_j\rangle + \tfrac12 \in [0,1], \\ L &= -\frac1N\sum_i \frac1{\sum_j w_{ij}}\sum_j
    w_{ij}\log\frac{e^{s\langle q_i,p_j\rangle}}{\sum_k e^{s\langle q_i,p_k\rangle}}
        \;-\; \frac1N\sum_i\log\frac{e^{s\langle p_i,q_i\rangle}}{\sum_k e^{s\langle p_i,q_k\rangle}} .

What changes and why: CLIP calls exactly one item of the batch positive although others can be nearly as similar. Here
the frozen tower says how similar two samples are, and an anchor of the frozen side has every sample as a positive to
that degree. The other direction stays as it is: in the modality that is being trained there is no similarity to trust
yet.

Paper versus code. No author code was found; the equations follow a paper that adopts the loss and publishes code for
it. (1) The two directions are added, without the factor 1/2 of CLIP. (2) The diagonal stays in the weights, the
weights are constants. (3) Unrelated samples have a weight near 1/2, so the targets are nearly uniform and the best
logits of a row span less than one unit; the learned scale falls accordingly, which is not a bug. (4) The first scale
and its bounds are CLIP's; the paper's could not be checked.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..core.checks import check_choice, check_entries, check_module, check_positive, check_shapes
from ..core.contrast import check_scale, softmax_contrast, weighted_contrast
from ..core.precision import full_precision
from ..core.similarity import cosine_similarity, normalize, self_mask
from ..models.apply import apply_network

__all__ = ["CWCL", "WeightedTerms", "cwcl", "cwcl_terms", "intra_modal_weights"]

LARGEST_SCALE = 100.0  # CLIP's


class WeightedTerms(NamedTuple):
    """The loss and its two directions.

    Attributes:
        loss: their sum.
        weighted: scalar, frozen anchors with soft targets.
        plain: scalar, trained anchors with their own partner.
    """

    loss: Tensor
    weighted: Tensor
    plain: Tensor


@torch.no_grad()
@full_precision
def intra_modal_weights(features: Tensor) -> Tensor:
    """How positive each sample is for each other one, by the frozen tower: cosine / 2 + 1/2.

    Args:
        features: ``(N, f)`` frozen features, any scale.

    Returns:
        ``(N, N)`` in [0, 1], 1 on the diagonal, without gradient.
    """
    check_shapes(features=(features, "N f"))
    return (cosine_similarity(features, features) / 2 + 0.5).clamp(0, 1)


@full_precision
def cwcl_terms(
    trained: Tensor, frozen: Tensor, log_scale: float | Tensor, weights: Tensor | None = None
) -> WeightedTerms:
    """Both directions of the loss, and their sum; arguments as in `cwcl`."""
    check_shapes(trained=(trained, "N d"), frozen=(frozen, "N d"), weights=(weights, "N N?"))
    check_scale(log_scale)
    weights = intra_modal_weights(frozen) if weights is None else weights.detach()
    check_entries(0, 1, weights=weights)
    if not torch.compiler.is_compiling() and not (weights.sum(1) > 0).all():
        raise ValueError("weights: every row needs a positive entry, the diagonal at least")
    scale = torch.as_tensor(log_scale, dtype=trained.dtype, device=trained.device).exp()
    logits = scale * normalize(frozen.detach()) @ normalize(trained).mT  # (N, N), frozen anchors in rows
    weighted = weighted_contrast(logits, weights)
    plain = softmax_contrast(logits.mT, self_mask(len(logits), logits.device))
    return WeightedTerms(weighted + plain, weighted, plain)


def cwcl(trained: Tensor, frozen: Tensor, log_scale: float | Tensor, weights: Tensor | None = None) -> Tensor:
    """Continuously weighted contrast of a trained tower against a frozen one.

    Args:
        trained: ``(N, d)`` outputs of the trained tower, any scale (normalized here).
        frozen: ``(N, d)`` outputs of the frozen tower, row i belongs to row i; constants here.
        log_scale: logarithm of 1 / temperature, a number or a 0-d tensor.
        weights: ``(N, N)`` degrees of similarity in [0, 1], e.g. `intra_modal_weights` of other frozen features; None
            takes them from ``frozen``. The identity gives LiT, twice the CLIP loss.

    Returns:
        Scalar; 0 for a single pair.

    Source: Srinivasa et al. (2023).

    Example:
        >>> frozen = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> intra_modal_weights(frozen)[0].tolist()  # a twin counts fully, an unrelated sample half
        [1.0, 1.0, 0.5]
        >>> lit = cwcl(frozen, frozen, 3.0, torch.eye(3))
        >>> bool((2 * cwcl_terms(frozen, frozen, 3.0, torch.eye(3)).weighted - lit).abs() < 1e-5)
        True
    """
    return cwcl_terms(trained, frozen, log_scale, weights).loss


class CWCL(nn.Module):
    """A frozen tower, a trained one and the learned scale. `after_step` keeps the scale within [1, 100]."""

    def __init__(self, frozen_tower: nn.Module, trained_tower: nn.Module, *, scale: float = 1 / 0.07) -> None:
        """Take both towers.

        Args:
            frozen_tower: inputs to embeddings ``(N, d)``; never trained, always in evaluation mode. ``nn.Identity()``
                for embeddings that were made before.
            trained_tower: inputs of the other modality to embeddings ``(N, d)``.
            scale: first value of 1 / temperature.
        """
        super().__init__()
        check_module(frozen_tower=frozen_tower, trained_tower=trained_tower)
        check_positive(scale=scale)
        check_scale(math.log(scale), name="scale")
        self.frozen_tower = frozen_tower.requires_grad_(False).eval()
        self.trained_tower = trained_tower
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))

    def loss(self, frozen: Tensor, trained: Tensor, weight_features: Tensor | None = None) -> WeightedTerms:
        """The terms of a batch.

        Args:
            frozen: N inputs of the frozen tower.
            trained: N inputs of the trained one, row i belongs to row i.
            weight_features: ``(N, f)`` other frozen features to take the weights from.
        """
        weights = None if weight_features is None else _weights(weight_features)
        with torch.no_grad():
            target = apply_network(self.frozen_tower, "n d", frozen=frozen)
        output = apply_network(self.trained_tower, "n d", trained=trained)
        check_shapes(frozen=(target, "N d"), trained=(output, "N d"), weight_features=(weights, "N N?"))
        return cwcl_terms(output, target, self.log_scale, weights)

    def forward(self, frozen: Tensor, trained: Tensor) -> Tensor:
        """``(n, m)`` cosines of n inputs of the frozen tower and m of the trained one, for retrieval."""
        target = apply_network(self.frozen_tower, "n d", frozen=frozen)
        output = apply_network(self.trained_tower, "n d", trained=trained)
        check_shapes(frozen=(target, "n d"), trained=(output, "m d"))
        return cosine_similarity(target, output)

    @torch.no_grad()
    def zero_shot(self, inputs: Tensor, prompts: Tensor, *, prompts_go_to: str = "trained") -> Tensor:
        """``(n,)`` the prompt that fits each input best; call it in evaluation mode.

        Args:
            inputs: n things to classify.
            prompts: one description a class.
            prompts_go_to: the tower that reads them: ``"trained"`` where images were frozen, ``"frozen"`` where a
                text model was (speech).
        """
        check_choice(("trained", "frozen"), prompts_go_to=prompts_go_to)
        prompts_last = prompts_go_to == "trained"
        towers = (self.frozen_tower, self.trained_tower)[:: 1 if prompts_last else -1]
        things = apply_network(towers[0], "n d", inputs=inputs)
        names = apply_network(towers[1], "c d", prompts=prompts)
        check_shapes(inputs=(things, "n d"), prompts=(names, "c d"))
        return cosine_similarity(things, names).argmax(1)

    @torch.no_grad()
    def after_step(self) -> None:
        """Keep the scale within [1, 100]."""
        self.log_scale.clamp_(0, math.log(LARGEST_SCALE))

    def train(self, mode: bool = True) -> CWCL:
        """As usual, but the frozen tower stays in evaluation mode."""
        super().train(mode)
        self.frozen_tower.eval()
        return self


def _weights(weight_features: Tensor) -> Tensor:
    check_shapes(weight_features=(weight_features, "N f"))
    return intra_modal_weights(weight_features)
