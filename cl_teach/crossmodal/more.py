r"""MoRE: Multi-Modal Contrastive Pre-training with Transformers on X-Rays, ECGs, and Diagnostic Report. Samrajya Thapa,
Koushik Howlader, Subhankar Bhattacharjee, Wei Le; 2024; https://arxiv.org/abs/2410.16239.

A chest X-ray x, an ECG e and the written report n of one patient are embedded in one space, with the report as the
anchor. With CLIP's symmetric loss between two modalities,

.. math::
    L = L_{CLIP}(n, x) + L_{CLIP}(n, e), \qquad
    L_{CLIP}(a,b) = \tfrac12\,[\mathrm{NCE}(a\to b)+\mathrm{NCE}(b\to a)] .

What changes and why: X-ray and ECG are never compared with each other. They become comparable through the report, which
speaks about both, so that what the report leaves out is not forced to agree. Around the loss stand three parts that
make it affordable on few data: heads that end in batch normalization, attention that loses random keys (DropKey), and
a text model of which only low-rank corrections are trained (LoRA),

.. math::
    \mathrm{softmax}_j(Z_{ij}\ \text{with}\ Z_{ij}=-\infty\ \text{where}\ M_{ij}=1), \qquad
    W_0 + \tfrac{\alpha}{r}BA,\quad B = 0\ \text{at the start} .

Paper versus code. The released code and the abstract were read, the paper's equations were not at hand. (1) The two
terms are added, not averaged. (2) The temperature is declared a parameter after the optimizer was built, so it stays at
0.02; here it is an argument, and a caller who learns it should learn its logarithm. (3) The report's feature is the
mean over all positions, padding included; here over the words (`masked_mean`). (4) A key is dropped by subtracting
:math:`10^{12}`, which is infinite in half precision; a query that loses all keys then gives NaN, in float32 silently a
uniform average. Here the logit is minus infinity, and a query always keeps at least one key. (5) Accumulating
gradients over four batches does not give four times the negatives. (6) The last layer of a head standardizes every
channel over the batch, which takes away what distinguishes the modalities as such. (7) ViT and RoBERTa are replaced by
a transformer of teaching size, `SignalTower`; anything that returns ``(n, feature_dim)`` can be put in its place.
(8) In training each ECG is warped in time, permuted in segments, or left, as in the released loader (`augment_ecg`);
the three are drawn evenly. For downstream tasks the frozen features of both signals stand side by side (`MoRE.fuse`),
and those of the ECG are zeroed for 30 % of the patients in training (modality dropout).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.checks import (
    check_batch,
    check_choice,
    check_count,
    check_entries,
    check_flag,
    check_generator,
    check_in_range,
    check_labels,
    check_module,
    check_shapes,
    check_type,
)
from ..core.contrast import clip_loss
from ..core.precision import full_precision
from ..core.similarity import cosine_similarity
from ..models.apply import apply_network
from ..models.signal_tower import NormalizedHead

__all__ = [
    "ECGDraws",
    "MoRE",
    "MoRETerms",
    "augment_ecg",
    "draw_dropped",
    "draw_ecg_changes",
    "more_loss",
    "zero_shot_scores",
]

MODALITIES = ("report", "xray", "ecg")
SEGMENTS = 4  # of an ECG, in the release
TEMPERATURES = (1e-12, 1e12)
SMALLEST_DEVIATION = 1e-8


class MoRETerms(NamedTuple):
    """Scalars: the sum, and its part between report and X-ray and between report and ECG."""

    loss: Tensor
    xray: Tensor
    ecg: Tensor


@full_precision
def more_loss(report: Tensor, xray: Tensor, ecg: Tensor, temperature: float | Tensor = 0.02) -> MoRETerms:
    """Align both signals with the report, and nothing else.

    Args:
        report: ``(N, d)``, any scale (normalized here).
        xray: ``(N, d)`` of the same patients.
        ecg: ``(N, d)`` of the same patients.
        temperature: greater than 0; a number or a 0-d tensor.

    Returns:
        `MoRETerms`; 0 for a single patient.

    Source: Thapa et al. (2024), released training script.

    Example:
        >>> report, other = torch.eye(3), torch.eye(3).roll(1, 0)
        >>> terms = more_loss(report, report, other, temperature=0.1)
        >>> bool(terms.xray < 0.01), bool(terms.ecg > 9)  # the X-rays fit, the ECGs are those of other patients
        (True, True)
    """
    check_shapes(report=(report, "N d"), xray=(xray, "N d"), ecg=(ecg, "N d"))
    check_in_range(*TEMPERATURES, temperature=temperature)
    log_scale = -torch.as_tensor(temperature, dtype=report.dtype, device=report.device).log()
    terms = [clip_loss(report, signal, log_scale) for signal in (xray, ecg)]
    return MoRETerms(terms[0] + terms[1], terms[0], terms[1])


class ECGDraws(NamedTuple):
    """The random numbers of `augment_ecg`.

    Attributes:
        kinds: ``(n,)`` integers: 0 warps, 1 permutes, 2 leaves.
        order: ``(n, S)`` integers, for each a permutation of its S segments.
        speeds: ``(n, S)`` numbers in [0, 1]: below a half a segment is slowed down, above it is hurried.
    """

    kinds: Tensor
    order: Tensor
    speeds: Tensor


def draw_ecg_changes(n: int, segments: int = SEGMENTS, *, generator: torch.Generator | None = None) -> ECGDraws:
    """Draw one of the three changes for each of n ECGs, evenly, and what they need."""
    check_count(n=n, segments=segments)
    check_generator(generator)
    where = "cpu" if generator is None else generator.device
    kinds = torch.randint(3, (n,), generator=generator, device=where)
    order = torch.rand(n, segments, generator=generator, device=where).argsort(1)
    return ECGDraws(kinds, order, torch.rand(n, segments, generator=generator, device=where))


@full_precision
def augment_ecg(
    signals: Tensor, kinds: Tensor, order: Tensor, speeds: Tensor, *, largest_change: float = 0.25
) -> Tensor:
    """Warp the time of an ECG, permute its segments, or leave it: with given draws.

    Args:
        signals: ``(n, leads, time)``; time a multiple of the number of segments, and at least 2.
        kinds: as all that follows, see `ECGDraws`.
        order: permutations.
        speeds: of the segments.
        largest_change: of a segment's length, as a share, below 1.

    Returns:
        ``(n, leads, time)``.
    """
    check_shapes(signals=(signals, "n leads time"), speeds=(speeds, "n S"), order=(order, "n S", int))
    check_entries(0, 1, speeds=speeds)
    check_in_range(0, 0.99, largest_change=largest_change)
    n, _, time = signals.shape
    segments = order.shape[1]
    kinds = check_labels(kinds, n, name="kinds", num_classes=3)
    order = order.long()
    if not torch.equal(order.sort(1).values, torch.arange(segments, device=order.device).expand_as(order)):
        raise ValueError(f"order: expected a permutation of {segments} segments in every row, got another row")
    if time % segments or time < 2:
        raise ValueError(f"signals: expected a length that {segments} segments share evenly, at least 2, got {time}")
    length = time // segments
    rows = torch.arange(n, device=signals.device)[:, None]
    permuted = signals.unflatten(2, (segments, length)).transpose(1, 2)[rows, order]  # (n, S, leads, length)
    permuted = permuted.transpose(1, 2).flatten(2)
    # Where in the original each new moment lies: a broken line through the stretched segments.
    shares = 1 + largest_change * (2 * speeds - 1)
    knots = F.pad((shares / shares.sum(1, keepdim=True)).cumsum(1), (1, 0)) * (time - 1)  # (n, S + 1)
    new = torch.linspace(0, segments, time, device=signals.device, dtype=signals.dtype)
    left = new.floor().clamp(max=segments - 1).long()
    moment = knots[:, left] + (new - left) * (knots[:, left + 1] - knots[:, left])  # (n, time)
    before = moment.floor().clamp(0, time - 2).long()
    part = (moment - before)[:, None]
    at = before[:, None].expand(signals.shape)
    warped = signals.gather(2, at) * (1 - part) + signals.gather(2, at + 1) * part
    kind = kinds[:, None, None]
    return torch.where(kind == 0, warped, torch.where(kind == 1, permuted, signals))


@full_precision
def zero_shot_scores(signals: Tensor, prompts: Tensor, classes: Tensor) -> Tensor:
    """How well each signal fits each class: its nearest prompt, standardized over the signals.

    Args:
        signals: ``(n, d)`` embeddings, at least two.
        prompts: ``(p, d)`` embeddings of the classes' descriptions.
        classes: ``(p,)`` integers, the class of each prompt; every class from 0 on has one.

    Returns:
        ``(n, C)``: cosine with the best prompt of a class, minus its mean over the signals, over its deviation.

    Source: Thapa et al. (2024), released zero-shot script.
    """
    check_shapes(signals=(signals, "n d"), prompts=(prompts, "p d"), classes=(classes, "p", int))
    check_batch(len(signals), 2, name="signals", why="to have a deviation")
    classes = check_labels(classes, len(prompts), name="classes", num_classes=len(prompts))
    count = int(classes.max()) + 1
    if len(classes.unique()) < count:
        raise ValueError(f"classes: expected a prompt for each of {count} classes, got {len(classes.unique())}")
    cosines = cosine_similarity(signals, prompts)  # (n, p)
    best = torch.stack([cosines[:, classes == c].amax(1) for c in range(count)], dim=1)
    centered = best - best.mean(0)
    deviation = (centered.square().sum(0) / (len(best) - 1)).clamp_min(SMALLEST_DEVIATION**2).sqrt()
    return centered / deviation


def draw_dropped(n: int, rate: float = 0.3, *, generator: torch.Generator | None = None) -> Tensor:
    """``(n,)`` boolean, which patients lose their ECG in a step of downstream training, see `MoRE.fuse`."""
    check_count(n=n)
    check_in_range(0, 1, rate=rate)
    check_generator(generator)
    return torch.rand(n, generator=generator, device="cpu" if generator is None else generator.device) < rate


class MoRE(nn.Module):
    """Three towers and their heads."""

    def __init__(
        self,
        towers: dict[str, nn.Module],
        feature_dim: int,
        *,
        hidden: int = 32,
        out_dim: int = 16,
        temperature: float = 0.02,
        augment: bool = True,
    ) -> None:
        """Put a head on every tower.

        Args:
            towers: under the names "report", "xray" and "ecg"; each returns ``(n, feature_dim)``.
            feature_dim: width of their features.
            hidden: of the heads.
            out_dim: width of the common space.
            temperature: fixed, as in the release.
            augment: whether the ECGs ``(n, leads, time)`` are changed in training, see `augment_ecg`.
        """
        super().__init__()
        check_type(dict, towers=towers)
        if set(towers) != set(MODALITIES):
            raise ValueError(f"towers: expected the names report, xray and ecg, got {sorted(map(str, towers))}")
        check_module(**{f"towers[{name!r}]": tower for name, tower in towers.items()})
        check_count(feature_dim=feature_dim, hidden=hidden, out_dim=out_dim)
        check_in_range(*TEMPERATURES, temperature=temperature)
        check_flag(augment=augment)
        self.towers = nn.ModuleDict(towers)
        self.heads = nn.ModuleDict({name: NormalizedHead(feature_dim, hidden, out_dim) for name in towers})
        self.temperature, self.augment, self.feature_dim = temperature, augment, feature_dim

    def embed(self, name: str, signals: Tensor) -> Tensor:
        """Embeddings ``(n, out_dim)`` of one modality."""
        check_choice(MODALITIES, name=name)
        return self.heads[name](self._features(name, signals, "signals"))

    def forward(self, report: Tensor, xray: Tensor, ecg: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings ``(n, out_dim)`` of all three."""
        features = [self._features(*named) for named in zip(MODALITIES, (report, xray, ecg), MODALITIES, strict=True)]
        check_shapes(**{name: (x, "n f") for name, x in zip(MODALITIES, features, strict=True)})
        found = [self.heads[name](x) for name, x in zip(MODALITIES, features, strict=True)]
        return found[0], found[1], found[2]

    def loss(self, report: Tensor, xray: Tensor, ecg: Tensor, *, generator: torch.Generator | None = None) -> MoRETerms:
        """The losses of one batch of patients; in training their ECGs are changed."""
        check_generator(generator)
        if self.training and self.augment:
            check_shapes(ecg=(ecg, "n leads time"))
            draws = draw_ecg_changes(len(ecg), generator=generator)
            try:
                ecg = augment_ecg(ecg, *(x.to(ecg.device) for x in draws)).to(ecg)
            except ValueError as error:
                raise ValueError(f"ecg: {error}") from error
        notes, xrays, ecgs = self(report, xray, ecg)
        return more_loss(notes, xrays, ecgs, self.temperature)

    @torch.no_grad()
    def fuse(self, xray: Tensor, ecg: Tensor, dropped: Tensor | None = None) -> Tensor:
        """Frozen features of both signals side by side, ``(n, 2 feature_dim)``, for downstream tasks.

        Args:
            xray: of n patients.
            ecg: of the same.
            dropped: ``(n,)`` boolean, whose ECG is zeroed, see `draw_dropped`; None for nobody's.
        """
        first, second = self._features("xray", xray, "xray"), self._features("ecg", ecg, "ecg")
        check_shapes(xray=(first, "n f"), ecg=(second, "n f"), dropped=(dropped, "n?", bool))
        if dropped is not None:
            second = second.masked_fill(dropped[:, None], 0.0)
        return torch.cat([first, second], 1)

    def _features(self, name: str, signals: Tensor, argument: str) -> Tensor:
        features = apply_network(self.towers[name], "n f", **{argument: signals})
        check_shapes(**{argument: (features, f"n {self.feature_dim}")})
        if self.training:
            check_batch(len(features), 2, name=argument, why="to normalize over the batch")
        return features
