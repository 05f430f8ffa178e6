"""Part 4."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cl_teach.core import info_nce, nt_xent, sup_con
from cl_teach.core.crop_geometry import draw_boxes
from cl_teach.models.class_translator import ClassTranslator
from cl_teach.models.scattering import Scattering, ScatteringAdapter
from cl_teach.models.subject import Denoiser, SubjectReader, add_noise
from cl_teach.views.adainf import nt_xent_with_ids
from cl_teach.views.cdvg import CDvG
from cl_teach.views.customcontrast import CustomContrast, draw_clips
from cl_teach.views.genview import pair_quality, quality_weights, weighted_moco_loss
from cl_teach.views.hydra import Hydra
from cl_teach.views.mcl import mcl_nt_xent
from cl_teach.views.pixpro import PixPro
from cl_teach.views.scatsimclr import ScatSimCLR
from cl_teach.views.sepclr import sepclr

from . import DIM, Case, Trained, descend, in_classes, in_views, rows, trainable
from .losses import plain
from .theory import byol


def pix_pro(n: int) -> tuple[Trained, Trained]:
    """Maps of 8 x 8 cells from one convolution; the baseline compares their means."""
    method = PixPro(nn.Conv2d(3, 32, 4, 4), 32, dim=DIM)
    x1, x2 = torch.rand(n, 3, 32, 32), torch.rand(n, 3, 32, 32)
    boxes = [draw_boxes(n, generator=torch.Generator().manual_seed(k)) for k in range(2)]
    pooled = nn.Sequential(copy.deepcopy(method.online), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    dense = descend(lambda: method.compare(x1, x2, *boxes), method.parameters(), method.after_step)
    return dense, byol(pooled, x1, x2)


def scat_sim_clr(n: int) -> tuple[Trained, Trained]:
    """Scattering of 16 x 16 pixels; the baseline leaves the four rotations out."""
    scattering = Scattering((16, 16))
    method = ScatSimCLR(scattering, ScatteringAdapter(scattering.maps), lambda x, generator: x.flip(-1), out_dim=DIM)
    images = torch.rand(n, 1, 16, 16)

    def alone() -> Tensor:
        return nt_xent(*(method.projection(method(x)) for x in (images, images.flip(-1))), 0.5)

    weights = list(method.parameters())
    return descend(lambda: method.loss(images), weights, method.after_step), descend(alone, weights)


def ada_inf(n: int) -> tuple[Trained, Trained]:
    """Every image twice."""
    z1, z2 = in_views(n)
    return descend(lambda: nt_xent_with_ids(z1, z2, in_classes(n, n // 2)), (z1, z2)), plain(z1, z2)


def gen_view(n: int) -> tuple[Trained, Trained]:
    """Patches of a frozen encoder are given; keys are constants."""
    (q1, q2), (k1, k2) = in_views(n), (rows(n, seed=5), rows(n, seed=6))
    tokens, direction = [rows(n, 9, DIM, seed=7 + k) for k in range(2)], rows(DIM, 1)[:, 0]

    def weighted() -> Tensor:
        return weighted_moco_loss(q1, q2, k1, k2, quality_weights(pair_quality(*tokens, direction).quality))

    return (
        descend(weighted, (q1, q2)),
        descend(lambda: info_nce(q1, k2, temperature=1.0) + info_nce(q2, k1, temperature=1.0), (q1, q2)),
    )


def cdvg(n: int) -> tuple[Trained, Trained]:
    """Pictures of 3 x 16 x 16; the baseline takes them without translation and without labels."""
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(768, DIM))
    method = CDvG(encoder, DIM, 10, ClassTranslator(3, 10, width=8), out_dim=DIM)
    x1, x2, y = torch.rand(n, 3, 16, 16), torch.rand(n, 3, 16, 16), in_classes(n)
    weights = list(method.parameters())
    return (
        descend(lambda: method.loss(x1, y), weights),
        descend(lambda: nt_xent(method.projector(encoder(x1)), method.projector(encoder(x2))), weights),
    )


def custom_contrast(n: int) -> tuple[Trained, Trained]:
    """Four frames of each subject; the baseline only denoises."""
    method = CustomContrast(nn.Linear(DIM, DIM), SubjectReader(DIM), Denoiser(DIM))
    frames, captions = rows(n, 4, 4, DIM), rows(n, 2, DIM)

    def denoise() -> Tensor:
        clips = draw_clips(frames)
        noise, time = torch.randn_like(clips.target), torch.rand(n)
        predicted = method.denoiser(add_noise(clips.target, noise, time), time, captions, method(clips.reference))
        return F.mse_loss(predicted, noise)

    weights = list(method.parameters())
    return descend(lambda: method.loss(frames, captions), weights), descend(denoise, weights)


def mcl(n: int) -> tuple[Trained, Trained]:
    """A batch of ten clusters."""
    z1, z2 = in_views(n)
    return descend(lambda: mcl_nt_xent(z1, z2, in_classes(n)), (z1, z2)), plain(z1, z2)


def hydra(n: int) -> tuple[Trained, Trained]:
    """Ten classes, subspaces of 128 coordinates."""
    x, y = rows(n), in_classes(n, min(10, n // 2))
    method = Hydra(nn.Linear(DIM, DIM), DIM, 10, width=DIM)
    weights = list(method.parameters())
    return (
        descend(lambda: method.loss(x, y), weights),
        descend(lambda: sup_con(method.projector(method.backbone(x)), y), weights),
    )


def sep_clr(n: int) -> tuple[Trained, Trained]:
    """Half of the samples are targets."""
    (c1, c2), (s1, s2) = in_views(n), (trainable(n, seed=5), trainable(n, seed=6))
    return descend(lambda: sepclr(c1, c2, s1, s2, in_classes(n, 2)), (c1, c2, s1, s2)), plain(c1, c2)


CASES = {
    "pixpro": Case("images", "BYOL on means of the same maps", pix_pro, note="8 x 8 cells", sizes=(16, 64, 256)),
    "scatsimclr": Case(
        "images",
        "NT-Xent of the same network",
        scat_sim_clr,
        note="four rotations beside two views",
        sizes=(16, 64, 256),
    ),
    "adainf": Case("pairs", "NT-Xent", ada_inf, "every pair is compared"),
    "genview": Case("pairs", "MoCo v3's loss", gen_view, "every pair is compared", note="9 patches a view"),
    "cdvg": Case(
        "images", "NT-Xent of the same network", cdvg, note="the translator draws both views", sizes=(16, 64, 256)
    ),
    "customcontrast": Case(
        "subjects", "denoising alone", custom_contrast, "a table of 2n x 2n for each layer: negatives are weighted"
    ),
    "mcl": Case("pairs", "NT-Xent", mcl, "every pair is compared"),
    "hydra": Case("samples", "SupCon", hydra, "a table of n x n: each anchor measures in a subspace of its own"),
    "sepclr": Case("pairs", "NT-Xent", sep_clr, "the distance of every pair, of two codes and of both together"),
}
