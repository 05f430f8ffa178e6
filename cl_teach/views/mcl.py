r"""Learning the Unlearned: Mitigating Feature Suppression in Contrastive Learning. Jihai Zhang, Xiang Lan, Xiaoye Qu,
Yu Cheng, Mengling Feng, Bryan Hooi; ECCV 2024; https://arxiv.org/abs/2402.11816.

Training in stages. After stage r the embeddings of the training set are clustered, :math:`c_i^{(r)}\in\{0..K-1\}`; in
stage s an anchor's negatives have its combined label :math:`y_i`, which holds the clusters of *all* earlier stages:

.. math::
    y_i^{(s)} = \sum_{r<s} K^{s-1-r} c_i^{(r)}, \qquad
    L = \frac1{2B}\sum_i\Big[-\frac{z_i\cdot z_{p(i)}}{\tau}
        + \log\!\!\sum_{j\ne i,\;y_j=y_i}\!\! e^{z_i\cdot z_j/\tau}\Big].

In the end the outputs of all stages are concatenated.

What changes and why: a contrastive loss is content with the features that already tell a sample from random negatives;
easy features are learned, others are suppressed. Negatives of one cluster share the learned features and cannot be
told apart by them, so the loss can fall only by learning something new. Concatenation keeps what was learned before.

Paper versus code. The release holds the CLIP form; the form with two views of an image is that rule put into NT-Xent,
and its settings here are ours. (1) The released clustering script loads the current stage's clusters in every round of
its loop, so that only the last clustering counts; here all stages do, as the abstract says. (2) The release draws
whole batches from one cluster; masking a mixed batch is the same loss with fewer negatives, and both are here. (3)
Clusters come from the image tower alone. (4) Whether a stage starts fresh or from the last encoder is left to the
caller. The authors' CLIP run starts its first stage from the pretrained weights. (5) Outputs are concatenated raw: a
stage with longer vectors counts more in a cosine. (6) A cluster smaller than a batch is dropped by pure batches, and
there are up to :math:`K^s` of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..core.checks import (
    check_callable,
    check_choice,
    check_count,
    check_generator,
    check_labels,
    check_module,
    check_same_length,
    check_shapes,
    check_type,
)
from ..core.clusters import cluster_directions, pure_batches
from ..core.contrast import REDUCTIONS, check_scale, check_temperature, reduce, softmax_contrast
from ..core.precision import full_precision
from ..core.similarity import normalize, other_view_mask, same_label_mask, self_mask
from ..core.tiles import tiled_contrast, use_tiles
from ..models.apply import apply_network
from ..models.weights_only import WeightsOnly

__all__ = [
    "Multistage",
    "PairStage",
    "Stage",
    "combine_labels",
    "group_means",
    "integrate",
    "mcl_clip",
    "mcl_nt_xent",
    "pure_batches",
]

LOG_SCALE, HIGHEST_LOG_SCALE = math.log(1 / 0.07), math.log(100)  # CLIP's start and limit


def combine_labels(stage_labels: Tensor, clusters: int) -> Tensor:
    """Combine the clusters of stage after stage into one label: multiply by K, add the new cluster.

    Args:
        stage_labels: ``(S, n)`` integers below ``clusters``, one row a stage.
        clusters: K.

    Returns:
        ``(S, n)``; row s tells apart what any of the clusterings 0 to s tells apart, and is the label of stage s + 1.

    Example:
        >>> combine_labels(torch.tensor([[0, 1, 1], [2, 2, 0]]), clusters=3).tolist()
        [[0, 1, 1], [2, 5, 3]]
    """
    check_shapes(stage_labels=(stage_labels, "s n", int))
    check_count(clusters=clusters)
    check_labels(stage_labels.flatten(), name="stage_labels", num_classes=clusters)
    _check_label_range(len(stage_labels), clusters)
    stage_labels = stage_labels.long()
    combined, rows = torch.zeros_like(stage_labels[0]), []
    for labels in stage_labels:
        combined = clusters * combined + labels
        rows.append(combined)
    return torch.stack(rows)


@full_precision
def mcl_nt_xent(z1: Tensor, z2: Tensor, labels: Tensor, temperature: float = 0.2, *, reduction: str = "mean") -> Tensor:
    """NT-Xent whose negatives have the anchor's label; with one label for all it is NT-Xent.

    Args:
        z1: ``(B, d)`` first views, any scale (normalized here).
        z2: ``(B, d)`` second views.
        labels: ``(B,)`` combined labels of the earlier stages.
        temperature: greater than 0.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` over the 2B anchors, first views first.

    Returns:
        Scalar, or ``(2B,)``. An anchor that is alone with its label costs nothing.

    Source: Zhang et al. (2024); reconstructed from the released CLIP form.

    Example:
        >>> equal = torch.ones(4, 3)  # with one other sample of its label an anchor has three candidates
        >>> round(mcl_nt_xent(equal, equal, torch.tensor([0, 0, 1, 1])).exp().item(), 3)
        3.0
    """
    check_shapes(z1=(z1, "b d"), z2=(z2, "b d"), labels=(labels, "b", int))
    labels = check_labels(labels, len(z1))
    check_temperature(temperature)
    check_choice(REDUCTIONS, reduction=reduction)
    z, rows, labels = normalize(torch.cat([z1, z2])), 2 * len(z1), labels.repeat(2)
    if use_tiles(temperature):  # the same numbers without the table
        losses = tiled_contrast(z, scale=1 / temperature, positive=len(z1), skip=(0,), labels=labels)
        return reduce(losses, reduction)
    candidates = same_label_mask(labels) & ~self_mask(rows, z.device)  # (2B, 2B)
    return softmax_contrast(z @ z.mT / temperature, other_view_mask(len(z1), z.device), candidates, reduction=reduction)


@full_precision
def mcl_clip(
    image: Tensor, text: Tensor, labels: Tensor, log_scale: float | Tensor = LOG_SCALE, *, reduction: str = "mean"
) -> Tensor:
    r"""The CLIP loss among pairs of one label; the clusters behind the labels come from the images.

    Args:
        image: ``(B, d)``, any scale (normalized here).
        text: ``(B, d)``, row i belongs to image i.
        labels: ``(B,)`` combined labels of the earlier stages.
        log_scale: logarithm of :math:`\kappa = 1/\tau`, a number or a 0-d tensor; CLIP learns it and keeps it at most
            log 100.
        reduction: over the B pairs.

    Returns:
        Scalar, or ``(B,)``, the mean of both directions.

    Source: Zhang et al. (2024), released ``ClipLoss`` on batches of one cluster.
    """
    check_shapes(image=(image, "b d"), text=(text, "b d"), labels=(labels, "b", int))
    labels = check_labels(labels, len(image))
    check_scale(log_scale)
    scale = torch.as_tensor(log_scale, dtype=image.dtype, device=image.device).exp()
    logits = scale * normalize(image) @ normalize(text).mT  # (B, B)
    own, candidates = self_mask(len(image), image.device), same_label_mask(labels)
    forth = softmax_contrast(logits, own, candidates, reduction="none")
    return reduce((forth + softmax_contrast(logits.mT, own, candidates, reduction="none")) / 2, reduction)


@full_precision
def group_means(losses: Tensor, labels: Tensor) -> Tensor:
    """Mean loss ``(groups,)`` of each label that occurs, in increasing order, from ``(n,)`` losses and labels."""
    check_shapes(losses=(losses, "n"), labels=(labels, "n", int))
    _, group, count = check_labels(labels).unique(return_inverse=True, return_counts=True)
    return losses.new_zeros(len(count)).index_add(0, group, losses) / count


def integrate(features: Sequence[Tensor]) -> Tensor:
    """Concatenate the raw outputs ``(n, d_s)`` of all stages to ``(n, sum of d_s)``."""
    check_type((tuple, list), features=features)
    if not features:
        raise ValueError("features: expected the output of at least one stage, got none")
    check_shapes(**{f"features[{s}]": (h, f"n d{s}") for s, h in enumerate(features)})
    return torch.cat(list(features), 1)


class Stage(nn.Module):
    """One stage of training: an encoder, and the label of each training sample. Train it with::

        fit(stage, stage.loss, (data, torch.arange(len(data))), ...)

    For the release's batches of one cluster, let a row of the data be a whole batch::

        rows = pure_batches(method.labels, 128).rows
        fit(stage, lambda x, i: stage.loss(x[0], i[0]), (data[rows], rows), batch_size=1, ...)
    """

    labels: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        labels: Tensor,
        *,
        temperature: float = 0.2,
        augment: Callable[..., Tensor] | None = None,
    ) -> None:
        """Take the encoder that is to be trained.

        Args:
            encoder: samples to embeddings ``(B, d)``.
            labels: ``(n,)`` of all training samples, see `Multistage.labels`.
            temperature: of the contrast.
            augment: makes one view of each sample, called as ``augment(x, generator=generator)``; None leaves samples
                as they are.
        """
        super().__init__()
        check_module(encoder=encoder)
        check_temperature(temperature)
        if augment is not None:
            check_callable(augment=augment)
        check_shapes(labels=(labels, "n", int))
        self.encoder, self.temperature, self.augment = encoder, temperature, augment
        self.register_buffer("labels", check_labels(labels).clone())

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings ``(n, d)`` of ``(n, ...)`` samples."""
        check_shapes(x=(x, "... k"))
        return apply_network(self.encoder, "n d", x=x)

    def loss(self, x: Tensor, rows: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Two views of each sample, compared with those of its own label; scalar.

        Args:
            x: ``(B, ...)`` samples.
            rows: ``(B,)`` their numbers in the training set.
            generator: of the views.
        """
        check_shapes(x=(x, "... k"))
        check_generator(generator)
        check_same_length(x=x, rows=rows)
        rows = check_labels(rows, name="rows", num_classes=len(self.labels))
        z1, z2 = (self(x if self.augment is None else self.augment(x, generator=generator)) for _ in range(2))
        return mcl_nt_xent(z1, z2, self.labels[rows], self.temperature)


class PairStage(nn.Module):
    """One stage of image-text training: two towers and a learned scale, trained on ``(images, texts, rows)``.

    A tower that is to stay as it is (CLIP's text tower) comes without gradient.

    Example:
        >>> stage = PairStage(nn.Linear(6, 3), nn.Linear(5, 3), torch.tensor([0, 0, 1, 1]))
        >>> loss = stage.loss(torch.rand(4, 6), torch.rand(4, 5), torch.arange(4))
        >>> loss.shape, [h.shape[1] for h in stage(torch.rand(4, 6), torch.rand(4, 5))]
        (torch.Size([]), [3, 3])
    """

    labels: Tensor

    def __init__(
        self, encoder: nn.Module, text_encoder: nn.Module, labels: Tensor, *, temperature: float = 0.07
    ) -> None:
        """Take the towers that are to be trained.

        Args:
            encoder: images to embeddings ``(B, d)``.
            text_encoder: texts to embeddings ``(B, d)``.
            labels: ``(n,)`` of all training pairs, see `Multistage.labels`.
            temperature: at which the scale starts.
        """
        super().__init__()
        check_module(encoder=encoder, text_encoder=text_encoder)
        check_temperature(temperature)
        check_shapes(labels=(labels, "n", int))
        self.encoder, self.text_encoder = encoder, text_encoder
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.register_buffer("labels", check_labels(labels).clone())

    def forward(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings ``(n, d)`` of ``(n, ...)`` images and texts."""
        check_type(Tensor, images=images, texts=texts)
        if images.ndim == 0 or texts.ndim == 0 or len(images) != len(texts):
            raise ValueError(f"images, texts: expected pairs, got {tuple(images.shape)} and {tuple(texts.shape)}")
        return (
            apply_network(self.encoder, "n d", images=images),
            apply_network(self.text_encoder, "n d", texts=texts),
        )

    def loss(self, images: Tensor, texts: Tensor, rows: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """Images and texts look for each other among the pairs of their label; scalar, nothing is drawn.

        ``rows``, ``(B,)``, are the pairs' numbers in the training set.
        """
        check_generator(generator)
        u, v = self(images, texts)
        rows = check_labels(rows, len(images), name="rows", num_classes=len(self.labels))
        if u.shape != v.shape:
            raise ValueError(f"texts: expected embeddings of shape {tuple(u.shape)} as images, got {tuple(v.shape)}")
        return mcl_clip(u, v, self.labels[rows], self.log_scale)

    @torch.no_grad()
    def after_step(self) -> None:
        """Keep the learned scale at most 100, as CLIP does."""
        self.log_scale.clamp_(max=HIGHEST_LOG_SCALE)


class Multistage(nn.Module):
    """What lasts between stages: encoders, their centers (``centers0``, ...), a label for each training sample.

    The whole method is::

        for _ in range(stages):
            stage = Stage(encoder := MLP([40, 64, 2]), method.labels)
            fit(stage, stage.loss, (data, torch.arange(len(data))), ...)
            method.close_stage(encoder, data)

    A fresh object that loads a checkpoint makes its encoders with ``make_encoder`` and ``make_text_encoder``. Without
    them they come as weights alone: labels and centers are there and training goes on, only `forward` asks for the
    networks.

    Example:
        >>> method, data = Multistage(30, clusters=3), torch.rand(30, 5)
        >>> method.close_stage(nn.Linear(5, 4), data)
        >>> method.close_stage(nn.Linear(5, 2), data)
        >>> method(data).shape, bool((method.labels < 9).all())
        (torch.Size([30, 6]), True)
    """

    labels: Tensor
    makers: dict[str, Callable[[], nn.Module] | None]

    def __init__(
        self,
        n: int,
        clusters: int = 10,
        *,
        make_encoder: Callable[[], nn.Module] | None = None,
        make_text_encoder: Callable[[], nn.Module] | None = None,
    ) -> None:
        """Start with one label for all of ``n`` training samples and no encoder.

        Args:
            n: training samples.
            clusters: K of every stage.
            make_encoder: makes an untrained encoder, for loading.
            make_text_encoder: the same for texts, where there are any.
        """
        super().__init__()
        check_count(n=n)
        check_count(2, clusters=clusters)
        for name, function in (("make_encoder", make_encoder), ("make_text_encoder", make_text_encoder)):
            if function is not None:
                check_callable(**{name: function})
        self.clusters = clusters
        self.makers = {"encoders": make_encoder, "text_encoders": make_text_encoder}
        self.encoders, self.text_encoders = nn.ModuleList(), nn.ModuleList()
        self.register_buffer("labels", torch.zeros(n, dtype=torch.long))

    @torch.no_grad()
    def close_stage(
        self,
        encoder: nn.Module,
        data: Tensor,
        text_encoder: nn.Module | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        """Freeze a trained encoder, cluster the training set with it and refine the labels.

        Args:
            encoder: samples, or images, to ``(n, d)``.
            data: ``(n, ...)`` the training set in its order, without augmentation; of pairs the images.
            text_encoder: of pairs, frozen and kept beside the other.
            generator: of k-means.
        """
        check_module(encoder=encoder)
        if text_encoder is not None:
            check_module(text_encoder=text_encoder)
        if bool(self.text_encoders) != (text_encoder is not None) and self.encoders:
            raise ValueError("text_encoder: expected one in every stage or in none")
        check_shapes(data=(data, "... k"))
        if len(data) != len(self.labels):
            raise ValueError(f"data: expected the {len(self.labels)} training samples, got {len(data)}")
        stage = len(self.encoders)
        _check_label_range(stage + 1, self.clusters)
        features = apply_network(encoder.eval(), "n d", data=data)
        found, centers = cluster_directions(features, self.clusters, generator=generator)
        self.encoders.append(encoder.requires_grad_(False))
        if text_encoder is not None:
            self.text_encoders.append(text_encoder.eval().requires_grad_(False))
        self.labels = self.clusters * self.labels + found
        self.register_buffer(f"centers{stage}", centers)

    def forward(self, x: Tensor) -> Tensor:
        """The representation of ``(n, ...)`` samples, or images: outputs of all stages, side by side."""
        return self._integrate(self.encoders, x)

    def embed_texts(self, x: Tensor) -> Tensor:
        """The representation of ``(n, ...)`` texts."""
        return self._integrate(self.text_encoders, x)

    def train(self, mode: bool = True) -> Multistage:
        """Closed stages stay in evaluation mode."""
        super().train(mode)
        self.encoders.eval()
        self.text_encoders.eval()
        return self

    def _integrate(self, encoders: nn.ModuleList, x: Tensor) -> Tensor:
        check_shapes(x=(x, "... k"))
        if not encoders:
            raise RuntimeError("close_stage has not been called with such an encoder, so there is no representation")
        return integrate([apply_network(encoder, "n d", x=x) for encoder in encoders])

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Make room for the stages of the checkpoint before they are loaded."""
        stage = len(self.encoders)
        while (centers := f"{prefix}centers{stage}") in state_dict:
            self.register_buffer(f"centers{stage}", torch.zeros_like(state_dict[centers]))
            for name, make in self.makers.items():
                start = f"{prefix}{name}.{stage}."
                weights = {key.removeprefix(start): x for key, x in state_dict.items() if key.startswith(start)}
                if weights or (name == "encoders"):
                    encoder = WeightsOnly(weights) if make is None else make()
                    getattr(self, name).append(encoder.eval().requires_grad_(False))
            stage += 1
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _check_label_range(stages: int, clusters: int) -> None:
    """The labels of so many stages are int64."""
    if stages * math.log2(clusters) >= 63:
        raise ValueError(f"clusters: {clusters} in each of {stages} stages make more labels than int64 can count")
