r"""CustomContrast: A Multilevel Contrastive Perspective For Subject-Driven Text-to-Image Customization. Nan Chen,
Mengqi Huang, Zhuowei Chen, Yang Zheng, Lei Zhang, Zhendong Mao; AAAI 2025; https://arxiv.org/abs/2409.05606.

A diffusion model is to draw one particular subject, given a reference picture. Two sets of learned queries read the
frozen features of the picture. Each has a summary token, :math:`V_i` (visual) and :math:`T_i` (textual), and the
textual one writes a pseudo word :math:`S_{l,i}` for every cross-attention layer l. With hats for length one, subjects
:math:`y_i`, positives :math:`P(i)=\{j\ne i: y_j=y_i\}`, negatives :math:`N(i)=\{j: y_j\ne y_i\}` and the anchors A that
have a positive,

.. math::
    L_{CSCL} &= -\frac1{2N}\sum_i\Big[\log\frac{e^{\hat V_i\cdot\hat T_i/\tau}}{\sum_j e^{\hat V_i\cdot\hat T_j/\tau}}
        +\log\frac{e^{\hat V_i\cdot\hat T_i/\tau}}{\sum_j e^{\hat V_j\cdot\hat T_i/\tau}}\Big], \\
    L_{MACL} &= -\frac1L\sum_l\frac1{|A|}\sum_{i\in A}\frac1{|P(i)|}\sum_{p\in P(i)}
        \log\frac{e^{\hat S_{li}\cdot\hat S_{lp}/\tau}}
        {e^{\hat S_{li}\cdot\hat S_{lp}/\tau}+\sum_{n\in N(i)}\omega_{in}e^{\hat S_{li}\cdot\hat S_{ln}/\tau}}, \\
    \omega_{in} &= (1-R_{in})\Big/\frac1{|N(i)|}\sum_{m\in N(i)}(1-R_{im}), \qquad
    L = L_{diffusion}+\lambda_1 L_{CSCL}+\lambda_2 L_{MACL}.

What changes and why: reconstruction alone keeps whatever helps to redraw the reference, pose and background included.
Comparing pictures of one subject in different contexts keeps what they share. The weights :math:`\omega` repel subjects
that a frozen encoder finds similar (:math:`R` near 1) less, so that distances between subjects survive.

Paper versus code. No code was released and the paper's equations were not at hand: both losses are reconstructed from
the abstract and the project page. (1) The symmetric form of CSCL and the mean over layers of MACL are choices made
here; of :math:`\omega` the paper says that scaling factors align the distances to negatives with those of the real
subjects, the formula is this book's. (2) In CSCL two pictures of one subject would be negatives of each other; a batch
holds one picture per subject there. (3) Other positives of an anchor are left out of the denominator. (4) Anchors
without a positive are skipped, not counted as 0. (5) If all :math:`R_{in}=1`, :math:`\omega` is 0/0 and is set to 1.
(6) Temperatures 0.07 and 0.2 and weights of 1 are this book's. (7) `SubjectReader` and `Denoiser` stand in for the
image encoder and the diffusion model at toy size; only the way that they are connected is the paper's.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.checks import (
    check_batch,
    check_entries,
    check_generator,
    check_in_range,
    check_labels,
    check_shapes,
    check_type,
    finite_result,
)
from ..core.contrast import check_temperature, softmax_contrast
from ..core.precision import full_precision
from ..core.similarity import cosine_similarity, normalize, same_label_mask, self_mask
from ..models.apply import apply_network
from ..models.subject import Denoiser, SubjectReader, SubjectTokens, add_noise

__all__ = [
    "Clips",
    "CustomContrast",
    "CustomContrastTerms",
    "cscl",
    "cscl_directions",
    "draw_clips",
    "macl",
    "macl_by_layer",
    "negative_subject_weights",
    "picture_similarity",
]


@full_precision
def cscl_directions(visual: Tensor, textual: Tensor, temperature: float = 0.07) -> tuple[Tensor, Tensor]:
    """The two directions of `cscl`: pictures looking for their text tokens, and the reverse; arguments as there."""
    check_shapes(visual=(visual, "n d"), textual=(textual, "n d"))
    check_temperature(temperature)
    logits = cosine_similarity(visual, textual) / temperature  # (N, N)
    own = self_mask(len(visual), visual.device)
    return softmax_contrast(logits, own), softmax_contrast(logits.mT, own)


@full_precision
def cscl(visual: Tensor, textual: Tensor, temperature: float = 0.07) -> Tensor:
    r"""Cross-modal semantic contrast between the two summary tokens of each picture.

    Args:
        visual: ``(N, d)`` visual tokens, any scale (normalized here), one picture per subject.
        textual: ``(N, d)`` textual tokens, row i of the same picture.
        temperature: :math:`\tau > 0`.

    Returns:
        Scalar, at least 0; log N if all tokens coincide.

    Source: Chen et al. (2025), pipeline figure of the project page; the formula is reconstructed.
    """
    image_to_text, text_to_image = cscl_directions(visual, textual, temperature)
    return (image_to_text + text_to_image) / 2


@full_precision
def negative_subject_weights(similarity: Tensor, labels: Tensor) -> Tensor:
    r"""The factors :math:`\omega_{in}` of the negatives, with mean 1 over the negatives of each anchor.

    Args:
        similarity: ``(B, B)`` in [0, 1], R; from a frozen encoder, or training could declare all subjects alike.
        labels: ``(B,)`` integer subjects.

    Returns:
        ``(B, B)`` without gradient; 0 where the subjects agree.
    """
    check_shapes(similarity=(similarity, "b b"), labels=(labels, "b", int))
    check_entries(0, 1, similarity=similarity)
    negatives = ~same_label_mask(check_labels(labels, len(similarity)))
    distance = (1 - similarity.detach()) * negatives
    mean = distance.sum(1, keepdim=True) / negatives.sum(1, keepdim=True).clamp(min=1)
    return torch.where(mean > 0, distance / torch.where(mean > 0, mean, 1.0), negatives.to(distance.dtype))


@full_precision
def macl_by_layer(
    layers: Tensor, labels: Tensor, temperature: float = 0.2, *, similarity: Tensor | None = None
) -> Tensor:
    """The ``(L,)`` losses of the single layers; arguments as in `macl`."""
    check_shapes(layers=(layers, "l b d"), labels=(labels, "b", int), similarity=(similarity, "b b?"))
    labels = check_labels(labels, layers.shape[1])
    check_temperature(temperature)
    same = same_label_mask(labels)
    positives, negatives = same & ~self_mask(len(labels), labels.device), ~same  # (B, B)
    if not positives.any():
        raise ValueError("labels: expected a subject with two pictures, got every label once")
    z = normalize(layers)
    logits = z @ z.mT / temperature  # (L, B, B)
    weighted = logits
    if similarity is not None:
        weights = negative_subject_weights(similarity, labels)
        negatives = negatives & (weights > 0)
        weighted = logits + weights.masked_fill(~negatives, 1.0).log()
    # The smallest finite number, not minus infinity: an anchor without negatives keeps a gradient of 0, not NaN.
    repulsion = weighted.masked_fill(~negatives, torch.finfo(z.dtype).min).logsumexp(2, keepdim=True)  # (L, B, 1)
    i, j = positives.nonzero(as_tuple=True)  # (t,)
    margin = repulsion[:, i, 0] - logits[:, i, j]  # (L, t)
    pairs = torch.logaddexp(margin, torch.zeros_like(margin))  # -log p of each pair
    count = positives.sum(1)
    anchors = torch.zeros_like(repulsion[..., 0]).index_add(1, i, pairs) / count.clamp(min=1)  # (L, B)
    return anchors[:, count > 0].mean(1)


@full_precision
def macl(layers: Tensor, labels: Tensor, temperature: float = 0.2, *, similarity: Tensor | None = None) -> Tensor:
    r"""Multiscale appearance contrast: the pseudo words of one subject agree in every layer, whatever the picture.

    Args:
        layers: ``(L, B, d)`` embeddings of B pictures for L layers, any scale (normalized here).
        labels: ``(B,)`` integer subjects, at least one of them twice.
        temperature: :math:`\tau > 0`.
        similarity: ``(B, B)`` R of `negative_subject_weights`, or None: all negatives count the same.

    Returns:
        Scalar, at least 0; 0 if there is only one subject.

    Source: Chen et al. (2025), project page; the formula is reconstructed.

    Example:
        >>> equal = torch.ones(1, 4, 3)  # two pictures of each of two subjects: one positive, two negatives
        >>> round(macl(equal, torch.tensor([0, 0, 1, 1])).exp().item(), 3)
        3.0
    """
    return macl_by_layer(layers, labels, temperature, similarity=similarity).mean()


@full_precision
def picture_similarity(features: Tensor) -> Tensor:
    """R from frozen ``(B, p, d)`` features: cosines of the mean tokens, moved from [-1, 1] to [0, 1]; no gradient."""
    check_shapes(features=(features, "b p d"))
    pooled = features.detach().mean(1)
    return ((1 + cosine_similarity(pooled, pooled)) / 2).clamp(0, 1)


class Clips(NamedTuple):
    """Three different frames of each of N different subjects, each ``(N, p, c)``."""

    reference: Tensor
    other: Tensor
    target: Tensor


def draw_clips(frames: Tensor, *, generator: torch.Generator | None = None) -> Clips:
    """Draw three frames of each subject from ``(subjects, frames, p, c)`` segmented pictures."""
    check_shapes(frames=(frames, "n f p c"))
    check_generator(generator)
    n, count = frames.shape[:2]
    if count < 3:
        raise ValueError(f"frames: expected at least 3 a subject (reference, another view, target), got {count}")
    where = frames.device if generator is None else generator.device
    order = torch.rand(n, count, generator=generator, device=where).argsort(1)[:, :3].to(frames.device)
    return Clips(*(frames[torch.arange(n, device=frames.device), order[:, k]] for k in range(3)))


class CustomContrastTerms(NamedTuple):
    """The total and its three losses before their weights, scalars."""

    loss: Tensor
    diffusion: Tensor
    cscl: Tensor
    macl: Tensor


class CustomContrast(nn.Module):
    """A reader of reference pictures and a denoiser that it steers, over a frozen image encoder.

    Example:
        >>> method = CustomContrast(nn.Linear(6, 8), SubjectReader(8), Denoiser(6))
        Traceback (most recent call last):
        ValueError: denoiser: expected the width of the reader's tokens, 8, got 6
        >>> method = CustomContrast(nn.Linear(8, 8), SubjectReader(8), Denoiser(8))
        >>> frames, captions = torch.rand(5, 4, 3, 8), torch.rand(5, 2, 8)  # four frames of five subjects
        >>> method.loss(frames, captions)._fields, method(frames[:, 0]).layers.shape
        (('loss', 'diffusion', 'cscl', 'macl'), torch.Size([2, 5, 8]))
    """

    def __init__(
        self,
        image_encoder: nn.Module,
        reader: SubjectReader,
        denoiser: Denoiser,
        *,
        cscl_weight: float = 1.0,
        macl_weight: float = 1.0,
        semantic_temperature: float = 0.07,
        appearance_temperature: float = 0.2,
    ) -> None:
        r"""Put the parts together.

        Args:
            image_encoder: ``(B, p, c)`` pictures to ``(B, q, d)`` features; frozen here.
            reader: trained.
            denoiser: its visual attention and gate are trained.
            cscl_weight: :math:`\lambda_1`.
            macl_weight: :math:`\lambda_2`.
            semantic_temperature: of CSCL.
            appearance_temperature: of MACL.
        """
        super().__init__()
        check_type(nn.Module, image_encoder=image_encoder)
        check_type(SubjectReader, reader=reader)
        check_type(Denoiser, denoiser=denoiser)
        if denoiser.dim != reader.dim:
            raise ValueError(f"denoiser: expected the width of the reader's tokens, {reader.dim}, got {denoiser.dim}")
        check_in_range(0, math.inf, cscl_weight=cscl_weight, macl_weight=macl_weight)
        check_temperature(semantic_temperature, name="semantic_temperature")
        check_temperature(appearance_temperature, name="appearance_temperature")
        self.image_encoder = image_encoder.requires_grad_(False).eval()
        self.reader, self.denoiser = reader, denoiser
        self.cscl_weight, self.macl_weight = cscl_weight, macl_weight
        self.semantic_temperature, self.appearance_temperature = semantic_temperature, appearance_temperature

    def train(self, mode: bool = True) -> CustomContrast:
        """Set the mode of the trained parts; the image encoder stays in evaluation mode."""
        super().train(mode)
        self.image_encoder.eval()
        return self

    def forward(self, pictures: Tensor) -> SubjectTokens:
        """Tokens of ``(B, p, c)`` reference pictures, which steer the denoiser."""
        check_shapes(pictures=(pictures, "b p c"))
        with torch.no_grad():
            features = apply_network(self.image_encoder, "b q d", pictures=pictures)
        return self._read(features, "pictures")

    def loss(
        self, frames: Tensor, captions: Tensor, *, generator: torch.Generator | None = None
    ) -> CustomContrastTerms:
        """Denoise one frame with the tokens of another, and contrast those with the tokens of a third.

        Args:
            frames: ``(N, f, p, c)`` segmented pictures, one row a subject, at least two subjects and three frames.
            captions: ``(N, w, c)`` frozen caption tokens.
            generator: of the frames, the noise and its level.
        """
        check_shapes(frames=(frames, "n f p c"), captions=(captions, "n w c"))
        check_batch(len(frames), 2, name="frames", why="to have a negative")
        finite_result(frames.square().mean() + captions.square().mean(), frames=frames, captions=captions)
        clips = draw_clips(frames, generator=generator)
        where = frames.device if generator is None else generator.device
        noise = torch.randn(clips.target.shape, generator=generator, device=where).to(frames)
        time = torch.rand(len(frames), generator=generator, device=where).to(frames)
        return self.compare(clips, captions, noise, time)

    def compare(self, clips: Clips, captions: Tensor, noise: Tensor, time: Tensor) -> CustomContrastTerms:
        """The losses of given clips, of noise ``(N, p, c)`` and of times ``(N,)`` in [0, 1]."""
        check_type(Clips, clips=clips)
        check_shapes(
            **{f"clips.{name}": (x, "n p c") for name, x in clips._asdict().items()},
            captions=(captions, "n w c"),
            noise=(noise, "n p c"),
            time=(time, "n"),
        )
        n, numbers = len(noise), {"clips.target": clips.target, "captions": captions, "noise": noise}
        finite_result(torch.stack([x.square().mean() for x in (*clips, captions, noise)]), **numbers)
        with torch.no_grad():
            features = apply_network(self.image_encoder, "b q d", clips=torch.cat([clips.reference, clips.other]))
        visual_summary, textual_summary, visual, layers = self._read(features, "clips")  # of 2N pictures
        first = SubjectTokens(visual_summary[:n], textual_summary[:n], visual[:n], layers[:, :n])
        predicted = self.denoiser(add_noise(clips.target, noise, time), time, captions, first)
        diffusion = F.mse_loss(predicted.float(), noise.float())
        semantic = cscl(first.visual_summary, first.textual_summary, self.semantic_temperature)
        labels = torch.arange(n, device=noise.device).repeat(2)  # every row a subject
        similarity = picture_similarity(features)
        appearance = macl(layers, labels, self.appearance_temperature, similarity=similarity)
        total = diffusion + self.cscl_weight * semantic + self.macl_weight * appearance
        return CustomContrastTerms(total, diffusion, semantic, appearance)

    def _read(self, features: Tensor, name: str) -> SubjectTokens:
        try:
            tokens = self.reader(features)
        except ValueError as error:
            raise ValueError(f"{name}: the reader does not take their features: {error}") from error
        for x in tokens:
            finite_result(x, **{name: features})
        return tokens
