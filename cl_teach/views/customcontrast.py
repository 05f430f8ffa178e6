r"""CustomContrast: A Multilevel Contrastive Perspective For Subject-Driven Text-to-Image Customization. Nan Chen,
Mengqi Huang, Zhuowei Chen, Yang Zheng, Lei Zhang, Zhendong Mao; 2024; https://arxiv.org/abs/2409.05606.

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
the description on the project page. (1) The symmetric form of CSCL, the mean over layers of MACL and the formula of
:math:`\omega` are choices made here. (2) In CSCL two pictures of one subject would be negatives of each other; a batch
holds one picture per subject there. (3) Other positives of an anchor are left out of the denominator. (4) Anchors
without a positive are skipped, not counted as 0. (5) If all :math:`R_{in}=1`, :math:`\omega` is 0/0 and is set to 1.
(6) Temperatures 0.07 and 0.2 and weights of 1 are this book's. (7) The modules below stand in for the image encoder
and the diffusion model at toy size; only the way that they are connected is the paper's.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.checks import (
    check_batch,
    check_embeddings,
    check_in_range,
    check_labels,
    check_positive,
    check_same_length,
    check_same_shape,
)
from ..core.contrast import softmax_contrast
from ..core.similarity import cosine_similarity, normalize, same_label_mask, self_mask

__all__ = [
    "Clips",
    "Denoiser",
    "FeatureEncoder",
    "QueryTransformer",
    "SubjectTokens",
    "add_noise",
    "cscl",
    "cscl_directions",
    "draw_clips",
    "draw_subjects",
    "macl",
    "macl_by_layer",
    "negative_weights",
    "picture_similarity",
    "training_step",
]


def cscl_directions(visual: Tensor, textual: Tensor, temperature: float = 0.07) -> tuple[Tensor, Tensor]:
    """The two directions of `cscl`: pictures looking for their text tokens, and the reverse; arguments as there."""
    check_embeddings(visual=visual, textual=textual)
    check_same_shape(visual=visual, textual=textual)
    check_positive(temperature=temperature)
    logits = cosine_similarity(visual, textual) / temperature  # (N, N)
    own = self_mask(len(visual), visual.device)
    return softmax_contrast(logits, own), softmax_contrast(logits.mT, own)


def cscl(visual: Tensor, textual: Tensor, temperature: float = 0.07) -> Tensor:
    r"""Cross-modal semantic contrast between the two summary tokens of each picture.

    Args:
        visual: ``(N, d)`` visual tokens, any scale (normalized here), one picture per subject.
        textual: ``(N, d)`` textual tokens, row i of the same picture.
        temperature: :math:`\tau > 0`.

    Returns:
        Scalar, at least 0; log N if all tokens coincide.

    Raises:
        TypeError: not floating tensors.
        ValueError: shapes differ, NaN, temperature not positive.

    Source: Chen et al. (2024), pipeline figure; the formula is reconstructed.
    """
    image_to_text, text_to_image = cscl_directions(visual, textual, temperature)
    return (image_to_text + text_to_image) / 2


def negative_weights(similarity: Tensor, labels: Tensor) -> Tensor:
    r"""The factors :math:`\omega_{in}` of the negatives, with mean 1 over the negatives of each anchor.

    Args:
        similarity: ``(B, B)`` in [0, 1], R; from a frozen encoder, or training could declare all subjects alike.
        labels: ``(B,)`` integer subjects.

    Returns:
        ``(B, B)`` without gradient; 0 where the subjects agree.

    Raises:
        TypeError: wrong dtype.
        ValueError: shapes do not fit, a similarity outside [0, 1].
    """
    check_embeddings(similarity=similarity)
    check_labels(labels, len(similarity))
    if similarity.shape[0] != similarity.shape[1] or similarity.min() < 0 or similarity.max() > 1:
        raise ValueError(f"similarity: expected (B, B) in [0, 1], got shape {tuple(similarity.shape)}")
    negatives = ~same_label_mask(labels)
    distance = (1 - similarity.detach()) * negatives
    mean = distance.sum(1, keepdim=True) / negatives.sum(1, keepdim=True).clamp(min=1)
    return torch.where(mean > 0, distance / torch.where(mean > 0, mean, 1.0), negatives.to(distance.dtype))


def macl_by_layer(layers: Tensor, labels: Tensor, temperature: float = 0.2, similarity: Tensor | None = None) -> Tensor:
    """The ``(L,)`` losses of the single layers; arguments and errors as in `macl`."""
    check_embeddings(ndim=3, layers=layers)
    check_labels(labels, layers.shape[1])
    check_positive(temperature=temperature)
    same = same_label_mask(labels)
    positives, negatives = same & ~self_mask(len(labels), labels.device), ~same  # (B, B)
    if not positives.any():
        raise ValueError("labels: expected a subject with two pictures, got every label once")
    z = normalize(layers)
    logits = z @ z.mT / temperature  # (L, B, B)
    weighted = logits
    if similarity is not None:
        check_same_length(similarity=similarity, labels=labels)
        weights = negative_weights(similarity, labels)
        negatives = negatives & (weights > 0)
        weighted = logits + weights.masked_fill(~negatives, 1.0).log()
    # The smallest finite number, not minus infinity: an anchor without negatives keeps a gradient of 0, not NaN.
    repulsion = weighted.masked_fill(~negatives, torch.finfo(z.dtype).min).logsumexp(2, keepdim=True)  # (L, B, 1)
    margin = repulsion - logits
    pairs = torch.logaddexp(margin, torch.zeros_like(margin)).masked_fill(~positives, 0.0)  # -log p of each pair
    count = positives.sum(1)
    anchors = pairs.sum(2) / count.clamp(min=1)  # (L, B)
    return anchors[:, count > 0].mean(1)


def macl(layers: Tensor, labels: Tensor, temperature: float = 0.2, similarity: Tensor | None = None) -> Tensor:
    r"""Multiscale appearance contrast: the pseudo words of one subject agree in every layer, whatever the picture.

    Args:
        layers: ``(L, B, d)`` embeddings of B pictures for L layers, any scale (normalized here).
        labels: ``(B,)`` integer subjects, at least one of them twice.
        temperature: :math:`\tau > 0`.
        similarity: ``(B, B)`` R of `negative_weights`, or None: all negatives count the same.

    Returns:
        Scalar, at least 0; 0 if there is only one subject.

    Raises:
        TypeError: wrong dtype.
        ValueError: shapes do not fit, NaN, no subject with two pictures, a value out of range.

    Source: Chen et al. (2024), project page; the formula is reconstructed.
    """
    return macl_by_layer(layers, labels, temperature, similarity).mean()


def picture_similarity(features: Tensor) -> Tensor:
    """R from frozen ``(B, p, d)`` features: cosines of the mean tokens, moved from [-1, 1] to [0, 1]; no gradient."""
    pooled = features.detach().mean(1)
    return ((1 + cosine_similarity(pooled, pooled)) / 2).clamp(0, 1)


class SubjectTokens(NamedTuple):
    """What `FeatureEncoder` reads from B pictures.

    Attributes:
        visual_summary: ``(B, d)``.
        textual_summary: ``(B, d)``.
        visual: ``(B, m, d)`` for the added visual cross-attention.
        layers: ``(L, B, d)`` one pseudo word per layer.
    """

    visual_summary: Tensor
    textual_summary: Tensor
    visual: Tensor
    layers: Tensor


class QueryTransformer(nn.Module):
    """Learned queries that attend to tokens, one attention layer and a residual MLP; query 0 is the summary."""

    def __init__(self, queries: int, dim: int) -> None:
        """Make ``queries`` queries beside the summary, each of width ``dim``."""
        super().__init__()
        check_positive(queries=queries, dim=dim)
        self.queries = nn.Parameter(torch.randn(1 + queries, dim))
        self.attention = nn.MultiheadAttention(dim, 1, batch_first=True)
        self.mlp = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """``(B, p, d)`` tokens to ``(B, 1 + queries, d)``."""
        read, _ = self.attention(self.queries.expand(len(tokens), -1, -1), tokens, tokens, need_weights=False)
        return read + self.mlp(read)


class FeatureEncoder(nn.Module):
    """Visual and textual queries over frozen features, then a fusion in which pseudo words read visual tokens."""

    def __init__(self, dim: int, layers: int = 2, visual_tokens: int = 4) -> None:
        """Write for ``layers`` cross-attention layers; features have width ``dim``."""
        super().__init__()
        self.visual, self.textual = QueryTransformer(visual_tokens, dim), QueryTransformer(layers, dim)
        self.fusion = nn.MultiheadAttention(dim, 1, batch_first=True)

    def forward(self, features: Tensor) -> SubjectTokens:
        """Read ``(B, p, d)`` frozen features."""
        check_embeddings(ndim=3, features=features)
        visual, textual = self.visual(features), self.textual(features)
        words = textual[:, 1:]
        words = words + self.fusion(words, visual[:, 1:], visual[:, 1:], need_weights=False)[0]
        return SubjectTokens(visual[:, 0], textual[:, 0], visual[:, 1:], words.transpose(0, 1))


class Denoiser(nn.Module):
    """A toy noise predictor with the method's two cross-attentions per layer.

    Body and text attention play the pretrained model and stay frozen. Visual attention and gate (how much each place
    takes from the picture at a noise level) are trained.
    """

    def __init__(self, dim: int, layers: int = 2) -> None:
        """Predict noise on ``(B, p, dim)`` patches."""
        super().__init__()
        self.body = nn.ModuleList(nn.Linear(dim + 1, dim) for _ in range(layers))
        self.text = nn.ModuleList(nn.MultiheadAttention(dim, 1, batch_first=True) for _ in range(layers))
        self.picture = nn.ModuleList(nn.MultiheadAttention(dim, 1, batch_first=True) for _ in range(layers))
        self.gate = nn.ModuleList(nn.Linear(dim + 1, 1) for _ in range(layers))
        self.body.requires_grad_(False)
        self.text.requires_grad_(False)

    def forward(self, noisy: Tensor, time: Tensor, caption: Tensor, tokens: SubjectTokens) -> Tensor:
        """Noise ``(B, p, d)`` at times ``(B,)``, given caption tokens ``(B, w, d)`` and the subject's tokens."""
        x, clock = noisy, time[:, None, None].expand(-1, noisy.shape[1], 1)
        blocks = zip(self.body, self.text, self.picture, self.gate, tokens.layers, strict=True)
        for body, text, picture, gate, word in blocks:
            x = x + body(torch.cat([x, clock], 2))
            words = torch.cat([caption, word[:, None]], 1)  # the pseudo word joins the caption
            where = gate(torch.cat([x, clock], 2)).sigmoid()  # (B, p, 1)
            seen = picture(x, tokens.visual, tokens.visual, need_weights=False)[0]
            x = x + text(x, words, words, need_weights=False)[0] + where * seen
        return x


class Clips(NamedTuple):
    """Three different frames of each of N different subjects, each ``(N, p, c)``, and the ``(N,)`` subjects."""

    reference: Tensor
    other: Tensor
    target: Tensor
    labels: Tensor


def draw_clips(frames: Tensor, n: int, *, generator: torch.Generator | None = None) -> Clips:
    """Draw from ``(subjects, frames, p, c)`` segmented pictures n different subjects and three frames of each."""
    check_embeddings(ndim=4, frames=frames)
    check_in_range(1, len(frames), n=n)
    check_batch(frames.shape[1], 3, name="frames", why="for a reference, another view and a target")
    labels = torch.randperm(len(frames), generator=generator)[:n]
    order = torch.rand(n, frames.shape[1], generator=generator).argsort(1)[:, :3]  # distinct frames
    reference, other, target = (frames[labels, order[:, k]] for k in range(3))
    return Clips(reference, other, target, labels)


def draw_subjects(
    subjects: int, frames: int, dim: int = 32, factors: int = 6, *, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures tanh(0.4 A s + 0.4 B v) + noise of which the subject s and the view v are known.

    Returns:
        Pictures ``(subjects, frames, dim)``, s ``(subjects, factors)``, v ``(subjects, frames, factors)``; v has
        standard deviation 1.5, the noise 0.05.
    """
    check_positive(subjects=subjects, frames=frames, dim=dim, factors=factors)
    a, b = (torch.randn(factors, dim, generator=generator) for _ in range(2))
    s = torch.randn(subjects, factors, generator=generator)
    v = 1.5 * torch.randn(subjects, frames, factors, generator=generator)
    clean = torch.tanh(0.4 * (s @ a)[:, None] + 0.4 * v @ b)
    return clean + 0.05 * torch.randn(clean.shape, generator=generator), s, v


def add_noise(clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
    """Mix ``(B, p, d)`` pictures and noise at times ``(B,)`` in [0, 1]: cos(pi t / 2) x + sin(pi t / 2) noise."""
    check_same_shape(clean=clean, noise=noise)
    check_same_length(clean=clean, time=time)
    angle = time[:, None, None] * (math.pi / 2)
    return angle.cos() * clean + angle.sin() * noise


def training_step(
    image_encoder: nn.Module,
    encoder: FeatureEncoder,
    denoiser: Denoiser,
    optimizer: torch.optim.Optimizer,
    clips: Clips,
    caption: Tensor,
    noise: Tensor,
    time: Tensor,
    *,
    cscl_weight: float = 1.0,
    macl_weight: float = 1.0,
) -> dict[str, float]:
    r"""One step: denoise the target with the tokens of the reference, and contrast the reference with another frame.

    Args:
        image_encoder: frozen, ``(B, p, c)`` to ``(B, q, d)``.
        encoder: trained.
        denoiser: its visual attention and gate are trained.
        optimizer: of the parameters that ask for a gradient.
        clips: `draw_clips`.
        caption: ``(N, w, c)`` frozen caption tokens.
        noise: ``(N, p, c)`` drawn.
        time: ``(N,)`` drawn in [0, 1].
        cscl_weight: :math:`\lambda_1`.
        macl_weight: :math:`\lambda_2`.

    Returns:
        The three losses before their weights.
    """
    check_in_range(0, math.inf, cscl_weight=cscl_weight, macl_weight=macl_weight)
    n = len(clips.labels)
    with torch.no_grad():
        features = image_encoder(torch.cat([clips.reference, clips.other]))
    visual_summary, textual_summary, visual, layers = encoder(features)  # of 2N pictures
    first = SubjectTokens(visual_summary[:n], textual_summary[:n], visual[:n], layers[:, :n])
    predicted = denoiser(add_noise(clips.target, noise, time), time, caption, first)
    diffusion = F.mse_loss(predicted, noise)
    semantic = cscl(first.visual_summary, first.textual_summary)
    appearance = macl(layers, clips.labels.repeat(2), similarity=picture_similarity(features))
    optimizer.zero_grad()
    (diffusion + cscl_weight * semantic + macl_weight * appearance).backward()
    optimizer.step()
    return {"diffusion": diffusion.item(), "cscl": semantic.item(), "macl": appearance.item()}
